#include "topology/placement.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <tuple>

#include "topology/core_shares.hpp"
#include "topology/placement_reasons.hpp"

namespace mds::topology {
namespace {

/// How many ranks of the request one real machine has to hold.
size_t ranks_on_machine(const PlacementRequest& request) {
  return static_cast<size_t>(request.nodes_share_machine ? request.grid.world_size() : request.ranks_per_node);
}

Status check_fit(const Cluster& cluster, const PlacementRequest& request) {
  const size_t world = request.grid.world_size(), per_node = request.ranks_per_node;
  if (request.ranks_per_node < 1) return bad_input("ranks per node must be at least 1");
  if (world % per_node != 0) {
    return infeasible(counted(world, "rank") + " do not divide into nodes of " + counted(per_node, "rank") +
                      ": choose parallel sizes whose product is a multiple of " + std::to_string(per_node));
  }
  const size_t nodes = world / per_node;
  if (nodes > cluster.nodes.size()) {
    return infeasible(counted(world, "rank") + " at " + std::to_string(per_node) + " a node need " +
                      counted(nodes, "node") + ", but there " + (cluster.nodes.size() == 1 ? "is " : "are ") +
                      std::to_string(cluster.nodes.size()) + ": reduce the parallel sizes to " +
                      counted(cluster.nodes.size() * per_node, "rank") + " in all, or give more nodes");
  }
  for (size_t node = 0; node < nodes; ++node) {
    const Machine& machine = cluster.nodes[node];
    const std::string name = "node " + std::to_string(node) + " (" + machine.host + ")";
    if (machine.cores.empty()) return infeasible(name + " has no core that may be used");
    const size_t wanted = ranks_on_machine(request);
    if (request.device == DeviceKind::cpu || machine.gpus.size() >= wanted) continue;
    std::string problem = name + " has " + counted(machine.gpus.size(), "usable GPU") + ", but " +
                          std::to_string(wanted) + (wanted == 1 ? " is" : " are") + " needed, one a rank: ";
    for (const std::string& note : machine.notes) {
      if (note.find("GPU") != std::string::npos) problem += "(" + note + ") ";
    }
    const size_t fitting = request.nodes_share_machine ? machine.gpus.size() / nodes : machine.gpus.size();
    if (fitting == 0) return infeasible(problem + (machine.gpus.empty() ? "use devices = \"cpu\"" : "use fewer nodes"));
    return infeasible(problem + "use at most gpus_per_node = " + std::to_string(fitting));
  }
  return {};
}

/// GPUs in the order in which local ranks take them: those of one NUMA node side by side, so that neighbouring ranks
/// (a tensor group) are near each other.
std::vector<int> gpu_order(const Machine& machine) {
  std::vector<int> order(machine.gpus.size());
  std::iota(order.begin(), order.end(), 0);
  std::map<int, int> first_of_numa;
  for (const int gpu : order) first_of_numa.try_emplace(machine.gpus[gpu].numa, gpu);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return first_of_numa[machine.gpus[a].numa] < first_of_numa[machine.gpus[b].numa];
  });
  return order;
}

/// Best first: RDMA before others, then the same NUMA node, then the rate. Of equally good RDMA devices rank after rank
/// starts with another, so that every GPU has a rail of its own. CPU ranks talk TCP: no RDMA devices.
std::vector<std::string> nics_for(const Machine& machine, DeviceKind device, int numa, size_t turn) {
  const auto key = [&](const Nic& nic) {
    const int distance = nic.numa == numa ? 0 : nic.numa < 0 || numa < 0 ? 1 : 2;
    return std::tuple(!nic.rdma, distance, -nic.gbps);
  };
  std::vector<const Nic*> nics;
  for (const Nic& nic : machine.nics) {
    if (device == DeviceKind::cuda || !nic.rdma) nics.push_back(&nic);
  }
  std::stable_sort(nics.begin(), nics.end(), [&](const Nic* a, const Nic* b) { return key(*a) < key(*b); });
  const auto equal_end =
      std::find_if(nics.begin(), nics.end(), [&](const Nic* nic) { return key(*nic) != key(*nics.front()); });
  if (!nics.empty() && nics.front()->rdma) {
    std::rotate(nics.begin(), nics.begin() + static_cast<std::ptrdiff_t>(turn % (equal_end - nics.begin())), equal_end);
  }
  std::vector<std::string> names;
  for (const Nic* nic : nics) names.push_back(nic->name);
  return names;
}

