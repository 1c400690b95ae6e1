// The tree of agents with its real parts over real sockets, all in one event loop: the head's end, and agents without
// ranks.
#include "launcher/control.hpp"
#include "launcher/head_tree.hpp"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "agent/child_relay.hpp"
#include "agent/parent_link.hpp"
#include "tests/agent/random_seed.hpp"
#include "tests/agent/temporary_folder.hpp"
#include "tests/catch.hpp"

using namespace mds;
using namespace mds::launcher;
using agent::Message;
using agent::MessageType;
using nlohmann::json;
using namespace std::chrono_literals;

namespace {

/// An agent that counts what it gets.
struct StubAgent {
  StubAgent(boost::asio::io_context& io, const agent::Bootstrap& bootstrap)
      : node(bootstrap.node),
        link(io, bootstrap, link_events()),
        relay(io, bootstrap.node, bootstrap.credentials, relay_events()) {
    link.start([this] { return json{{"node", node}, {"host", "h"}, {"protocol", agent::kProtocolVersion}}; });
  }

  agent::ParentLink::Events link_events() {
    agent::ParentLink::Events events;
    events.unwrap = [this](const Message& message) { return relay.pass_down(message); };
    events.on_message = [this](const Message& message) {
      if (message.type == MessageType::serve) return relay.serve(link.local_address());
      if (message.type == MessageType::goodbye) goodbye = true;
      if (message.type == MessageType::exchange_result) got.push_back(message.body.value("n", -1));
    };
    events.on_again = [this] { relay.rejoin(); };
    events.on_pulse = [this] { relay.pulse(); };
    events.on_lost = [this](const Error&) { lost = true; };
    events.on_note = [](const std::string&) {};
    return events;
  }
  agent::ChildRelay::Events relay_events() {
    agent::ChildRelay::Events events;
    events.send_up = [this](MessageType type, const json& body) { link.send(type, 0, body); };
    events.queued_up = [this] { return link.queued_bytes(); };
    events.on_childless = [] {};
    events.on_note = [](const std::string&) {};
    events.silence = [this] { return link.silence(); };
    return events;
  }

  int node;
  std::vector<int> got;
  bool goodbye = false, lost = false;
  int said = 0;
  agent::ParentLink link;
  agent::ChildRelay relay;
};

class Forest {
 public:
  Forest(int nodes, int fan_out) : heard(nodes), agents(nodes), credentials_(*agent::make_credentials()) {
    HeadTree::Events events;
    events.may_join = [](int, const Message&) { return Status{}; };
    events.on_joined = [this](int node, const Message&) { joined.insert(node); };
    events.on_message = [this](int node, const Message& message) {
      if (message.type == MessageType::progress) heard[node].push_back(message.body.value("n", -1));
    };
    events.on_lost = [this](int node, const std::string& why) {
      joined.erase(node);
      lost[node] = why;
    };
    events.on_control = [](const Message&, const auto&) {};
    events.start_body = [](int, uint32_t) { return json::object(); };
    events.on_note = [this](const std::string& text) { notes += text + "\n"; };
    // Whoever lives comes back, however busy the machine is; who died below another dead one is waited for as long.
    auto opened = HeadTree::open(io, {"127.0.0.1", nodes, fan_out, /*back_limit=*/12s}, credentials_, events);
    REQUIRE(opened.ok());
    tree = std::move(*opened);
  }

  void start(int node) {
    const agent::Bootstrap bootstrap{.head_address = "127.0.0.1",
                                     .head_port = tree->port(),
                                     .credentials = credentials_,
                                     .node = node,
                                     .run_folder = "/"};
    agents[node] = std::make_unique<StubAgent>(io, bootstrap);
  }
  void start_all() {
    for (size_t n = 0; n < agents.size(); ++n) start(static_cast<int>(n));
    run_until([&] { return joined.size() == agents.size(); }, "all agents");
  }
  void say(int node) {
    StubAgent& agent = *agents[node];
    agent.link.send(MessageType::progress, 0, {{"n", agent.said++}});
  }
  void tell(int node) {
    (void)tree->send(node, MessageType::exchange_result, 0, {{"n", told[node]}});
    ++told[node];
  }

  template <typename Done>
  void run_until(Done done, const std::string& what) {
    const auto deadline = std::chrono::steady_clock::now() + 50s;
    while (!done()) {
      INFO("notes of the head:\n" << notes);
      if (std::chrono::steady_clock::now() > deadline) FAIL("no " << what << " within 50 s");
      io.restart();
      io.run_one_for(10ms);
    }
  }

  boost::asio::io_context io{1};
  std::unique_ptr<HeadTree> tree;
  std::set<int> joined;
  std::map<int, std::string> lost;
  std::vector<std::vector<int>> heard;             // by node: numbers of its messages
  std::map<int, int> told;                         // by node: messages that the head has sent
  std::vector<std::unique_ptr<StubAgent>> agents;  // go before the event loop
  std::string notes;

