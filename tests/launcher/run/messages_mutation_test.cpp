// Random damage to everything that agents and the head say to each other: readers give a value or an error, and the
// head's end of the tree and an inner agent live on, whatever an authenticated peer says.
#include <boost/asio/io_context.hpp>
#include <random>

#include "agent/child_relay.hpp"
#include "agent/parent_link.hpp"
#include "launcher/head_tree.hpp"
#include "tests/agent/random_seed.hpp"
#include "tests/catch.hpp"
#include "tests/launcher/run/messages_fuzz_input.hpp"

using namespace mds;
using namespace mds::launcher;
using agent::Message;
using agent::MessageType;
using nlohmann::json;
using namespace std::chrono_literals;

namespace {

using Random = std::mt19937_64;

json bytes_of(const json& body) { return json::binary(json::to_cbor(body)); }

const std::vector<std::pair<MessageType, json>>& examples() {
  static const json beat{{"rank", 1}, {"beats", 7}, {"step", 3}, {"beat_age_ms", 20}};
  static const json frames = json::array({{{"function", "main"}, {"file", "a.c"}, {"line", 3}}});
  static const std::vector<std::pair<MessageType, json>> all{
      {MessageType::hello, {{"node", 1}, {"host", "h"}, {"pid", 7}, {"protocol", 1}}},
      {MessageType::hello, {{"node", 1}, {"host", "h"}, {"protocol", 1}, {"again", 1}, {"received", 3}}},
      {MessageType::rank_started, {{"rank", 1}, {"pid", 7}, {"notes", {"n"}}}},
      {MessageType::rank_exited, {{"rank", 1}, {"pid", 7}, {"signal", 9}, {"core_dumped", false}, {"tail", {"x"}}}},
      {MessageType::output, {{"rank", 1}, {"lines", {"a", "b"}}, {"dropped", 2}}},
      {MessageType::progress, {{"rank", 1}, {"step", 3}, {"loss", 1.5}, {"tokens", 100}, {"seconds", 0.5}}},
      {MessageType::exchange_put,
       {{"name", "n"}, {"index", 0}, {"count", 2}, {"rank", 1}, {"value", bytes_of(json::array())}}},
      {MessageType::heartbeat, {{"ranks", {beat, beat}}, {"silent", {2, 3}}}},
      {MessageType::stacks,
       {{"id", 1},
        {"ranks", {{{"rank", 0}, {"processes", {{{"pid", 5}, {"threads", {{{"tid", 5}, {"frames", frames}}}}}}}}}}}},
      {MessageType::serving, {{"address", "127.0.0.1"}, {"port", 4711}}},
      {MessageType::up,
       {{"items", {{2, 8, 1, bytes_of({{"ranks", {beat}}})}, {2, 14, 1, bytes_of(json::object())}}}}},
      {MessageType::join, {{"address", "127.0.0.1"}, {"port", 1}}},
      {MessageType::attached, {{"received", 2}}},
      {MessageType::down, {{"to", {0, 1}}, {"type", 34}, {"body", bytes_of({{"name", "n"}})}}},
      {MessageType::stop_ranks, {{"grace_ms", 10}, {"drain_ms", 0}}},
      {MessageType::start,
       {{"attempt", 1}, {"ranks", {{{"rank", 0}, {"argv", {"/bin/true"}}, {"env", {{"A", "b"}}}}}}}},
  };
  return all;
}

json anything(Random& random) {
  static const std::vector<json> values{
      nullptr, true,    -1,    0,          1e300,         UINT64_MAX,     INT64_MIN,         "",
      "1",     "\u00e9", 65536, 4294967296, json::array(), json::object(), json::array({-1}), json::binary({0xff}),
      {{"a", 1}}};
  return values[random() % values.size()];
}

/// One field, however deep, becomes something else, goes, or comes.
void damage(json& body, Random& random) {
  json* at = &body;
  while (at->is_structured() && !at->empty() && random() % 3 != 0) {
    auto child = at->begin();
    std::advance(child, static_cast<long>(random() % at->size()));
    at = &*child;
  }
  if (at->is_binary()) {  // a message within a message
    json inner = json::from_cbor(at->get_binary(), true, false);
    damage(inner, random);
    *at = bytes_of(inner);
  } else if (at->is_structured() && !at->empty() && random() % 4 == 0) {
    at->erase(at->begin());
  } else if (at->is_array() && random() % 2 == 0) {
    at->push_back(anything(random));
  } else if (at != &body) {
    *at = anything(random);
  }
}

std::pair<MessageType, json> damaged(Random& random) {
  auto [type, body] = examples()[random() % examples().size()];
  for (uint64_t times = random() % 3; times > 0; --times) damage(body, random);
  return {random() % 8 == 0 ? examples()[random() % examples().size()].first : type, body};
}

/// Says hello as some node or not at all, then whatever comes to its mind.
void talk(const std::shared_ptr<agent::Channel>& channel, Random& random) {
  channel->start([](Message) {}, [](const Status&) {});
  json hello = examples()[0].second;
  hello["node"] = random() % 4;
  if (random() % 8 != 0) (void)channel->send(MessageType::hello, 1, hello);
  for (int i = 0; i < 20; ++i) {
    const auto [type, body] = damaged(random);
    if (!channel->send(type, random() % 3, body).ok()) return;
  }
}

}  // namespace

