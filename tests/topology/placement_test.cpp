#include "topology/picture/placement_svg.hpp"
#include "topology/placement.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "tests/catch.hpp"
#include "topology/read/synthetic.hpp"

using namespace mds;
using namespace mds::topology;
using Names = std::vector<std::string>;

namespace {

PlacementRequest request(int tensor, int data, int pipeline, int ranks_per_node, DeviceKind device = DeviceKind::cpu) {
  return {*RankGrid::make(tensor, 1, data, pipeline), ranks_per_node, device, false};
}

std::map<int, const Core*> cores_by_cpu(const Machine& machine) {
  std::map<int, const Core*> cores;
  for (const Core& core : machine.cores) {
    for (const int cpu : core.cpus) cores[cpu] = &core;
  }
  return cores;
}

/// What holds for every placement: ranks in order, each with whole cores of its node, on NUMA nodes bound to; cores are
/// shared if and only if there are fewer than ranks, and then it is said.
void check_invariants(const Cluster& cluster, const PlacementRequest& request, const Placement& placement) {
  REQUIRE(static_cast<int>(placement.ranks.size()) == request.grid.world_size());
  std::map<std::pair<int, const Core*>, int> users;  // by real machine and core
  std::map<int, size_t> ranks_on_machine;
  for (int r = 0; r < request.grid.world_size(); ++r) {
    const RankPlacement& rank = placement.ranks[r];
    REQUIRE(rank.rank == r);
    REQUIRE(rank.node == r / request.ranks_per_node);
    REQUIRE(rank.local_rank == r % request.ranks_per_node);
    REQUIRE(rank.coordinates == request.grid.coordinates(r));
    const Machine& machine = cluster.nodes[request.nodes_share_machine ? 0 : rank.node];
    const int machine_index = request.nodes_share_machine ? 0 : rank.node;
    ++ranks_on_machine[machine_index];
    const auto by_cpu = cores_by_cpu(machine);
    REQUIRE_FALSE(rank.cpus.empty());
    REQUIRE(std::is_sorted(rank.cpus.begin(), rank.cpus.end()));
    std::set<const Core*> cores;
    std::set<int> numa;
    size_t threads = 0;
    for (const int cpu : rank.cpus) cores.insert(by_cpu.at(cpu));
    for (const Core* core : cores) {
      threads += core->cpus.size();
      numa.insert(core->numa);
      ++users[{machine_index, core}];
    }
    REQUIRE(threads == rank.cpus.size());  // whole cores
    REQUIRE(std::set<int>(rank.memory_nodes.begin(), rank.memory_nodes.end()) == numa);
  }
  for (const RankPlacement& rank : placement.ranks) {
    const int machine_index = request.nodes_share_machine ? 0 : rank.node;
    const Machine& machine = cluster.nodes[machine_index];
    const auto by_cpu = cores_by_cpu(machine);
    bool shares = false;
    for (const int cpu : rank.cpus) shares |= users[{machine_index, by_cpu.at(cpu)}] > 1;
    REQUIRE(rank.shares_cores == shares);
    REQUIRE((!shares || ranks_on_machine[machine_index] > machine.cores.size()));
  }
}

bool any_reason(const Placement& placement, const std::string& part) {
  return std::any_of(placement.reasons.begin(), placement.reasons.end(),
                     [&](const std::string& reason) { return reason.find(part) != std::string::npos; });
}

}  // namespace