 private:
  agent::Credentials credentials_;
};

std::vector<int> counted(int n) {
  std::vector<int> numbers(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) numbers[static_cast<size_t>(i)] = i;
  return numbers;
}

}  // namespace

TEST_CASE("H1: with few nodes all are connected straight; with many the head has fan_out of them", "[tree]") {
  const int nodes = GENERATE(4, 40);
  Forest forest(nodes, 4);
  forest.start_all();
  // Agents that were told to join others have closed their first connection by now, or will.
  forest.run_until([&] { return forest.tree->connections() == 4; }, "end of short connections");
  int depth = 0;
  std::map<int, int> children;
  for (int n = 0; n < nodes; ++n) {
    ++children[forest.tree->parent(n)];
    int steps = 1;
    for (int up = forest.tree->parent(n); up >= 0; up = forest.tree->parent(up)) ++steps;
    depth = std::max(depth, steps);
  }
  for (const auto& [parent, count] : children) CHECK(count <= 4);
  CHECK(depth == (nodes == 4 ? 1 : 3));  // 4 + 16 + 20 of 64
}

TEST_CASE("messages go to one node, to many, and come from all, in order", "[tree]") {
  Forest forest(21, 2);
  forest.start_all();
  const agent::Traffic before = forest.tree->traffic();
  for (int i = 0; i < 50; ++i) {
    for (int n = 0; n < 21; ++n) {
      forest.say(n);
      forest.tell(n);
    }
  }
  forest.run_until(
      [&] {
        return std::all_of(forest.agents.begin(), forest.agents.end(),
                           [](const auto& a) { return a->got.size() == 50; }) &&
               std::all_of(forest.heard.begin(), forest.heard.end(), [](const auto& h) { return h.size() == 50; });
      },
      "all messages");
  for (int n = 0; n < 21; ++n) {
    CHECK(forest.agents[n]->got == counted(50));
    CHECK(forest.heard[n] == counted(50));
  }
  // 50 equal messages to 21 nodes leave by two connections once each, and a pulse now and then.
  CHECK(forest.tree->traffic().sent_messages - before.sent_messages <= 2 * 50 + 20);
}

TEST_CASE("an inner agent dies: it alone is lost, and all below it are back within a second", "[tree]") {
  Forest forest(14, 2);
  forest.start_all();
  int victim = -1;
  for (int n = 0; n < 14; ++n) {
    if (forest.tree->parent(n) >= 0 && forest.tree->parent(forest.tree->parent(n)) < 0) victim = forest.tree->parent(n);
  }
  REQUIRE(victim >= 0);
  std::set<int> below;
  for (int n = 0; n < 14; ++n) {
    if (n != victim && forest.tree->is_below(n, victim)) below.insert(n);
  }
  REQUIRE(below.size() >= 2);
  const auto begin = std::chrono::steady_clock::now();
  forest.agents[victim].reset();
  for (int n = 0; n < 14; ++n) {
    if (n == victim) continue;
    forest.say(n);
    forest.tell(n);  // to nodes that are away, too
  }
  forest.run_until(
      [&] { return std::all_of(below.begin(), below.end(), [&](int n) { return forest.agents[n]->got.size() == 1; }); },
      "children of the dead agent");
  CHECK(std::chrono::steady_clock::now() - begin < 1s);
  forest.run_until([&] { return forest.lost.count(victim) == 1; }, "loss of the dead agent");
  forest.run_until(
      [&] {
        return std::count_if(forest.heard.begin(), forest.heard.end(), [](const auto& h) { return h.size() == 1; }) ==
               13;
      },
      "what all said");
  CHECK(forest.lost.size() == 1);
  CHECK(forest.joined.size() == 13);
}

TEST_CASE("H2: whatever dies and comes back, messages of those who stay arrive once and in order", "[tree]") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  constexpr int kNodes = 20;
  Forest forest(kNodes, 2);
  forest.start_all();
  std::set<int> dead;
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 20; ++i) {
      const int node = static_cast<int>(random() % kNodes);
      if (dead.count(node)) continue;
      forest.say(node);
      if (forest.joined.count(node)) forest.tell(node);
    }
    const int victim = static_cast<int>(random() % kNodes);
    if (round % 8 == 3 && dead.size() < 5 && !dead.count(victim)) {
      forest.agents[victim].reset();
      dead.insert(victim);
    }
    for (uint64_t turns = random() % 20; turns > 0; --turns) {
      forest.io.restart();
      forest.io.run_one_for(2ms);
    }
  }
  forest.run_until(
      [&] {
        for (int n = 0; n < kNodes; ++n) {
          if (dead.count(n)) continue;
          if (forest.heard[n].size() < static_cast<size_t>(forest.agents[n]->said)) return false;
          if (forest.agents[n]->got.size() < static_cast<size_t>(forest.told[n])) return false;
        }
        return forest.lost.size() == dead.size();
      },
      "every message of the living");
  for (int n = 0; n < kNodes; ++n) {
    INFO("node " << n << (dead.count(n) ? ", dead" : ""));
    CHECK(forest.heard[n] == counted(static_cast<int>(forest.heard[n].size())));
    CHECK(forest.lost.count(n) == dead.count(n));
    if (dead.count(n)) continue;
    CHECK(forest.heard[n].size() == static_cast<size_t>(forest.agents[n]->said));
    CHECK(forest.agents[n]->got == counted(forest.told[n]));
  }
}

