// Machines that are not as the book has them: uneven nodes, links in pairs, parts missing.
#include <algorithm>
#include <set>

#include "tests/catch.hpp"
#include "topology/placement.hpp"
#include "topology/read/synthetic.hpp"

using namespace mds;
using namespace mds::topology;

namespace {

PlacementRequest on_gpus(int tensor, int data, int pipeline, int ranks_per_node) {
  return {*RankGrid::make(tensor, 1, data, pipeline), ranks_per_node, DeviceKind::cuda, false};
}

Cluster machines(const char* description) { return *synthetic_cluster(description); }

bool said(const Placement& placement, const std::string& part) {
  return std::any_of(placement.reasons.begin(), placement.reasons.end(),
                     [&](const std::string& reason) { return reason.find(part) != std::string::npos; });
}

/// DGX-1 with V100s: a hybrid cube mesh, as its vendor's documentation and `nvidia-smi topo -m` have it.
Machine cube_mesh() {
  Machine machine = machines("dgx-h100").nodes.front();
  machine.links.clear();
  machine.pci.clear();
  machine.nics.clear();
  for (Gpu& gpu : machine.gpus) {
    gpu.pci = -1;
    gpu.sm = 70;
  }
  constexpr int kLinks[][3] = {{0, 1, 1}, {0, 2, 1}, {0, 3, 2}, {0, 4, 2}, {1, 2, 2}, {1, 3, 1}, {1, 5, 2}, {2, 3, 2},
                               {2, 6, 1}, {3, 7, 1}, {4, 5, 1}, {4, 6, 1}, {4, 7, 2}, {5, 6, 2}, {5, 7, 1}, {6, 7, 2}};
  for (const auto& [a, b, count] : kLinks) {
    machine.links.push_back({LinkKind::nvlink, a, LinkEnd::gpu, b, machine.gpus[b].bus_id, count, 20});
    machine.links.push_back({LinkKind::nvlink, b, LinkEnd::gpu, a, machine.gpus[a].bus_id, count, 20});
  }
  return machine;
}

/// Links between the GPUs of a pair, or 0.
int links(const Machine& machine, int a, int b) {
  for (const GpuLink& link : machine.links) {
    if (link.gpu == a && link.peer == b) return link.count;
  }
  return 0;
}

}  // namespace

TEST_CASE("a pair of tensor ranks has two NVLinks on a hybrid cube mesh, and a group of four is fully linked") {
  Cluster cluster;
  cluster.nodes.push_back(cube_mesh());
  const auto pairs = place(cluster, on_gpus(2, 4, 1, 8));
  REQUIRE(pairs);
  for (int rank = 0; rank < 8; rank += 2) {
    CHECK(links(cluster.nodes[0], pairs->ranks[rank].gpu, pairs->ranks[rank + 1].gpu) == 2);
  }
  CHECK(said(*pairs, "so that those that talk most have the best paths"));
  const auto fours = place(cluster, on_gpus(4, 2, 1, 8));
  REQUIRE(fours);
  for (int first = 0; first < 8; first += 4) {
    for (int a = first; a < first + 4; ++a) {
      for (int b = first; b < a; ++b) {
        CHECK(links(cluster.nodes[0], fours->ranks[a].gpu, fours->ranks[b].gpu) > 0);
      }
    }
  }
  const auto two_of_eight = place(cluster, on_gpus(2, 1, 1, 2));
  REQUIRE(two_of_eight);
  CHECK(links(cluster.nodes[0], two_of_eight->ranks[0].gpu, two_of_eight->ranks[1].gpu) == 2);
}

TEST_CASE("equal nodes are seated equally, so that a local rank has one rail everywhere") {
  Cluster cluster;
  cluster.nodes.assign(3, cube_mesh());
  for (int node = 0; node < 3; ++node) {
    cluster.nodes[node].host = "v" + std::to_string(node);
    for (Gpu& gpu : cluster.nodes[node].gpus) gpu.uuid = "GPU-" + std::to_string(8 * node + gpu.index);
  }
  const auto placement = place(cluster, on_gpus(2, 12, 1, 8));
  REQUIRE(placement);
  for (int rank = 8; rank < 24; ++rank) {
    CHECK(placement->ranks[rank].gpu == placement->ranks[rank % 8].gpu);
    CHECK(placement->ranks[rank].cpus == placement->ranks[rank % 8].cpus);
  }
}

TEST_CASE("where all GPUs are equally near each other they keep their order") {
  const auto placement = place(machines("dgx-h100"), on_gpus(4, 2, 1, 8));
  REQUIRE(placement);
  for (int rank = 0; rank < 8; ++rank) CHECK(placement->ranks[rank].gpu == rank);
  CHECK_FALSE(said(*placement, "best paths"));
}