TEST_CASE("GPU ranks sit on the cores, memory and NICs next to their GPU") {
  for (const char* machine : {"dgx-a100", "dgx-h100", "dgx-h200"}) {
    INFO(machine);
    const Cluster cluster = *synthetic_cluster(machine + std::string(" x2"));
    const auto wanted = request(8, 2, 1, 8, DeviceKind::cuda);
    const auto placement = place(cluster, wanted);
    REQUIRE(placement);
    check_invariants(cluster, wanted, *placement);
    std::map<std::pair<int, std::string>, int> first_nics;
    for (const RankPlacement& rank : placement->ranks) {
      const Machine& node = cluster.nodes[rank.node];
      const Gpu& gpu = node.gpus.at(rank.gpu);
      CHECK(gpu.index == rank.local_rank);
      CHECK(rank.memory_nodes == std::vector<int>{gpu.numa});
      const auto nic =
          std::find_if(node.nics.begin(), node.nics.end(), [&](const Nic& n) { return n.name == rank.nics[0]; });
      CHECK(nic->numa == gpu.numa);
      CHECK(rank.nics.size() == node.nics.size());
      ++first_nics[{rank.node, rank.nics[0]}];
    }
    CHECK(first_nics.size() == 16);  // a rail for every GPU
    CHECK(any_reason(*placement, "nodes 0-1: each rank's cores are those of the NUMA node nearest to its GPU"));
    CHECK(any_reason(*placement, "tensor-parallel groups (8 ranks each) stay inside a node"));
    CHECK(any_reason(*placement, "data-parallel groups (2 ranks each) span 2 nodes"));
  }
}

TEST_CASE("a GPU whose NUMA node has too few cores left takes others, and that is said") {
  Cluster cluster = *synthetic_cluster("dgx-h100");
  auto& cores = cluster.nodes[0].cores;
  cores.erase(cores.begin() + 2, cores.begin() + 56);  // an affinity mask that leaves 2 cores of NUMA node 0
  const auto wanted = request(8, 1, 1, 8, DeviceKind::cuda);
  const auto placement = place(cluster, wanted);
  REQUIRE(placement);
  check_invariants(cluster, wanted, *placement);
  CHECK(any_reason(*placement, "2 ranks have cores of another NUMA node than the GPU's"));
}

TEST_CASE("GPUs of one NUMA node go to neighbouring ranks, and unknown NUMA nodes do no harm") {
  Cluster cluster = *synthetic_cluster("dgx-h100");
  for (Gpu& gpu : cluster.nodes[0].gpus) gpu.numa = gpu.index % 2;
  const auto wanted = request(8, 1, 1, 8, DeviceKind::cuda);
  auto placement = place(cluster, wanted);
  REQUIRE(placement);
  std::vector<int> gpus;
  for (const RankPlacement& rank : placement->ranks) gpus.push_back(rank.gpu);
  CHECK(gpus == std::vector<int>{0, 2, 4, 6, 1, 3, 5, 7});

  for (Gpu& gpu : cluster.nodes[0].gpus) gpu.numa = -1;
  placement = place(cluster, wanted);
  REQUIRE(placement);
  check_invariants(cluster, wanted, *placement);
  for (const RankPlacement& rank : placement->ranks) CHECK(rank.cpus.size() == 28);
  CHECK(any_reason(*placement, "does not say which NUMA node"));
}

TEST_CASE("virtual nodes divide the one machine") {
  Cluster cluster = *synthetic_cluster("cpu:packages=2,cores=4");
  cluster.nodes.push_back(cluster.nodes[0]);
  auto wanted = request(2, 2, 1, 2);
  wanted.nodes_share_machine = true;
  auto placement = place(cluster, wanted);
  REQUIRE(placement);
  check_invariants(cluster, wanted, *placement);
  CHECK(placement->ranks[1].cpus == std::vector<int>{2, 3});
  CHECK(placement->ranks[2].cpus == std::vector<int>{4, 5});
  CHECK(placement->ranks[2].memory_nodes == std::vector<int>{1});
  CHECK(any_reason(*placement, "virtual"));

  cluster = *synthetic_cluster("dgx-h100");
  cluster.nodes.push_back(cluster.nodes[0]);
  wanted = request(4, 2, 1, 4, DeviceKind::cuda);
  wanted.nodes_share_machine = true;
  placement = place(cluster, wanted);
  REQUIRE(placement);
  check_invariants(cluster, wanted, *placement);
  CHECK(placement->ranks[5].gpu == 5);
}

