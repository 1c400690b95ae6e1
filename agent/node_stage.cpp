#include "agent/node_stage.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <boost/asio/post.hpp>
#include <nlohmann/json.hpp>

#include "agent/stage_list.hpp"
#include "agent/stage_store.hpp"
#include "container/private_folder.hpp"
#include "container/sha256.hpp"

namespace mds::agent {
namespace {

using nlohmann::json;

constexpr size_t kAsked = 4;             // parts under way: what a parent keeps in memory for a child
constexpr size_t kPlacedAtOnce = 1000;   // files, then the event loop has its turn
constexpr size_t kPendingMax = 8192;     // asks of children that wait
constexpr const char* kListName = "the list of staged files";

struct Object {
  enum class State { checking, missing, receiving, done };
  State state = State::missing;
  std::string sha256;
  std::string name;         // the first path that it has, for messages
  uint64_t bytes = 0;
  uint64_t asked = 0, received = 0;   // while checking, `received` is what has been read
  std::optional<StagePart> part;
  UniqueFd reader;          // while checking
  container::Sha256 digest;

  uint64_t part_size(uint64_t offset) const { return std::min<uint64_t>(kStagePartBytes, bytes - offset); }
};

struct Pending {
  std::string sha256;
  uint64_t offset = 0;
  NodeStage::Reply reply;
};

/// {"sha256", "offset"} of a stage_ask or stage_part.
std::optional<std::pair<std::string, uint64_t>> place_of(const json& body) {
  const auto sha256 = body.is_object() ? body.find("sha256") : body.end();
  const auto offset = body.is_object() ? body.find("offset") : body.end();
  if (sha256 == body.end() || !sha256->is_string() || offset == body.end() || !offset->is_number_unsigned()) return {};
  return std::pair(sha256->get<std::string>(), offset->get<uint64_t>());
}

}  // namespace

struct NodeStage::Impl : std::enable_shared_from_this<NodeStage::Impl> {
  enum class Phase { idle, list, files, placing, ready };

  Impl(boost::asio::io_context& i, ProcessMark& m, Events e) : io(i), mark(m), events(std::move(e)) {}

  Status begin(const StageSpec& wanted);
  Status add(const std::string& sha256, const std::string& name, uint64_t bytes);
  Status read_list();
  Status place_some();
  void proceed();
  void proceed_soon();
  Status advance();
  Status check_slice(Object& object);
  Status ask();
  Status take(Object& object, const std::vector<uint8_t>& bytes);
  Status finish(Object& object);
  std::optional<json> part_of(const Object& object, uint64_t offset) const;
  void serve();
  void end(Status status);
  void forget();

