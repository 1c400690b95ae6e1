// Placement on fabrics: as good as the best, stable, and quick.
#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "tests/catch.hpp"
#include "tests/topology/random_clusters.hpp"
#include "topology/placement.hpp"
#include "topology/placement_search.hpp"

using namespace mds;
using namespace mds::topology;
using namespace mds::topology::tests;

namespace {

struct Case {
  Cluster cluster;
  PlacementRequest request;
};

Case random_case(Random& random, int nodes_max, int gpus_max) {
  const int nodes = random.pick(1, nodes_max), gpus = random.pick(1, gpus_max);
  Case out{random_cluster(random, nodes, gpus), {}};
  const int per_node = random.pick(1, gpus);
  const int used = random.pick(std::max(1, nodes - 1), nodes);
  out.request = {random_grid(random, used * per_node), per_node, DeviceKind::cuda, false};
  return out;
}

Placement placed(const Case& c) {
  auto placement = place(c.cluster, c.request);
  INFO((placement ? "" : placement.error().message));
  REQUIRE(placement);
  return *placement;
}

/// All injections of [0, positions) into [0, seats), calling `see` with each.
void every_seating(int positions, int seats, Seating& seating, const std::function<void(const Seating&)>& see) {
  if (static_cast<int>(seating.size()) == positions) return see(seating);
  for (int seat = 0; seat < seats; ++seat) {
    if (std::find(seating.begin(), seating.end(), seat) != seating.end()) continue;
    seating.push_back(seat);
    every_seating(positions, seats, seating, see);
    seating.pop_back();
  }
}

/// The least that any order of nodes and any choice of GPUs in each would cost, tried one by one. Traffic between nodes
/// does not depend on the GPUs, so both are tried apart.
double exhaustive_optimum(const Case& c) {
  const int per_node = c.request.ranks_per_node, positions = c.request.grid.world_size() / per_node;
  const NodeNetwork network(c.cluster, per_node);
  std::vector<int> node_of_rank;
  for (int rank = 0; rank < c.request.grid.world_size(); ++rank) node_of_rank.push_back(rank / per_node);
  const auto flows = traffic_flows(c.request.grid, c.request.traffic, node_of_rank);
  const int nodes = static_cast<int>(c.cluster.nodes.size());
  std::vector<std::vector<double>> between(nodes, std::vector<double>(nodes));
  for (int a = 0; a < nodes; ++a) {
    for (int b = 0; b < nodes; ++b) between[a][b] = a == b ? 0 : network.cost(a, b);
  }
  double least = std::numeric_limits<double>::infinity();
  Seating scratch;
  every_seating(positions, nodes, scratch, [&](const Seating& order) {
    double cost = 0;
    for (const Flow& flow : flows) cost += flow.bytes * between[order[flow.from / per_node]][order[flow.to / per_node]];
    least = std::min(least, cost);
  });
  const Machine& machine = c.cluster.nodes.front();  // all are of one kind
  const Paths paths = find_paths(machine);
  for (int position = 0; position < positions; ++position) {
    double least_here = std::numeric_limits<double>::infinity();
    every_seating(per_node, static_cast<int>(machine.gpus.size()), scratch, [&](const Seating& gpus) {
      double cost = 0;
      for (const Flow& flow : flows) {
        if (flow.from / per_node != position || flow.to / per_node != position) continue;
        cost += flow.bytes * gpu_cost(paths, gpus[flow.from % per_node], gpus[flow.to % per_node]);
      }
      least_here = std::min(least_here, cost);
    });
    least += least_here;
  }
  return least;
}

std::vector<std::string> hosts_of(const Cluster& cluster, const Placement& placement) {
  std::vector<std::string> hosts;
  for (const RankPlacement& rank : placement.ranks) hosts.push_back(cluster.nodes[rank.node].host);
  return hosts;
}

}  // namespace

TEST_CASE("on small clusters placement costs no more than 1 % above the exhaustive optimum") {
  const auto seed = std::random_device{}();
  Random random(seed);
  int better_than_given = 0;
  for (int round = 0; round < 120; ++round) {
    const Case c = random_case(random, round % 10 == 0 ? 8 : 6, 4);
    INFO("seed " << seed << ", round " << round);
    const Placement placement = placed(c);
    const double cost = traffic_cost(c.cluster, placement, c.request.grid), optimum = exhaustive_optimum(c);
    REQUIRE(cost <= optimum * 1.01 + 1e-12);
    REQUIRE(cost >= optimum * (1 - 1e-9));  // else one of the two counts something else
    Case as_given = c;
    as_given.cluster.fabric = {};
    better_than_given += cost < traffic_cost(c.cluster, placed(as_given), c.request.grid) * 0.99;
  }
  CHECK(better_than_given > 10);  // the test would not notice if all orders cost the same
}