TEST_CASE("neighbouring ranks share cores last") {
  Cluster cluster = *synthetic_cluster("cpu:cores=2");
  cluster.nodes.push_back(cluster.nodes[0]);
  auto wanted = request(2, 2, 1, 2);
  wanted.nodes_share_machine = true;
  const auto placement = place(cluster, wanted);
  REQUIRE(placement);
  check_invariants(cluster, wanted, *placement);
  CHECK(placement->ranks[0].cpus != placement->ranks[1].cpus);
  CHECK(any_reason(*placement, "4 ranks on 2 cores: 4 share a core with others, because there are fewer cores"));

  const auto three = request(3, 1, 1, 3);
  const auto shared = place(cluster, three);
  REQUIRE(shared);
  CHECK(shared->ranks[0].shares_cores);
  CHECK_FALSE(shared->ranks[1].shares_cores);
}

TEST_CASE("CPU ranks keep to one NUMA node unless that starves one") {
  const auto cpus_of = [](const char* machine, int ranks) {
    const Cluster cluster = *synthetic_cluster(machine);
    const auto wanted = request(1, ranks, 1, ranks);
    const auto placement = place(cluster, wanted);
    REQUIRE(placement);
    check_invariants(cluster, wanted, *placement);
    std::vector<size_t> counts;
    for (const RankPlacement& rank : placement->ranks) counts.push_back(rank.cpus.size());
    return counts;
  };
  using Counts = std::vector<size_t>;
  CHECK(cpus_of("cpu:packages=2,cores=16", 1) == Counts{32});
  CHECK(cpus_of("cpu:packages=2,cores=16", 2) == Counts{16, 16});
  CHECK(cpus_of("cpu:packages=2,cores=16", 3) == Counts{8, 8, 16});
  CHECK(cpus_of("cpu:packages=2,cores=3", 3) == Counts{2, 2, 2});  // 1, 1 and 3 would starve two of three
  CHECK(cpus_of("cpu:packages=2,cores=4,numa=4", 2) == Counts{4, 4});
}

TEST_CASE("random machines and grids keep the invariants") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  for (int round = 0; round < 300; ++round) {
    const int cores = pick(1, 12);
    const std::string machine = "cpu:packages=" + std::to_string(pick(1, 3)) + ",cores=" + std::to_string(cores) +
                                ",numa=" + std::to_string(pick(1, std::min(cores, 3))) +
                                ",threads=" + std::to_string(pick(1, 2)) + " x4";
    Cluster cluster = *synthetic_cluster(machine);
    PlacementRequest wanted =
        request(pick(1, 3), pick(1, 2), pick(1, 2), 1, pick(0, 1) ? DeviceKind::cuda : DeviceKind::cpu);
    wanted.nodes_share_machine = pick(0, 1) == 1;
    const int nodes = wanted.grid.world_size() % 2 == 0 ? 2 : 1;
    wanted.ranks_per_node = wanted.grid.world_size() / nodes;
    for (Machine& node : cluster.nodes) {
      for (int gpu = 0; gpu < 12; ++gpu) node.gpus.push_back({gpu, "", "", "", 0, pick(-1, 9)});
      while (node.cores.size() > 1 && pick(0, 3) > 0) node.cores.erase(node.cores.begin() + pick(0, 1));
      if (wanted.nodes_share_machine) cluster.nodes.assign(4, node);
    }
    INFO("seed " << seed << ", round " << round << ", " << machine << ", " << wanted.grid.world_size() << " ranks");
    const auto placement = place(cluster, wanted);
    REQUIRE(placement);
    check_invariants(cluster, wanted, *placement);
    REQUIRE_FALSE(placement_svg(cluster, *placement, wanted.grid).empty());
  }
}

