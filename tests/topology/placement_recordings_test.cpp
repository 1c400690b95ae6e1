// Nobody is misplaced: one rank a GPU on every recorded machine, checked against the recording itself.
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <tuple>

#include "tests/catch.hpp"
#include "tests/topology/recordings.hpp"
#include "topology/paths.hpp"
#include "topology/placement.hpp"
#include "topology/read/open_topology.hpp"

using namespace mds;
using namespace mds::topology;
using namespace mds::topology::tests;

namespace {

std::map<int, const Core*> cores_by_cpu(const Machine& machine) {
  std::map<int, const Core*> cores;
  for (const Core& core : machine.cores) {
    for (const int cpu : core.cpus) cores[cpu] = &core;
  }
  return cores;
}

/// NUMA nodes with cores, ascending.
std::vector<int> numa_nodes(const Machine& machine) {
  std::set<int> nodes;
  for (const Core& core : machine.cores) nodes.insert(core.numa);
  return {nodes.begin(), nodes.end()};
}

/// Where a GPU's cores and memory should be: its own NUMA node, or where that has no cores, one of the same package.
std::set<int> right_nodes(const Machine& machine, int numa) {
  const std::vector<int> nodes = numa_nodes(machine);
  if (std::count(nodes.begin(), nodes.end(), numa) || nodes.empty()) return {numa};
  const auto own = std::find_if(machine.numa.begin(), machine.numa.end(), [&](auto& n) { return n.os_index == numa; });
  std::set<int> near;
  for (const Core& core : machine.cores) {
    if (own == machine.numa.end() || core.package == own->package) near.insert(core.numa);
  }
  return near;
}

/// What is wrong with a rank's place; empty if nothing.
std::string misplaced(const Machine& machine, const Paths& paths, const RankPlacement& rank) {
  const int numa = machine.gpus[rank.gpu].numa;
  if (numa >= 0 && !machine.cores.empty()) {
    const std::set<int> right = right_nodes(machine, numa);
    const auto cores = cores_by_cpu(machine);
    for (const int cpu : rank.cpus) {
      if (!right.count(cores.at(cpu)->numa)) return "cpu " + std::to_string(cpu) + " is not near its GPU";
    }
    for (const int node : rank.memory_nodes) {
      if (!right.count(node)) return "memory node " + std::to_string(node) + " is not near its GPU";
    }
  }
  if (machine.nics.empty()) return "";
  const auto quality = [&](size_t nic) {
    const Path& path = paths.to_nic(rank.gpu, nic);
    return std::tuple(!machine.nics[nic].rdma, -path.gb_per_s, path.kind);
  };
  auto best = quality(0);
  for (size_t nic = 1; nic < machine.nics.size(); ++nic) best = std::min(best, quality(nic));
  for (size_t nic = 0; nic < machine.nics.size(); ++nic) {
    const std::string& name = machine.nics[nic].name.empty() ? machine.nics[nic].bus_id : machine.nics[nic].name;
    if (name == rank.nics.at(0) && quality(nic) == best) return "";
  }
  return "NIC " + rank.nics[0] + " is not one with the best path";
}

struct Count {
  int ranks = 0, misplaced = 0, by_formula = 0;
};

void check_gpus(const Cluster& cluster, const Machine& machine, Count& count) {
  const int gpus = static_cast<int>(machine.gpus.size());
  const auto placement = place(cluster, {*RankGrid::make(gpus, 1, 1, 1), gpus, DeviceKind::cuda, false});
  INFO((placement ? "" : placement.error().message));
  REQUIRE(placement);
  const Paths paths = find_paths(machine);
  const std::vector<int> nodes = numa_nodes(machine);
  std::set<int> used;
  std::map<std::string, int> first_nics;
  for (const RankPlacement& rank : placement->ranks) {
    ++count.ranks;
    const std::string problem = misplaced(machine, paths, rank);
    count.misplaced += !problem.empty();
    INFO("rank " << rank.rank << " on GPU " << rank.gpu << ": " << problem);
    CHECK(problem.empty());
    used.insert(rank.gpu);
    const int numa = machine.gpus[rank.rank].numa;
    if (!nodes.empty() && numa >= 0) {
      const int formula = nodes[rank.rank * nodes.size() / gpus];
      count.by_formula += !right_nodes(machine, numa).count(formula);
    }
  }
  CHECK(static_cast<int>(used.size()) == gpus);
}

void check_cpus(const Cluster& cluster, const Machine& machine, Count& count) {
  const std::vector<int> nodes = numa_nodes(machine);
  const int ranks = static_cast<int>(nodes.size());
  const auto placement = place(cluster, {*RankGrid::make(1, 1, ranks, 1), ranks, DeviceKind::cpu, false});
  REQUIRE(placement);
  const auto cores = cores_by_cpu(machine);
  std::set<int> used;
  for (const RankPlacement& rank : placement->ranks) {
    std::set<int> own;
    for (const int cpu : rank.cpus) own.insert(cores.at(cpu)->numa);
    ++count.ranks;
    const bool right = own.size() == 1 && std::set<int>(rank.memory_nodes.begin(), rank.memory_nodes.end()) == own;
    CHECK(right);
    count.misplaced += !right;
    used.insert(own.begin(), own.end());
  }
  CHECK(used.size() == nodes.size());
}

}  // namespace

TEST_CASE("no rank is misplaced on any recorded machine") {
  std::vector<std::filesystem::path> files = recordings("nccl");
  for (const auto& file : recordings("hwloc")) files.push_back(file);
  Count count;
  for (const auto& file : files) {
    INFO(file);
    const auto cluster = open_topology(file);
    INFO((cluster ? "" : cluster.error().message));
    REQUIRE(cluster);
    const Machine& machine = cluster->nodes.front();
    if (machine.gpus.empty())
      check_cpus(*cluster, machine, count);
    else
      check_gpus(*cluster, machine, count);
  }
  if (files.empty()) return;
  CHECK(count.ranks >= 70);
  std::printf("placement: %d of %d ranks misplaced on %zu recorded machines; local_rank x numa_nodes / gpus: %d\n",
              count.misplaced, count.ranks, files.size(), count.by_formula);
  CHECK(count.misplaced == 0);
}