TEST_CASE("swapping alone, as for many nodes, comes close to the optimum") {
  const auto seed = std::random_device{}();
  Random random(seed);
  double sum = 0, worst = 1;
  const int rounds = 200;
  for (int round = 0; round < rounds; ++round) {
    const Case c = random_case(random, 8, 1);
    const int positions = c.request.grid.world_size();
    SeatingProblem problem{static_cast<size_t>(positions), c.cluster.nodes.size(), {}, {}};
    std::vector<int> node_of_rank(problem.positions);
    std::iota(node_of_rank.begin(), node_of_rank.end(), 0);
    for (const Flow& flow : traffic_flows(c.request.grid, {}, node_of_rank)) {
      problem.traffic.push_back({flow.from, flow.to, flow.bytes});
    }
    problem.traffic = merged(std::move(problem.traffic));
    const NodeNetwork network(c.cluster, 1);
    for (int a = 0; a < static_cast<int>(problem.seats); ++a) {
      for (int b = 0; b < static_cast<int>(problem.seats); ++b) problem.cost.push_back(a == b ? 0 : network.cost(a, b));
    }
    Seating start(problem.positions);
    std::iota(start.begin(), start.end(), 0);
    const double exact = seating_cost(problem, best_seating(problem, {start}));
    const double swapped = seating_cost(problem, best_seating(problem, {start}, 0));
    INFO("seed " << seed << ", round " << round);
    REQUIRE(swapped >= exact * (1 - 1e-9));
    const double ratio = exact > 0 ? swapped / exact : 1;
    sum += ratio;
    worst = std::max(worst, ratio);
  }
  INFO("seed " << seed << ": mean " << sum / rounds << ", worst " << worst);
  CHECK(sum / rounds < 1.01);
}

TEST_CASE("the same cluster gives the same bytes, and replacing one node moves only its ranks") {
  const auto seed = std::random_device{}();
  Random random(seed);
  for (int round = 0; round < 200; ++round) {
    INFO("seed " << seed << ", round " << round);
    Case c = random_case(random, round % 4 == 0 ? 40 : 12, 4);
    const Placement before = placed(c);
    REQUIRE(to_json(before, c.cluster).dump() == to_json(placed(c), c.cluster).dump());

    const int gone = random.pick(0, static_cast<int>(c.cluster.nodes.size()) - 1);
    const std::string old_name = c.cluster.nodes[gone].host;
    const std::string new_name = random.of<std::string>({"a", "zz-9", "node1-new", "node5000"});
    c.cluster.nodes[gone].host = new_name;
    for (Gpu& gpu : c.cluster.nodes[gone].gpus) gpu.uuid = "GPU-" + new_name + std::to_string(gpu.index);
    for (FabricPort& port : c.cluster.fabric.ports) {
      if (port.host == old_name) port.host = new_name;
    }
    std::sort(c.cluster.fabric.ports.begin(), c.cluster.fabric.ports.end(),
              [](const FabricPort& a, const FabricPort& b) { return a.host < b.host; });
    const Placement after = placed(c);
    auto hosts = hosts_of(c.cluster, after);
    std::replace(hosts.begin(), hosts.end(), new_name, old_name);
    c.cluster.nodes[gone].host = old_name;
    REQUIRE(hosts == hosts_of(c.cluster, before));
    REQUIRE(after.reasons.size() == before.reasons.size());  // they may name the node
    for (size_t rank = 0; rank < after.ranks.size(); ++rank) {
      REQUIRE(after.ranks[rank].gpu == before.ranks[rank].gpu);
      REQUIRE(after.ranks[rank].cpus == before.ranks[rank].cpus);
      REQUIRE(after.ranks[rank].nics == before.ranks[rank].nics);
    }
  }
}

TEST_CASE("neighbours in rank order share a leaf, whatever the order in which the hosts were given") {
  Random random(1);
  Case c{random_cluster(random, 1, 1), {}};
  const Machine machine = c.cluster.nodes.front();
  c.cluster = {};
  for (int leaf = 0; leaf < 4; ++leaf) c.cluster.fabric.switches.push_back({"l" + std::to_string(leaf), 0, {4}});
  c.cluster.fabric.switches.push_back({"s", 1, {}});
  for (int node = 0; node < 16; ++node) {  // every fourth node on the same leaf
    c.cluster.nodes.push_back(machine);
    c.cluster.nodes.back().host = "h" + std::to_string(100 + node);
    c.cluster.fabric.ports.push_back({c.cluster.nodes.back().host, "", node % 4, 200});
  }
  c.request = {*RankGrid::make(1, 1, 4, 4), 1, DeviceKind::cuda, false};
  const Placement placement = placed(c);
  for (const RankPlacement& rank : placement.ranks) {
    const RankPlacement& first = placement.ranks[rank.rank / 4 * 4];
    CHECK(rank.node % 4 == first.node % 4);  // one data group, one leaf
    CHECK(rank.node_rank == rank.rank);
  }
  const auto said = [&](const std::string& text) {
    return std::any_of(placement.reasons.begin(), placement.reasons.end(),
                       [&](auto& reason) { return reason.find(text) != std::string::npos; });
  };
  CHECK(said("data-parallel groups (4 ranks each) span 4 nodes of one leaf switch"));
  CHECK(said("pipeline-parallel groups (4 ranks each) span 4 nodes, through 1 level of switches"));
}

