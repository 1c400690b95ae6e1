// Placement: which rank sits on which node, device, cores, memory node and NIC, with the reason. A pure function.
//
// Ranks keep Megatron's numbers (rank_grid.hpp); what is chosen is where each number sits:
// 1. Nodes (placement_nodes.hpp): neighbours in rank order become neighbours in the fabric, so that tensor groups stay
//    in one NVLink domain, context and data groups on one leaf as far as that goes, and stages span the rest.
// 2. GPUs of a node (placement_seats.hpp): those with the best links between them go to one tensor group. Equal nodes
//    are seated equally, so that a local rank has the same rail everywhere.
// 3. Cores, memory and NICs nearest to each GPU.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "topology/cluster.hpp"
#include "topology/rank_grid.hpp"
#include "topology/traffic.hpp"

namespace mds::topology {

enum class DeviceKind { cpu, cuda };

struct RankPlacement {
  int rank = 0;
  int node = 0;       ///< index into Cluster::nodes
  int node_rank = 0;  ///< index into Placement::nodes: this node's place in the order of the ranks
  int local_rank = 0;
  Coordinates coordinates;
  int gpu = -1;                   ///< index into Machine::gpus, -1 on CPUs
  std::vector<int> cpus;          ///< OS cpu numbers to bind to, ascending; empty: no binding (no core is known)
  int cores = 0;                  ///< whose hardware threads `cpus` are
  std::vector<int> memory_nodes;  ///< OS NUMA indices to bind memory to; empty: no binding
  std::vector<std::string> nics;  ///< best first; by bus id where a recording gives no name
  int best_nics = 0;              ///< the first so many of `nics` are equally good
  bool shares_cores = false;      ///< there were fewer cores than ranks
};

/// The ranks of one node: consecutive numbers.
struct NodePlacement {
  int node = 0;  ///< index into Cluster::nodes
  int first_rank = 0;
  int ranks = 0;
  bool operator==(const NodePlacement&) const = default;
};

struct Placement {
  std::vector<RankPlacement> ranks;  ///< by rank
  std::vector<NodePlacement> nodes;  ///< those that have ranks, in the order of these
  std::vector<std::string> reasons;  ///< one sentence a decision, for `plan --explain`
};

struct PlacementRequest {
  RankGrid grid;
  /// 0: each node takes as many as it has GPUs (CPU jobs: NUMA nodes), in whole tensor groups; for uneven nodes.
  int ranks_per_node = 1;
  DeviceKind device = DeviceKind::cpu;
  /// All nodes of the cluster are one real machine (virtual nodes): their ranks divide its cores.
  bool nodes_share_machine = false;
  TrafficWeights traffic{};
};

/// The same cluster and request give the same placement, to the byte. Nothing depends on names but the order of
/// switches (node_order.hpp): a node that takes another's place on its leaf, and in Cluster::nodes, moves no other
/// rank. Cost: O(ranks log ranks), and each distinct kind of machine is examined once.
/// Errors: infeasible, with what would fit (too few nodes, GPUs).
Result<Placement> place(const Cluster& cluster, const PlacementRequest& request);

nlohmann::json to_json(const Placement& placement, const Cluster& cluster);

}  // namespace mds::topology
