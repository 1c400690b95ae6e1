// Staging on a node and through it: a head that is this test, an agent's stage, and one below it.
#include "agent/node_stage.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <nlohmann/json.hpp>

#include "agent/stage_list.hpp"
#include "agent/stage_store.hpp"
#include "container/sha256.hpp"
#include "tests/agent/random_seed.hpp"
#include "tests/agent/temporary_folder.hpp"
#include "tests/catch.hpp"

using namespace mds::agent;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

/// Answers like the launcher; `damage` may change an answer.
struct Source {
  std::map<std::string, std::string> contents;
  std::vector<StageEntry> entries;
  std::function<void(json&)> damage;
  int asked = 0;

  void add(const std::string& path, const std::string& content) {
    const std::string sha256 = mds::container::sha256_of(content);
    contents[sha256] = content;
    entries.push_back({StageEntry::Kind::file, path, sha256, content.size(), ""});
  }
  StageSpec spec(const std::string& folder, bool keep = false) {
    const std::string list = to_text(entries);
    const std::string sha256 = mds::container::sha256_of(list);
    contents[sha256] = list;
    return {folder, "run", sha256, list.size(), keep};
  }
  json answer(const json& ask) {
    ++asked;
    const std::string part = contents.at(ask["sha256"]).substr(ask["offset"].get<size_t>(), kStagePartBytes);
    json body = {{"sha256", ask["sha256"]}, {"offset", ask["offset"]}};
    body["bytes"] = json::binary({part.begin(), part.end()});
    if (damage) damage(body);
    return body;
  }
};

/// One agent's stage whose parent is `ask_parent`.
struct Node {
  using Reply = NodeStage::Reply;
  Node(boost::asio::io_context& io, std::function<void(const json&, Reply)> ask_parent) {
    NodeStage::Events events;
    events.ask = [&io, this, ask_parent](const json& body) {
      boost::asio::post(io, [this, ask_parent, body] {
        ask_parent(body, [this](const json& part) {
          if (stage) stage->on_part(part);
        });
      });
    };
    events.on_note = [this](const std::string& text) { notes += text + "\n"; };
    stage = std::make_unique<NodeStage>(io, mark, std::move(events));
  }
  void start(const StageSpec& spec) {
    ended = false;
    stage->start(spec, [this](mds::Status status) {
      ended = true;
      error = status ? "" : status.error().message;
    });
  }

  ProcessMark mark;
  std::unique_ptr<NodeStage> stage;
  bool ended = false;
  std::string error, notes;
};

std::string random_bytes(std::mt19937_64& random, size_t size) {
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void run(boost::asio::io_context& io) {
  io.restart();
  io.run();
}

}  // namespace

TEST_CASE("files reach a node and one below it, each asked for once above", "[agent][stage]") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const TemporaryFolder folder;
  boost::asio::io_context io;
  Source source;
  source.add("/data/large", random_bytes(random, 3 * kStagePartBytes + 17));
  source.add("/data/exact", random_bytes(random, 2 * kStagePartBytes));
  source.add("/data/empty", "");
  for (int n = 0; n < 50; ++n) source.add("/many/" + std::to_string(n), random_bytes(random, random() % 1000));
  source.entries.push_back({StageEntry::Kind::link, "/data/link", "", 0, "large"});
  Node inner(io, [&](const json& ask, Node::Reply reply) { reply(source.answer(ask)); });
  Node leaf(io, [&](const json& ask, Node::Reply reply) { inner.stage->on_ask(ask, std::move(reply)); });
  // The one below may well be told first.
  leaf.start(source.spec(folder.path() + "/leaf"));
  run(io);
  CHECK_FALSE(leaf.ended);
  inner.start(source.spec(folder.path() + "/inner"));
  run(io);
  for (const char* node : {"/leaf", "/inner"}) {
    const std::string root = StageStore::root_of(folder.path() + node, "run");
    for (const StageEntry& entry : source.entries) {
      if (entry.kind != StageEntry::Kind::file) continue;
      INFO(entry.path);
      CHECK(content_of(root + entry.path) == source.contents[entry.sha256]);
    }
    CHECK(fs::read_symlink(root + "/data/link") == "large");
  }
  CHECK((leaf.ended && leaf.error.empty() && inner.ended && inner.error.empty()));
  CHECK(source.asked <= 4 + 2 + 50 + 1);
  leaf.start(source.spec(folder.path() + "/leaf"));  // another attempt: it is all there
  CHECK((leaf.ended && leaf.error.empty()));
  leaf.stage.reset();
  inner.stage.reset();
  CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("a kept image is not asked for again, and given to who lacks it", "[agent][stage]") {
  const TemporaryFolder folder;
  boost::asio::io_context io;
  Source source;
  source.add("/home/image.sif", std::string(3 * kStagePartBytes, 'i'));
  source.entries.back().kind = StageEntry::Kind::image;
  const std::string sha256 = source.entries.back().sha256, content = source.contents[sha256];
  const auto head = [&](const json& ask, Node::Reply reply) { reply(source.answer(ask)); };
  auto first = std::make_unique<Node>(io, head);
  first->start(source.spec(folder.path() + "/inner"));
  run(io);
  CHECK((first->ended && first->error.empty()));
  CHECK(first->stage->received_bytes() > content.size());
  first.reset();

  source.asked = 0;
  Node inner(io, head);
  Node leaf(io, [&](const json& ask, Node::Reply reply) { inner.stage->on_ask(ask, std::move(reply)); });
  leaf.start(source.spec(folder.path() + "/leaf"));
  inner.start(source.spec(folder.path() + "/inner"));
  run(io);
  CHECK((leaf.ended && leaf.error.empty() && inner.ended && inner.error.empty()));
  CHECK(source.asked == 1);  // the list
  CHECK(inner.stage->received_bytes() < kStagePartBytes);
  for (const char* node : {"/leaf", "/inner"}) {
    CHECK(content_of(StageStore::images_of(folder.path() + node) + "/" + sha256) == content);
    CHECK_FALSE(fs::exists(StageStore::root_of(folder.path() + node, "run") + "/home/image.sif"));
  }
}