TEST_CASE("uneven nodes take what they hold in whole tensor groups") {
  Cluster cluster = machines("dgx-h100 x3");
  cluster.nodes[1].gpus.resize(5);
  const auto placement = place(cluster, on_gpus(4, 5, 1, 0));
  REQUIRE(placement);
  CHECK(placement->nodes == std::vector<NodePlacement>{{0, 0, 8}, {1, 8, 4}, {2, 12, 8}});
  CHECK(said(*placement, "node 1 (dgx-h100-0001) takes 4 ranks of 5 that it could"));
  for (const RankPlacement& rank : placement->ranks) {
    CHECK(rank.node == placement->ranks[rank.rank / 4 * 4].node);
    CHECK(rank.local_rank == rank.rank - placement->nodes[rank.node_rank].first_rank);
  }
  const auto too_many = place(cluster, on_gpus(4, 6, 1, 0));
  REQUIRE_FALSE(too_many);
  CHECK(too_many.error().code == ErrorCode::infeasible);
  CHECK(too_many.error().message ==
        "24 ranks in whole tensor-parallel groups (4 ranks side by side) do not fit: the nodes have room for 20; "
        "reduce the parallel sizes, or give more nodes");
  const auto too_wide = place(cluster, on_gpus(16, 1, 1, 0));
  REQUIRE_FALSE(too_wide);
  CHECK(too_wide.error().message.find("fit into no node: the largest has room for 8") != std::string::npos);
}

TEST_CASE("a node with a GPU missing is passed over where others can do its work, and else named") {
  Cluster cluster = machines("dgx-h100 x3");
  cluster.nodes[1].gpus.pop_back();
  const auto placement = place(cluster, on_gpus(8, 2, 1, 8));
  REQUIRE(placement);
  CHECK(placement->nodes == std::vector<NodePlacement>{{0, 0, 8}, {2, 8, 8}});
  CHECK(said(*placement, "not used: node 1 (dgx-h100-0001) has 7 usable GPUs, but 8 are needed"));
  const auto all = place(cluster, on_gpus(8, 3, 1, 8));
  REQUIRE_FALSE(all);
  CHECK(all.error().message ==
        "node 1 (dgx-h100-0001) has 7 usable GPUs, but 8 are needed, one a rank: use at most gpus_per_node = 7; 2 "
        "nodes of 3 can hold 8 ranks");
}

TEST_CASE("a missing rail: the GPU takes another, and that is said") {
  Cluster cluster = machines("dgx-h100 x2");
  cluster.nodes[1].nics.erase(cluster.nodes[1].nics.begin() + 2);
  const auto placement = place(cluster, on_gpus(8, 2, 1, 8));
  REQUIRE(placement);
  for (const RankPlacement& rank : placement->ranks) REQUIRE_FALSE(rank.nics.empty());
  CHECK(said(*placement, "node 1: 7 network devices are used, each rank's nearest first; up to 2 ranks share one"));
}

TEST_CASE("tensor groups that cannot stay in a node are placed with a warning") {
  Cluster cluster = machines("dgx-h100 x4");
  for (Machine& node : cluster.nodes) node.gpus.resize(4);
  const auto placement = place(cluster, on_gpus(8, 2, 1, 4));
  REQUIRE(placement);
  CHECK(said(*placement, "tp=8 on nodes of 4 ranks crosses nodes"));
}

TEST_CASE("tensor groups may span the nodes of one NVLink domain") {
  Cluster cluster = machines("dgx-h100 x4");
  for (int node = 0; node < 4; ++node) {
    cluster.nodes[node].gpus.resize(4);
    for (Gpu& gpu : cluster.nodes[node].gpus) gpu.nvlink_domain = "cluster." + std::to_string(node % 2);
  }
  const auto placement = place(cluster, on_gpus(8, 2, 1, 4));
  REQUIRE(placement);
  CHECK(said(*placement, "tensor-parallel groups (8 ranks each) span 2 nodes of one NVLink domain"));
  CHECK(placement->nodes[0].node % 2 == placement->nodes[1].node % 2);
}

TEST_CASE("a recording without cores leaves ranks unbound, and one without names of NICs goes by bus id") {
  Cluster cluster = machines("dgx-h100");
  cluster.nodes[0].cores.clear();
  cluster.nodes[0].numa.clear();
  for (Nic& nic : cluster.nodes[0].nics) nic.name.clear();
  const auto placement = place(cluster, on_gpus(8, 1, 1, 8));
  REQUIRE(placement);
  std::set<std::string> first;
  for (const RankPlacement& rank : placement->ranks) {
    CHECK(rank.cpus.empty());
    CHECK(rank.memory_nodes.empty());
    first.insert(rank.nics.at(0));
  }
  CHECK(first.size() == 8);
  CHECK(first.begin()->substr(0, 5) == "0000:");
  CHECK(said(*placement, "no core is known, so ranks are not bound to any"));
}

TEST_CASE("memory is bound next to the cores where their NUMA node has none of its own") {
  Cluster cluster = machines("cpu:packages=2,cores=4,numa=2");
  cluster.nodes[0].numa[1].memory_bytes = 0;
  const auto placement = place(cluster, {*RankGrid::make(1, 1, 4, 1), 4, DeviceKind::cpu, false});
  REQUIRE(placement);
  CHECK(placement->ranks[0].memory_nodes == std::vector<int>{0});
  CHECK(placement->ranks[1].memory_nodes == std::vector<int>{0});
  CHECK(placement->ranks[3].memory_nodes == std::vector<int>{3});
}
