#include "topology/fabric/node_order.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <set>

#include "tests/catch.hpp"
#include "topology/fabric/read_fabric.hpp"
#include "topology/read/synthetic.hpp"

using namespace mds;
using namespace mds::topology;

namespace {

Cluster nodes_called(const std::vector<std::string>& hosts, const std::string& fabric = "") {
  Cluster cluster;
  for (const std::string& host : hosts) {
    cluster.nodes.emplace_back();
    cluster.nodes.back().host = host;
  }
  std::vector<std::string> notes;
  if (!fabric.empty()) cluster.fabric = *read_fabric(fabric, notes);
  return cluster;
}

std::string order_of(const Cluster& cluster) {
  std::string text;
  for (const int node : node_order(cluster).nodes) text += (text.empty() ? "" : " ") + cluster.nodes[node].host;
  return text;
}

bool says(const NodeOrder& order, const std::string& words) {
  return std::any_of(order.reasons.begin(), order.reasons.end(),
                     [&](const std::string& reason) { return reason.find(words) != std::string::npos; });
}

const char* const kTree =
    "SwitchName=core Switches=s[1-2]\nSwitchName=s1 Switches=l[1-2]\nSwitchName=s2 Switches=l[9-10]\n"
    "SwitchName=l1 Nodes=a,d\nSwitchName=l2 Nodes=b\nSwitchName=l9 Nodes=c,e\nSwitchName=l10 Nodes=f\n";

/// Where the nodes of each group stand: true if they stand side by side.
bool side_by_side(const std::vector<int>& order, const std::map<int, int>& group_of_node) {
  std::set<int> closed;
  int current = -1;
  for (const int node : order) {
    const int group = group_of_node.at(node);
    if (group == current) continue;
    if (!closed.insert(group).second) return false;
    current = group;
  }
  return true;
}

}  // namespace

TEST_CASE("nodes are filled leaf by leaf", "[fabric][node_order]") {
  CHECK(order_of(nodes_called({"b", "a"})) == "b a");
  CHECK(says(node_order(nodes_called({"b", "a"})), "nothing is known of the switches"));
  CHECK(node_order(nodes_called({"a"}, kTree)).reasons.empty());
  const Cluster cluster = nodes_called({"f", "e", "d", "c", "b", "a", "x.y"}, kTree);
  const NodeOrder order = node_order(cluster);
  CHECK(order_of(cluster) == "d a b e c f x.y");
  CHECK(says(order, "6 nodes hang on 4 leaves below 2 groups of switches of level 1, those below 1 group"));
  CHECK(says(order, "does not know 1 node (x.y), which comes last"));
  CHECK(says(order, "in another order than they were given"));
  // Names with and without a domain are the same hosts.
  CHECK(order_of(nodes_called({"c.z", "a.z"}, kTree)) == "a.z c.z");

  const NodeDistances distance(cluster);
  const std::string hosts = "fedcbax";
  const auto between = [&](char a, char b) {
    const auto i = static_cast<int>(hosts.find(a)), j = static_cast<int>(hosts.find(b));
    CHECK(distance(i, j) == fabric_distance(cluster, i, j));
    CHECK(distance(i, j) == distance(j, i));
    return distance(i, j);
  };
  CHECK(between('a', 'a') == 0);
  CHECK(between('a', 'd') == 2);
  CHECK(between('a', 'b') == 3);
  CHECK(between('a', 'c') == 4);
  CHECK(between('a', 'x') == 5);
  CHECK(fabric_distance(nodes_called({"a", "b"}), 0, 1) == 2);
  CHECK(fabric_distance(nodes_called({"a", "a"}), 0, 1) == 0);
}

TEST_CASE("NVLink domains and blocks are kept whole", "[fabric][node_order]") {
  const std::string blocks = "BlockName=b2 Nodes=a,e\nBlockName=b1 Nodes=b,f\nBlockName=b3 Nodes=q\n";
  CHECK(order_of(nodes_called({"a", "b", "e", "f", "z", "y"}, blocks)) == "b f a e z y");
  // Over the leaves of the tree; the domain goes where most of it is.
  Cluster cluster = nodes_called({"a", "b", "c", "d", "e", "f"}, kTree);
  cluster.fabric.blocks = {{"dom", {"a", "c", "e"}}};
  CHECK(order_of(cluster) == "d b a c e f");
  CHECK(says(node_order(cluster), "kept together though they span several leaves"));
  CHECK(fabric_distance(cluster, 0, 2) == 1);
  CHECK(fabric_distance(cluster, 0, 3) == 2);
  // A smaller domain inside, which begins on an earlier leaf; another one across is not heeded, and that is said.
  cluster.fabric.blocks.push_back({"inner", {"a", "e"}});
  CHECK(order_of(cluster) == "d b a e c f");
  cluster.fabric.blocks.push_back({"across", {"b", "c"}});
  CHECK(order_of(cluster) == "d b a e c f");
  CHECK(says(node_order(cluster), "the block across (b,c) overlaps"));
}