TEST_CASE("one flipped byte is refused, with the file and both digests", "[agent][stage]") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const TemporaryFolder folder;
  boost::asio::io_context io;
  Source source;
  source.add("/data/good", random_bytes(random, 1000));
  source.add("/data/large", random_bytes(random, 2 * kStagePartBytes + 5));
  const std::string meant = source.entries.back().sha256;
  std::string found;
  source.damage = [&](json& body) {
    if (body["sha256"] != meant || body["offset"] == 0) return;
    auto& bytes = body["bytes"].get_binary();
    const size_t offset = body["offset"];
    if (offset != kStagePartBytes) return;
    const size_t at = random() % bytes.size();
    bytes[at] ^= static_cast<uint8_t>(1 << (random() % 8));
    std::string whole = source.contents[meant];
    whole[offset + at] = static_cast<char>(bytes[at]);
    found = mds::container::sha256_of(whole);
  };
  Node node(io, [&](const json& ask, Node::Reply reply) { reply(source.answer(ask)); });
  node.start(source.spec(folder.path() + "/store"));
  run(io);
  REQUIRE(node.ended);
  INFO(node.error);
  for (const std::string& word : {std::string("/data/large"), meant, found}) {
    CHECK(node.error.find(word) != std::string::npos);
  }
  CHECK_FALSE(fs::exists(folder.path() + "/store"));  // nothing that anybody could trust
  source.damage = nullptr;
  node.start(source.spec(folder.path() + "/store"));
  run(io);
  CHECK((node.ended && node.error.empty()));
}

TEST_CASE("a copy in the store that was damaged since is noticed and fetched anew", "[agent][stage]") {
  const TemporaryFolder folder;
  boost::asio::io_context io;
  Source source;
  source.add("/data/file", std::string(100'000, 'x'));
  const std::string sha256 = source.entries.back().sha256, store = folder.path() + "/store";
  const auto parent = [&](const json& ask, Node::Reply reply) { reply(source.answer(ask)); };
  auto first = std::make_unique<Node>(io, parent);
  first->start(source.spec(store, /*keep=*/true));
  run(io);
  first.reset();
  const std::string object = store + "/objects/" + sha256;
  REQUIRE(fs::exists(object));
  const int before = source.asked;
  Node again(io, parent);
  again.start(source.spec(store, true));
  run(io);
  CHECK((again.ended && again.error.empty()));
  CHECK(source.asked == before);  // it was there
  again.stage.reset();

  fs::permissions(object, fs::perms::owner_all);
  std::fstream(object, std::ios::in | std::ios::out | std::ios::binary).seekp(50'000).put('y');
  Node last(io, parent);
  last.start(source.spec(store));
  run(io);
  CHECK((last.ended && last.error.empty()));
  CHECK(last.notes.find(sha256) != std::string::npos);
  CHECK(content_of(StageStore::root_of(store, "run") + "/data/file") == std::string(100'000, 'x'));
}

TEST_CASE("who loses its parent on the way asks the next one for the rest", "[agent][stage]") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const TemporaryFolder folder;
  boost::asio::io_context io;
  Source source;
  source.add("/data/large", random_bytes(random, 20 * kStagePartBytes));
  int left = 7;
  bool late = false;
  std::vector<std::function<void()>> lost;
  Node node(io, [&](const json& ask, Node::Reply reply) {
    const json part = source.answer(ask);
    if (left-- > 0) return reply(part);
    if (late) return reply(part);
    lost.push_back([reply, part] { reply(part); });  // may still come, when another parent answers already
  });
  node.start(source.spec(folder.path() + "/store"));
  run(io);
  CHECK_FALSE(node.ended);
  late = true;
  for (const auto& one : lost) boost::asio::post(io, one);
  node.stage->ask_again();
  run(io);
  CHECK((node.ended && node.error.empty()));
  CHECK(content_of(StageStore::root_of(folder.path() + "/store", "run") + "/data/large") ==
        source.contents[source.entries[0].sha256]);
}

TEST_CASE("what the parent cannot give is an error, as is a list that is none", "[agent][stage]") {
  const TemporaryFolder folder;
  boost::asio::io_context io;
  Source source;
  source.add("/data/file", "content");
  source.damage = [&](json& body) {
    if (body["sha256"] != source.entries[0].sha256) return;
    body.erase("bytes");
    body["error"] = "gone";
  };
  Node node(io, [&](const json& ask, Node::Reply reply) { reply(source.answer(ask)); });
  node.start(source.spec(folder.path() + "/store"));
  run(io);
  CHECK(node.error == "gone");
  for (const char* path : {"relative", "/a/../../b", "/a/"}) {
    Source hostile;
    hostile.entries.push_back({StageEntry::Kind::folder, path, "", 0, ""});
    Node victim(io, [&](const json& ask, Node::Reply reply) { reply(hostile.answer(ask)); });
    victim.start(hostile.spec(folder.path() + "/victim"));
    run(io);
    INFO(path);
    CHECK(victim.error.find("malformed") != std::string::npos);
  }
}
