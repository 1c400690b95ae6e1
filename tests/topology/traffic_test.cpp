#include "topology/traffic.hpp"

#include <map>
#include <numeric>
#include <set>

#include "tests/catch.hpp"
#include "tests/topology/random_clusters.hpp"
#include "topology/placement.hpp"
#include "topology/read/synthetic.hpp"

using namespace mds;
using namespace mds::topology;
using namespace mds::topology::tests;

namespace {

std::vector<int> nodes_of(int ranks, int per_node) {
  std::vector<int> nodes(static_cast<size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) nodes[static_cast<size_t>(rank)] = rank / per_node;
  return nodes;
}

using Pairs = std::map<std::pair<int, int>, double>;

Pairs pairs_of(const RankGrid& grid, const TrafficWeights& weights, int per_node) {
  Pairs pairs;
  for (const Flow& flow : traffic_flows(grid, weights, nodes_of(grid.world_size(), per_node))) {
    pairs[std::minmax(flow.from, flow.to)] += flow.bytes;
  }
  return pairs;
}

}  // namespace

TEST_CASE("groups are rings between nodes, all pairs inside one, and pipelines are chains") {
  const TrafficWeights one{1, 1, 1, 1};
  const auto grid = *RankGrid::make(4, 1, 1, 1);
  CHECK(pairs_of(grid, one, 1) == Pairs{{{0, 1}, 1}, {{1, 2}, 1}, {{2, 3}, 1}, {{0, 3}, 1}});
  CHECK(pairs_of(grid, one, 2) == Pairs{{{0, 1}, 2}, {{1, 2}, 1}, {{2, 3}, 2}, {{0, 3}, 1}});
  const double third = 2.0 / 3;
  CHECK(pairs_of(grid, one, 4) ==
        Pairs{{{0, 1}, third}, {{0, 2}, third}, {{0, 3}, third}, {{1, 2}, third}, {{1, 3}, third}, {{2, 3}, third}});
  CHECK(pairs_of(*RankGrid::make(1, 1, 1, 4), one, 2) == Pairs{{{0, 1}, 1}, {{1, 2}, 1}, {{2, 3}, 1}});
  CHECK(pairs_of(*RankGrid::make(1, 1, 2, 1), one, 1) == Pairs{{{0, 1}, 2}});  // both ways
}

TEST_CASE("traffic stays within groups, and every member of a ring carries its share") {
  const auto seed = std::random_device{}();
  Random random(seed);
  for (int round = 0; round < 200; ++round) {
    const int per_node = random.pick(1, 8), nodes = random.pick(1, 12);
    const RankGrid grid = random_grid(random, per_node * nodes);
    INFO("seed " << seed << ", round " << round);
    const TrafficWeights weights{1, 100, 10000, 0};
    double expected = 0, sum = 0;
    const std::pair<Axis, double> axes[] = {{Axis::tensor, 1}, {Axis::context, 100}, {Axis::data, 10000}};
    for (const auto& [axis, bytes] : axes) expected += grid.size(axis) > 1 ? bytes * grid.world_size() : 0;
    for (const Flow& flow : traffic_flows(grid, weights, nodes_of(grid.world_size(), per_node))) {
      const Coordinates a = grid.coordinates(flow.from), b = grid.coordinates(flow.to);
      const int differing =
          (a.tensor != b.tensor) + (a.context != b.context) + (a.data != b.data) + (a.pipeline != b.pipeline);
      REQUIRE(differing == 1);
      sum += flow.bytes;
    }
    // A group in several nodes whose parts there are of m > 1 ranks carries one ring's worth of each part, and the ring
    // between them.
    REQUIRE(sum >= expected * (1 - 1e-9));
    if (per_node == 1) REQUIRE(sum == Approx(expected));
  }
}

TEST_CASE("costs: better paths and nearer nodes cost less") {
  CHECK(gpu_cost({PathClass::nvl, 200, 1}) < gpu_cost({PathClass::nvl, 100, 1}));
  CHECK(gpu_cost({PathClass::pix, 24, 2}) < gpu_cost({PathClass::phb, 24, 4}));
  CHECK(gpu_cost({PathClass::phb, 24, 4}) < gpu_cost({PathClass::dis, 0, 0}));
  const Cluster cluster = *synthetic_cluster("dgx-h100 x16 fabric:leaf=4,spine=2");
  const NodeNetwork network(cluster, 8);
  CHECK(network.cost(0, 1) == Approx(1 / 50.0));  // 8 adapters of 400 Gbit/s for 8 ranks
  CHECK(network.cost(0, 4) == Approx(2 * network.cost(0, 1)));
  CHECK(network.cost(0, 8) == Approx(4 * network.cost(0, 1)));
  Cluster domain = *synthetic_cluster("dgx-h100 x2");
  for (Machine& node : domain.nodes) {
    for (Gpu& gpu : node.gpus) gpu.nvlink_domain = "c.1";
  }
  CHECK(NodeNetwork(domain, 8).cost(0, 1) < network.cost(0, 1) / 4);
}

TEST_CASE("a bad order of nodes costs more than ours") {
  Cluster cluster = *synthetic_cluster("dgx-h100 x16 fabric:leaf=4,spine=2");
  Cluster shuffled = cluster;
  for (int node = 0; node < 16; ++node) shuffled.nodes[node] = cluster.nodes[node % 4 * 4 + node / 4];
  const PlacementRequest request{*RankGrid::make(8, 1, 4, 4), 8, DeviceKind::cuda, false};
  const double ours = traffic_cost(cluster, *place(cluster, request), request.grid);
  CHECK(traffic_cost(shuffled, *place(shuffled, request), request.grid) == Approx(ours));
  Cluster blind = shuffled;
  blind.fabric = {};
  CHECK(traffic_cost(shuffled, *place(blind, request), request.grid) > ours * 1.001);
}