TEST_CASE("what cannot be placed is refused with what would fit") {
  const auto error_of = [](const char* machine, const PlacementRequest& wanted) {
    const auto placement = place(*synthetic_cluster(machine), wanted);
    REQUIRE_FALSE(placement);
    CHECK(placement.error().code == ErrorCode::infeasible);
    return placement.error().message;
  };
  CHECK(
      error_of("dgx-h100 x3", request(8, 4, 1, 8, DeviceKind::cuda)) ==
      "32 ranks at 8 a node need 4 nodes, but there are 3: reduce the parallel sizes to 24 ranks in all, or give more "
      "nodes");
  CHECK(error_of("dgx-h100", request(8, 2, 1, 16, DeviceKind::cuda)) ==
        "node 0 (dgx-h100-0000) has 8 usable GPUs, but 16 are needed, one a rank: use at most gpus_per_node = 8");
  CHECK(error_of("cpu", request(1, 1, 1, 1, DeviceKind::cuda)) ==
        "node 0 (cpu-0000) has 0 usable GPUs, but 1 is needed, one a rank: use devices = \"cpu\"");
  CHECK(error_of("cpu x9", request(3, 3, 1, 2)).find("9 ranks do not divide into nodes of 2 ranks") == 0);
  auto shared = request(8, 2, 1, 8, DeviceKind::cuda);
  shared.nodes_share_machine = true;
  CHECK(error_of("dgx-h100 x2", shared).find("use at most gpus_per_node = 4") != std::string::npos);
  Cluster coreless = *synthetic_cluster("cpu");
  coreless.nodes[0].cores.clear();
  CHECK(place(coreless, request(1, 1, 1, 1)).error().message == "node 0 (cpu-0000) has no core that may be used");
}

TEST_CASE("NICs: RDMA first, then bandwidth, then nearness; CPU ranks have no use for RDMA devices") {
  Cluster cluster = *synthetic_cluster("dgx-h100");
  cluster.nodes[0].nics = {{"eth0", "", 0, 100, false},   {"eth1", "", 1, 400, false},   {"ib_far", "", 1, 400, true},
                           {"ib_slow", "", 0, 100, true}, {"ib_fast", "", 0, 200, true}, {"ib_any", "", -1, 800, true}};
  const auto on_gpu = place(cluster, request(1, 1, 1, 1, DeviceKind::cuda));
  CHECK(on_gpu->ranks[0].nics == Names{"ib_fast", "ib_far", "ib_any", "ib_slow", "eth1", "eth0"});
  CHECK(on_gpu->ranks[0].best_nics == 1);
  const auto on_cpu = place(cluster, request(1, 2, 1, 2));
  CHECK(on_cpu->ranks[0].nics == Names{"eth0", "eth1"});
  CHECK(on_cpu->ranks[1].nics == Names{"eth1", "eth0"});
}

TEST_CASE("memory is not bound to NUMA nodes that may not be used") {
  Cluster cluster = *synthetic_cluster("cpu:packages=2,cores=2");
  cluster.nodes[0].numa.erase(cluster.nodes[0].numa.begin());
  const auto placement = place(cluster, request(1, 2, 1, 2));
  CHECK(placement->ranks[0].memory_nodes.empty());
  CHECK(placement->ranks[1].memory_nodes == std::vector<int>{1});
  CHECK(any_reason(*placement, "memory of 1 rank is not bound"));
}

TEST_CASE("a placement as JSON") {
  const Cluster cluster = *synthetic_cluster("dgx-h100 x2");
  const auto placement = place(cluster, request(4, 2, 2, 8, DeviceKind::cuda));
  const auto json = to_json(*placement, cluster);
  const auto& rank = json["ranks"][13];
  CHECK(rank["rank"] == 13);
  CHECK(rank["host"] == "dgx-h100-0001");
  CHECK(rank["node"] == 1);
  CHECK(rank["local_rank"] == 5);
  CHECK((rank["tp"] == 1 && rank["pp"] == 1 && rank["dp"] == 1 && rank["cp"] == 0));
  CHECK(rank["device"] == "cuda:5");
  CHECK(rank["gpu"]["bus_id"] == "0000:c3:00.0");
  CHECK(rank["cores"] == placement->ranks[13].cpus);
  CHECK(rank["memory_nodes"] == std::vector<int>{1});
  CHECK(rank["nics"][0] == "mlx5_9");
  CHECK(json["reasons"] == placement->reasons);
  const auto cpu = place(cluster, request(4, 2, 2, 8));
  CHECK(to_json(*cpu, cluster)["ranks"][0]["device"] == "cpu");
}
