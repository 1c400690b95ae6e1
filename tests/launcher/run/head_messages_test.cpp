#include "launcher/head_messages.hpp"

#include <limits>
#include <random>

#include "tests/agent/random_seed.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;
using mds::agent::Message;
using mds::agent::MessageType;
using nlohmann::json;

namespace {

const std::vector<int> kNodeOfRank{0, 0, 1, 1};

Message message(MessageType type, json body, uint32_t attempt = 2) {
  Message m;
  m.type = type;
  m.attempt = attempt;
  m.body = std::move(body);
  return m;
}

}  // namespace

TEST_CASE("head messages: each becomes its event") {
  auto exited = event_from_message(message(MessageType::rank_exited, {{"rank", 3}, {"pid", 7}, {"signal", 9},
                                           {"core_dumped", true}, {"tail", {"a", "b"}}, {"ns", 5'000'123}}),
                                   1, kNodeOfRank);
  REQUIRE(exited.ok());
  REQUIRE(*exited);
  const Event& e = **exited;
  CHECK(e.kind == EventKind::rank_exited);
  CHECK(e.attempt == 2);
  CHECK(e.rank == 3);
  CHECK(e.signal == 9);
  CHECK(!e.exit_code);
  CHECK(e.core_dumped);
  CHECK(e.tail == std::vector<std::string>{"a", "b"});
  CHECK(e.detected_us == 5000);

  auto checkpoint = event_from_message(
      message(MessageType::progress, {{"rank", 0}, {"step", 100}, {"checkpoint", "step-00000100"}}), 0, kNodeOfRank);
  REQUIRE(checkpoint.ok());
  CHECK((*checkpoint)->kind == EventKind::checkpoint);
  CHECK((*checkpoint)->text == "step-00000100");
  auto failed_save = event_from_message(
      message(MessageType::progress, {{"rank", 0}, {"step", 100}, {"checkpoint_error", "disk full"}}), 0, kNodeOfRank);
  REQUIRE(failed_save.ok());
  CHECK(!*failed_save);
}

TEST_CASE("head messages: a rank speaks only through its own node's agent") {
  for (const auto type : {MessageType::rank_exited, MessageType::progress, MessageType::rank_started}) {
    CHECK(!event_from_message(message(type, {{"rank", 3}, {"exit_code", 0}}), 0, kNodeOfRank).ok());
    CHECK(event_from_message(message(type, {{"rank", 3}, {"exit_code", 0}}), 1, kNodeOfRank).ok());
  }
  CHECK(!event_from_message(message(MessageType::start, {{"rank", 3}}), 1, kNodeOfRank).ok());
}

TEST_CASE("head messages: hello is checked") {
  const json good{{"node", 1}, {"host", "a"}, {"protocol", mds::agent::kProtocolVersion}};
  REQUIRE(hello_from_message(message(MessageType::hello, good), 2).ok());
  CHECK(hello_from_message(message(MessageType::hello, good), 2)->host == "a");
  CHECK(!hello_from_message(message(MessageType::hello, good), 1).ok());
  CHECK(!hello_from_message(message(MessageType::progress, good), 2).ok());
  json other = good;
  other["protocol"] = 99;
  const auto refused = hello_from_message(message(MessageType::hello, other), 2);
  REQUIRE(!refused.ok());
  CHECK(refused.error().message.find("version") != std::string::npos);
}

TEST_CASE("head messages: bodies of any shape are answered with an event or an error") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const std::vector<std::string> names{"rank", "node", "exit_code", "signal", "tail", "ns", "step", "checkpoint",
                                       "message", "host", "protocol", "lines", "index", "count", "value", "name"};
  const auto value = [&]() -> json {
    switch (random() % 8) {
      case 0: return json();
      case 1: return static_cast<int64_t>(random() % 5) - 1;
      case 2: return std::numeric_limits<uint64_t>::max();
      case 3: return "text";
      case 4: return {1, "a", nullptr};
      case 5: return 1.5;
      case 6: return json::binary({1, 2});
      default: return json::object();
    }
  };
  for (int i = 0; i < 20'000; ++i) {
    json body = random() % 20 == 0 ? value() : json::object();
    for (const std::string& name : names) {
      if (body.is_object() && random() % 2) body[name] = value();
    }
    const Message m = message(static_cast<MessageType>(random() % 80), body);
    const auto event = event_from_message(m, 0, kNodeOfRank);
    if (event.ok() && *event && (*event)->kind != EventKind::ranks_stopped) CHECK((*event)->rank < 2);
    (void)hello_from_message(m, 2);
    (void)contribution_from_message(m);
    (void)output_from_message(m);
  }
}