  boost::asio::io_context& io;
  ProcessMark& mark;
  Events events;
  Phase phase = Phase::idle;
  StageSpec spec;
  std::optional<StageStore> store;
  std::map<std::string, Object> objects;   // by digest
  std::deque<std::string> to_check, to_ask;
  size_t unfinished = 0;                   // objects that are not done
  size_t asked = 0;                        // parts under way
  std::vector<StageEntry> list;
  size_t placed = 0;                       // of them
  uint64_t received_bytes = 0;
  std::deque<Pending> pending;
  std::function<void(Status)> on_ready;
  bool posted = false;
};

Status NodeStage::Impl::begin(const StageSpec& wanted) {
  forget();
  spec = wanted;
  received_bytes = 0;
  mark.expect_stage(spec.folder, spec.run);
  auto opened = StageStore::open(spec.folder, spec.run, spec.keep);
  if (!opened) return opened.error();
  store = *std::move(opened);
  phase = Phase::list;
  return add(spec.sha256, kListName, spec.bytes);
}

Status NodeStage::Impl::add(const std::string& sha256, const std::string& name, uint64_t bytes) {
  if (objects.count(sha256)) return {};
  const auto there = store->pin(sha256);
  if (!there) return there.error();
  Object& object = objects[sha256];
  object.sha256 = sha256;
  object.name = name;
  object.bytes = bytes;
  object.state = *there ? Object::State::checking : Object::State::missing;
  (*there ? to_check : to_ask).push_back(sha256);
  ++unfinished;
  return {};
}

/// One slice of work, or what an answer has made possible; ends with on_ready when there is nothing left to do.
Status NodeStage::Impl::advance() {
  if (!to_check.empty()) {
    if (Status checked = check_slice(objects.at(to_check.front())); !checked) return checked;
  }
  if (Status asked_for = ask(); !asked_for) return asked_for;
  if (unfinished > 0) return {};
  if (phase == Phase::list) {
    phase = Phase::files;
    return read_list();
  }
  phase = Phase::placing;
  return place_some();
}

void NodeStage::Impl::proceed() {
  if (phase == Phase::idle || phase == Phase::ready) return;
  if (Status done = advance(); !done) return end(done);
  serve();
  if (phase == Phase::ready) return end({});
  const bool may_ask = asked < kAsked && !to_ask.empty();
  if (!to_check.empty() || may_ask || unfinished == 0) proceed_soon();
}

void NodeStage::Impl::proceed_soon() {
  if (std::exchange(posted, true)) return;
  boost::asio::post(io, [self = shared_from_this()] {
    self->posted = false;
    self->proceed();
  });
}

Status NodeStage::Impl::read_list() {
  std::string text(spec.bytes, '\0');
  const UniqueFd file(open(store->pinned(spec.sha256).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file || pread(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return unavailable("cannot read " + store->pinned(spec.sha256));
  }
  auto entries = stage_list_from_text(text);
  if (!entries) return entries.error();
  list = *std::move(entries);
  for (const StageEntry& entry : list) {
    if (entry.kind != StageEntry::Kind::file && entry.kind != StageEntry::Kind::image) continue;
    if (Status added = add(entry.sha256, entry.path, entry.bytes); !added) return added;
  }
  return {};
}

Status NodeStage::Impl::place_some() {
  const size_t end = std::min(list.size(), placed + kPlacedAtOnce);
  for (; placed < end; ++placed) {
    const StageEntry& entry = list[placed];
    Status done;
    switch (entry.kind) {
      case StageEntry::Kind::file: done = store->place_object(entry.sha256, entry.path); break;
      case StageEntry::Kind::image: done = store->place_image(entry.sha256); break;
      case StageEntry::Kind::link: done = store->place_link(entry.target, entry.path); break;
      case StageEntry::Kind::folder: done = store->place_folder(entry.path); break;
    }
    if (!done) return done;
  }
  if (placed == list.size()) phase = Phase::ready;
  return {};
}

// --------------------------------------------------------------------------------------------------- what is there

Status NodeStage::Impl::check_slice(Object& object) {
  const std::string path = store->pinned(object.sha256);
  if (!object.reader) object.reader = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::vector<char> slice(4 * kStagePartBytes);
  const ssize_t n = object.reader ? read(object.reader.get(), slice.data(), slice.size()) : -1;
  if (n < 0) return unavailable("cannot read " + path + ": " + std::strerror(errno));
  if (n > 0) {
    object.digest.add(slice.data(), static_cast<size_t>(n));
    object.received += static_cast<uint64_t>(n);
    return {};
  }
  to_check.pop_front();
  const UniqueFd reader = std::move(object.reader);
  const std::string found = object.digest.finish();
  if (found == object.sha256) {
    object.state = Object::State::done;
    --unfinished;
    return {};
  }
  events.on_note("the stored copy of " + object.name + " is damaged (sha256 " + found + ", not " + object.sha256 +
                 "): it is fetched anew");
  store->discard(object.sha256, reader.get());
  const auto there = store->pin(object.sha256);  // another agent of this run may have fetched it already
  if (!there) return there.error();
  object.state = *there ? Object::State::checking : Object::State::missing;
  object.digest = container::Sha256();
  object.received = 0;
  (*there ? to_check : to_ask).push_back(object.sha256);
  return {};
}

// -------------------------------------------------------------------------------------------------- what is missing

Status NodeStage::Impl::ask() {
  while (asked < kAsked && !to_ask.empty()) {
    Object& object = objects.at(to_ask.front());
    if (object.state == Object::State::missing) {
      auto part = store->begin(object.sha256, object.bytes);
      if (!part) return part.error().within(object.name);
      object.part.emplace(*std::move(part));
      object.digest = container::Sha256();
      object.state = Object::State::receiving;
    }
    if (object.asked < object.bytes) {
      events.ask({{"sha256", object.sha256}, {"offset", object.asked}});
      object.asked += object.part_size(object.asked);
      ++asked;
    }
    if (object.asked < object.bytes) continue;
    to_ask.pop_front();
    if (object.bytes > 0) continue;
    if (Status finished = finish(object); !finished) return finished;
  }
  return {};
}

Status NodeStage::Impl::take(Object& object, const std::vector<uint8_t>& bytes) {
  const bool whole = bytes.size() == object.part_size(object.received);
  if (!whole) return corrupt("a part of " + object.name + " has a wrong size");
  object.digest.add(bytes.data(), bytes.size());
  if (!container::write_all(object.part->fd(), reinterpret_cast<const char*>(bytes.data()), bytes.size())) {
    return unavailable("cannot stage " + object.name + " of " + std::to_string(object.bytes) + " bytes as " +
                       object.part->path() + ": " + std::strerror(errno) +
                       "; make room, or name another folder in stage.folder");
  }
  object.received += bytes.size();
  received_bytes += bytes.size();
  return object.received < object.bytes ? Status() : finish(object);
}

Status NodeStage::Impl::finish(Object& object) {
  const std::string found = object.digest.finish();
  if (found != object.sha256) {
    return corrupt("the copy of " + object.name + " that arrived has the sha256 " + found + ", but " + object.sha256 +
                   " was announced: the file was changed or damaged on its way; start the job again");
  }
  if (Status kept = store->keep(*std::exchange(object.part, std::nullopt), object.sha256); !kept) return kept;
  object.state = Object::State::done;
  --unfinished;
  return {};
}

// ---------------------------------------------------------------------------------------------------------- children

/// A stage_part, if its bytes are here.
std::optional<json> NodeStage::Impl::part_of(const Object& object, uint64_t offset) const {
  const bool done = object.state == Object::State::done;
  const uint64_t size = offset < object.bytes ? object.part_size(offset) : 0;
  const bool here = done || (object.state == Object::State::receiving && object.received >= offset + size);
  if (!here) return std::nullopt;
  json body = {{"sha256", object.sha256}, {"offset", offset}};
  const UniqueFd opened(done ? open(store->pinned(object.sha256).c_str(), O_RDONLY | O_CLOEXEC) : -1);
  std::vector<uint8_t> bytes(size);
  const ssize_t n = pread(done ? opened.get() : object.part->fd(), bytes.data(), size, static_cast<off_t>(offset));
  if (size == 0 || n != static_cast<ssize_t>(size)) {
    body["error"] = "the agent above cannot read its copy of " + object.name;
  } else {
    body["bytes"] = json::binary(std::move(bytes));
  }
  return body;
}

void NodeStage::Impl::serve() {
  for (auto one = pending.begin(); one != pending.end();) {
    const auto object = objects.find(one->sha256);
    const auto body = object == objects.end() ? std::nullopt : part_of(object->second, one->offset);
    if (!body) {
      ++one;
      continue;
    }
    one->reply(*body);
    one = pending.erase(one);
  }
}

// -------------------------------------------------------------------------------------------------------------- ends

void NodeStage::Impl::end(Status status) {
  if (!status) forget();
  if (const auto handler = std::exchange(on_ready, nullptr)) handler(std::move(status));
}

void NodeStage::Impl::forget() {
  phase = Phase::idle;
  objects.clear();
  to_check.clear();
  to_ask.clear();
  list.clear();
  unfinished = asked = placed = 0;
  if (store) store->leave();
  store.reset();
}

NodeStage::NodeStage(boost::asio::io_context& io, ProcessMark& mark, Events events)
    : impl_(std::make_shared<Impl>(io, mark, std::move(events))) {}

NodeStage::~NodeStage() {
  impl_->on_ready = nullptr;
  impl_->pending.clear();
  impl_->forget();
}

void NodeStage::start(const StageSpec& spec, std::function<void(Status)> on_ready) {
  impl_->on_ready = std::move(on_ready);
  const bool same = impl_->phase != Impl::Phase::idle && impl_->spec == spec;
  if (same && impl_->phase == Impl::Phase::ready) return impl_->end({});
  if (!same) {
    if (Status begun = impl_->begin(spec); !begun) return impl_->end(begun);
  }
  impl_->proceed();
}

uint64_t NodeStage::received_bytes() const { return impl_->received_bytes; }

void NodeStage::cancel() { impl_->on_ready = nullptr; }

void NodeStage::on_part(const json& body) {
  const auto place = place_of(body);
  const auto found = place ? impl_->objects.find(place->first) : impl_->objects.end();
  if (found == impl_->objects.end()) return;
  Object& object = found->second;
  // What was asked of an earlier parent may still come, twice then.
  if (object.state != Object::State::receiving || place->second != object.received) return;
  if (impl_->asked > 0) --impl_->asked;
  const auto bytes = body.find("bytes");
  if (bytes == body.end() || !bytes->is_binary()) {
    const auto error = body.find("error");
    const bool says = error != body.end() && error->is_string();
    return impl_->end(unavailable(says ? error->get<std::string>() : "a part of " + object.name + " is empty"));
  }
  if (Status taken = impl_->take(object, bytes->get_binary()); !taken) return impl_->end(taken);
  impl_->proceed();
}

void NodeStage::ask_again() {
  impl_->asked = 0;
  for (auto& [sha256, object] : impl_->objects) {
    if (object.state != Object::State::receiving || object.asked == object.received) continue;
    const auto listed = std::find(impl_->to_ask.begin(), impl_->to_ask.end(), sha256);
    if (listed == impl_->to_ask.end()) impl_->to_ask.push_front(sha256);
    object.asked = object.received;
  }
  impl_->proceed();
}

void NodeStage::on_ask(const json& body, Reply reply) {
  const auto place = place_of(body);
  if (!place || impl_->pending.size() >= kPendingMax) return;
  impl_->pending.push_back({place->first, place->second, std::move(reply)});
  impl_->serve();
}

}  // namespace mds::agent