TEST_CASE("uneven leaves: whole groups first, what is left over after them") {
  Random random(2);
  const Machine machine = random_machine(random, 1);
  Case c;
  const int nodes = 300;  // more than are searched by swapping
  for (int leaf = 0; leaf < 60; ++leaf) c.cluster.fabric.switches.push_back({"l" + std::to_string(leaf), 0, {60}});
  c.cluster.fabric.switches.push_back({"s", 1, {}});
  for (int node = 0; node < nodes; ++node) {  // leaves of 5 nodes, groups of 4
    c.cluster.nodes.push_back(machine);
    c.cluster.nodes.back().host = "h" + std::to_string(1000 + node);
    c.cluster.fabric.ports.push_back({c.cluster.nodes.back().host, "", node / 5, 200});
  }
  c.request = {*RankGrid::make(1, 1, 4, 75), 1, DeviceKind::cuda, false};
  const Placement placement = placed(c);
  int whole = 0;
  for (int first = 0; first < nodes; first += 4) {
    std::set<int> leaves;
    for (int rank = first; rank < first + 4; ++rank) leaves.insert(placement.ranks[rank].node / 5);
    whole += leaves.size() == 1;
  }
  CHECK(whole == 60);  // the plain order would keep 30 of 75 groups whole
  std::set<int> used;
  for (const RankPlacement& rank : placement.ranks) used.insert(rank.node);
  CHECK(used.size() == 300);
}

TEST_CASE("a job smaller than the cluster takes nodes that are near each other") {
  Random random(3);
  const Machine machine = random_machine(random, 1);
  Case c;
  for (int leaf = 0; leaf < 2; ++leaf) c.cluster.fabric.switches.push_back({"l" + std::to_string(leaf), 0, {2}});
  c.cluster.fabric.switches.push_back({"s", 1, {}});
  for (int node = 0; node < 11; ++node) {  // 3 nodes on the first leaf, 8 on the other
    c.cluster.nodes.push_back(machine);
    c.cluster.nodes.back().host = "h" + std::to_string(node);
    c.cluster.fabric.ports.push_back({c.cluster.nodes.back().host, "", node < 3 ? 0 : 1, 200});
  }
  c.request = {*RankGrid::make(1, 1, 8, 1), 1, DeviceKind::cuda, false};
  for (const RankPlacement& rank : placed(c).ranks) CHECK(rank.node >= 3);
}

TEST_CASE("16,384 ranks on 2,048 nodes under three levels of switches are placed in under a second") {
  Random random(4);
  const Machine machine = random_machine(random, 8);
  Case c;
  for (int leaf = 0; leaf < 128; ++leaf) {
    c.cluster.fabric.switches.push_back({"leaf" + std::to_string(leaf), 0, {128 + leaf / 16}});
  }
  for (int spine = 0; spine < 8; ++spine) {
    c.cluster.fabric.switches.push_back({"spine" + std::to_string(spine), 1, {136}});
  }
  c.cluster.fabric.switches.push_back({"core", 2, {}});
  std::vector<int> leaf_of(2048);
  for (int node = 0; node < 2048; ++node) leaf_of[node] = node / 16;
  std::shuffle(leaf_of.begin(), leaf_of.end(), random.engine());
  for (int node = 0; node < 2048; ++node) {
    c.cluster.nodes.push_back(machine);
    c.cluster.nodes.back().host = "node" + std::to_string(10000 + node);
    c.cluster.fabric.ports.push_back({c.cluster.nodes.back().host, "", leaf_of[node], 400});
  }
  c.request = {*RankGrid::make(8, 1, 128, 16), 8, DeviceKind::cuda, false};
  const auto begin = std::chrono::steady_clock::now();
  const Placement placement = placed(c);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  CHECK(placement.ranks.size() == 16384);
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(took.count() < 1);
#endif
  for (int first = 0; first < 16384; first += 128) {  // 16 nodes of 8 ranks: a leaf
    REQUIRE(leaf_of[placement.ranks[first].node] == leaf_of[placement.ranks[first + 127].node]);
  }
}