TEST_CASE("messages of broken agents and ranks are read or refused", "[messages]") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  Random random(seed);
  for (int i = 0; i < 20'000; ++i) {
    const auto [type, body] = damaged(random);
    std::string input(1, static_cast<char>(type));
    const auto cbor = json::to_cbor(body);
    input.append(cbor.begin(), cbor.end());
    if (random() % 4 == 0) input[1 + random() % (input.size() - 1)] = static_cast<char>(random());
    REQUIRE_NOTHROW(tests::try_message(input));
  }
}

TEST_CASE("the head's end of the tree and an inner agent survive peers that say anything", "[messages][tree]") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  Random random(seed);
  boost::asio::io_context io{1};
  const auto credentials = *agent::make_credentials();
  HeadTree::Events events;
  events.may_join = [](int node, const Message& hello) -> Status {
    const auto valid = hello_from_message(hello, 4);
    return valid && valid->node == node ? Status{} : Status(corrupt("hello"));
  };
  int heard = 0;
  events.on_joined = [](int, const Message&) {};
  events.on_message = [&](int node, const Message& message) {
    ++heard;
    (void)event_from_message(message, node, {0, 1, 2, 3});
  };
  events.on_lost = [](int, const std::string&) {};
  events.on_control = [](const Message&, const auto&) {};
  events.start_body = [](int, uint32_t) { return json::object(); };
  events.on_note = [](const std::string&) {};
  auto tree = HeadTree::open(io, {"127.0.0.1", 4, 2}, credentials, events);
  REQUIRE(tree.ok());
  uint16_t relay_port = 0;
  agent::ChildRelay::Events relayed;
  relayed.send_up = [&](MessageType type, const json& body) {
    if (type == MessageType::serving) relay_port = body.value("port", uint16_t{0});
  };
  relayed.queued_up = [] { return size_t{0}; };
  relayed.on_stage_ask = [](const json&, const auto&) {};
  relayed.on_childless = [] {};
  relayed.on_note = [](const std::string&) {};
  agent::ChildRelay relay(io, 0, credentials, std::move(relayed));
  relay.serve("127.0.0.1");
  REQUIRE(relay_port != 0);

  const auto until = std::chrono::steady_clock::now() + 2s;
  int rounds = 0;
  while (std::chrono::steady_clock::now() < until) {
    bool done = false;
    agent::Channel::connect(io, "127.0.0.1", rounds % 2 == 0 ? (*tree)->port() : relay_port, credentials, {},
                            [&](Result<std::shared_ptr<agent::Channel>> channel) {
                              REQUIRE(channel.ok());
                              talk(*channel, random);
                              (*channel)->close();
                              done = true;
                            });
    while (!done) io.run_one_for(100ms);
    io.run_for(1ms);
    const auto [type, body] = damaged(random);
    (void)relay.pass_down({MessageType::down, credentials.job, 1, 1, body});
    (void)(*tree)->send(static_cast<int>(random() % 4), type, 1, body);
    json beats{{"ranks", json::array()}};
    relay.add_heartbeats(beats);
    for (int node = 0; node < 4; ++node) (*tree)->give_up(node, "the next one comes");
    ++rounds;
  }
  io.run_for(50ms);
  INFO(rounds << " peers, " << heard << " messages taken");
  CHECK(rounds > 20);
  CHECK(heard > 20);
}