/// Gives the ranks of one real machine their GPUs, cores, memory nodes and NICs.
void seat(const Machine& machine, const PlacementRequest& request, RankPlacement* ranks, size_t count) {
  std::vector<int> nearest(count, -1);
  if (request.device == DeviceKind::cuda) {
    const auto order = gpu_order(machine);
    for (size_t i = 0; i < count; ++i) {
      ranks[i].gpu = order[i];
      nearest[i] = machine.gpus[order[i]].numa;
    }
  }
  const auto shares = divide_cores(machine, nearest);
  std::map<int, size_t> turns;
  for (size_t i = 0; i < count; ++i) {
    RankPlacement& rank = ranks[i];
    std::set<int> numa;
    for (const Core* core : shares[i].cores) {
      rank.cpus.insert(rank.cpus.end(), core->cpus.begin(), core->cpus.end());
      numa.insert(core->numa);
    }
    std::sort(rank.cpus.begin(), rank.cpus.end());
    rank.shares_cores = shares[i].shared;
    for (const NumaNode& node : machine.numa) {
      if (numa.count(node.os_index)) rank.memory_nodes.push_back(node.os_index);
    }
    const int home = nearest[i] >= 0 ? nearest[i] : shares[i].cores.front()->numa;
    rank.nics = nics_for(machine, request.device, home, turns[home]++);
  }
}

}  // namespace

Result<Placement> place(const Cluster& cluster, const PlacementRequest& request) {
  if (const Status fits = check_fit(cluster, request); !fits) return fits.error();
  Placement placement;
  for (int rank = 0; rank < request.grid.world_size(); ++rank) {
    RankPlacement& r = placement.ranks.emplace_back();
    r.rank = rank;
    r.node = rank / request.ranks_per_node;
    r.local_rank = rank % request.ranks_per_node;
    r.coordinates = request.grid.coordinates(rank);
  }
  const size_t count = ranks_on_machine(request);
  for (size_t first = 0; first < placement.ranks.size(); first += count) {
    RankPlacement* ranks = &placement.ranks[first];
    seat(cluster.nodes[ranks->node], request, ranks, count);
  }
  placement.reasons = placement_reasons(cluster, request, placement.ranks);
  return placement;
}

nlohmann::json to_json(const Placement& placement, const Cluster& cluster) {
  nlohmann::json ranks = nlohmann::json::array();
  for (const RankPlacement& r : placement.ranks) {
    const Machine& machine = cluster.nodes[r.node];
    nlohmann::json rank = {{"rank", r.rank},
                           {"host", machine.host},
                           {"node", r.node},
                           {"local_rank", r.local_rank},
                           {"tp", r.coordinates.tensor},
                           {"pp", r.coordinates.pipeline},
                           {"dp", r.coordinates.data},
                           {"cp", r.coordinates.context},
                           {"device", "cpu"},
                           {"cores", r.cpus},
                           {"shares_cores", r.shares_cores},
                           {"memory_nodes", r.memory_nodes},
                           {"nics", r.nics}};
    if (r.gpu >= 0) {
      const Gpu& gpu = machine.gpus[r.gpu];
      rank["device"] = "cuda:" + std::to_string(gpu.index);
      rank["gpu"] = {{"index", gpu.index}, {"uuid", gpu.uuid}, {"bus_id", gpu.bus_id}, {"name", gpu.name}};
    }
    ranks.push_back(std::move(rank));
  }
  return {{"ranks", std::move(ranks)}, {"reasons", placement.reasons}};
}

}  // namespace mds::topology