TEST_CASE("from another node the same requests travel with the job's key", "[tree][control]") {
  boost::asio::io_context io{1};
  const auto credentials = *agent::make_credentials();
  HeadTree::Events events;
  events.on_control = [](const Message& message, const std::function<void(const json&)>& reply) {
    reply({{"echo", message.body}});
  };
  events.on_note = [](const std::string&) {};
  auto tree = HeadTree::open(io, {"127.0.0.1", 1, 1}, credentials, events);
  REQUIRE(tree.ok());
  TemporaryFolder folder;
  const auto run = RunFolder::existing(folder.path());
  REQUIRE(write_control_address(folder.path(), {"elsewhere", "127.0.0.1", (*tree)->port(), credentials}).ok());
  std::thread head([&] { io.run_for(20s); });
  {
    auto client = ControlClient::connect(run);
    REQUIRE(client.ok());
    for (int i = 0; i < 3; ++i) {
      const auto reply = (*client)->ask({{"command", "status"}, {"i", i}});
      REQUIRE(reply.ok());
      CHECK((*reply)["echo"]["i"] == i);
    }
  }
  const ControlAddress stranger{"elsewhere", "127.0.0.1", (*tree)->port(), *agent::make_credentials()};
  REQUIRE(write_control_address(folder.path(), stranger).ok());
  CHECK(!ControlClient::connect(run).ok());
  io.stop();
  head.join();
}

TEST_CASE("an agent whose head is gone gives up at once", "[tree]") {
  Forest forest(6, 2);
  forest.start_all();
  forest.tree.reset();
  forest.run_until(
      [&] {
        std::erase_if(forest.agents, [](const auto& agent) { return agent->lost; });  // as the program leaves then
        return forest.agents.empty();
      },
      "end of all agents");
}

TEST_CASE("P3: when the head falls silent, all are lost when their lease is over, however deep in the tree", "[tree]") {
  constexpr int kNodes = 4;
  boost::asio::io_context head, io{1};
  const auto credentials = *agent::make_credentials();
  std::set<int> joined;
  HeadTree::Events events;
  events.may_join = [](int, const Message&) { return Status{}; };
  events.on_joined = [&](int node, const Message&) { joined.insert(node); };
  events.on_message = [](int, const Message&) {};
  events.on_lost = [](int, const std::string&) {};
  events.on_note = [](const std::string&) {};
  auto tree = HeadTree::open(head, {"127.0.0.1", kNodes, 1}, credentials, events);
  REQUIRE(tree.ok());
  std::vector<std::unique_ptr<StubAgent>> agents;
  for (int n = 0; n < kNodes; ++n) {  // a name, not 127.*: that one could not be cut off
    const agent::Bootstrap bootstrap{.head_address = "localhost",
                                     .head_port = (*tree)->port(),
                                     .credentials = credentials,
                                     .node = n,
                                     .run_folder = "/"};
    agents.push_back(std::make_unique<StubAgent>(io, bootstrap));
  }
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (joined.size() < kNodes && std::chrono::steady_clock::now() < deadline) {
    head.run_one_for(1ms);
    io.run_one_for(1ms);
  }
  REQUIRE(joined.size() == kNodes);
  const auto lease = agent::ParentLink::kSilenceLimit + agent::ParentLink::kAgainLimit;
  const auto begin = std::chrono::steady_clock::now();
  const auto is_lost = [](const auto& agent) { return agent->lost; };
  while (!std::all_of(agents.begin(), agents.end(), is_lost)) {
    REQUIRE(std::chrono::steady_clock::now() - begin < lease + 3s);
    io.run_one_for(10ms);
  }
  CHECK(std::chrono::steady_clock::now() - begin > lease - 2s);
}

TEST_CASE("H4: a node that was given up is told to leave when it comes back", "[tree]") {
  Forest forest(3, 2);
  forest.start_all();
  forest.say(0);
  forest.run_until([&] { return forest.heard[0].size() == 1; }, "its message");
  forest.tree->give_up(0, "no longer wanted");
  CHECK(forest.lost.at(0) == "no longer wanted");
  CHECK(!forest.tree->send(0, MessageType::progress, 0, json::object()).ok());
}