TEST_CASE("GPUs that report an NVLink domain", "[fabric][node_order]") {
  Cluster cluster = *synthetic_cluster("gb200-nvl72 x40");
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::shuffle(cluster.nodes.begin(), cluster.nodes.end(), std::mt19937(seed));
  const NodeOrder order = node_order(cluster);
  std::map<int, int> domain;
  for (int node = 0; node < 40; ++node) domain[node] = std::stoi(cluster.nodes[node].host.substr(12)) / 18;
  CHECK(side_by_side(order.nodes, domain));
  CHECK(domain[order.nodes.front()] == 0);
  CHECK(says(order, "3 NVLink domains or blocks are kept whole"));
  for (int other = 1; other < 40; ++other) {
    CHECK(fabric_distance(cluster, 0, other) == (domain[0] == domain[other] ? 1 : 2));
  }
  // What the GPUs say of themselves counts more than a block of the scheduler's.
  cluster.fabric.blocks = {{"partition", {}}};
  for (const Machine& node : cluster.nodes) cluster.fabric.blocks[0].hosts.push_back(node.host);
  CHECK(side_by_side(node_order(cluster).nodes, domain));
  CHECK(fabric_distance(cluster, order.nodes[0], order.nodes[39]) == 2);
}

TEST_CASE("rails make one unit, and one wrong cable does not change that", "[fabric][node_order]") {
  Cluster cluster = *synthetic_cluster("dgx-h100 x64 fabric:leaf=8,spine=4,rails=8");
  CHECK(cluster.fabric.switches.size() == 64 + 4 + 2);
  const NodeOrder clean = node_order(cluster);
  CHECK(std::is_sorted(clean.nodes.begin(), clean.nodes.end()));
  const NodeDistances distance(cluster);
  CHECK(distance(0, 7) == 2);
  CHECK(distance(0, 8) == 3);
  CHECK(distance(0, 31) == 3);
  CHECK(distance(0, 32) == 4);
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  for (int round = 0; round < 20; ++round) {
    Cluster wrong = cluster;
    wrong.fabric.ports[random() % wrong.fabric.ports.size()].leaf = static_cast<int>(random() % 64);
    wrong.fabric.ports.erase(wrong.fabric.ports.begin() + static_cast<int>(random() % wrong.fabric.ports.size()));
    CHECK(node_order(wrong).nodes == clean.nodes);
  }
}

TEST_CASE("any fabric: whole levels, stable, the same again", "[fabric][node_order]") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  for (int round = 0; round < 40; ++round) {
    const int count = 2 + static_cast<int>(random() % 60), leaf = 1 + static_cast<int>(random() % 9);
    const int spine = 1 + static_cast<int>(random() % 4), rails = 1 << random() % 4;
    const std::string name = "dgx-h100 x" + std::to_string(count) + " fabric:leaf=" + std::to_string(leaf) +
                             ",spine=" + std::to_string(spine) + ",rails=" + std::to_string(rails);
    INFO(name);
    Cluster cluster = *synthetic_cluster(name);
    std::shuffle(cluster.nodes.begin(), cluster.nodes.end(), random);
    const NodeOrder order = node_order(cluster);
    std::set<int> distinct(order.nodes.begin(), order.nodes.end());
    REQUIRE(distinct.size() == cluster.nodes.size());
    std::map<int, int> leaf_of, pod_of;
    for (int node = 0; node < count; ++node) {
      leaf_of[node] = std::stoi(cluster.nodes[node].host.substr(9)) / leaf;
      pod_of[node] = leaf_of[node] / spine;
    }
    CHECK(side_by_side(order.nodes, leaf_of));
    CHECK(side_by_side(order.nodes, pod_of));
    CHECK(node_order(cluster).nodes == order.nodes);

    // A node fails; another one with another name takes its place, on the same leaf.
    const auto victim = random() % cluster.nodes.size();
    const std::string old = cluster.nodes[victim].host, spare = random() % 2 ? "aaa" : "zzz-9";
    cluster.nodes[victim].host = spare;
    for (FabricPort& port : cluster.fabric.ports) {
      if (port.host == old) port.host = spare;
    }
    std::sort(cluster.fabric.ports.begin(), cluster.fabric.ports.end(),
              [](const FabricPort& a, const FabricPort& b) { return a.host < b.host; });
    CHECK(node_order(cluster).nodes == order.nodes);
  }
}

TEST_CASE("2,048 nodes and three levels in milliseconds", "[fabric][node_order]") {
  const Cluster cluster = *synthetic_cluster("dgx-h100 x2048 fabric:leaf=32,spine=8,rails=8");
  double best = 1e9;
  for (int round = 0; round < 3; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    CHECK(node_order(cluster).nodes.size() == 2048);
    best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  WARN("node_order of 2,048 nodes: " << best << " ms");
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(best < 50);
#endif
}
