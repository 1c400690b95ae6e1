// Placement: which rank sits on which node, device, cores, memory node and NIC, with the reason. A pure function.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "topology/cluster.hpp"
#include "topology/rank_grid.hpp"

namespace mds::topology {

enum class DeviceKind { cpu, cuda };

struct RankPlacement {
  int rank = 0;
  int node = 0;                    ///< index into Cluster::nodes
  int local_rank = 0;
  Coordinates coordinates;
  int gpu = -1;                    ///< index into Machine::gpus, -1 on CPUs
  std::vector<int> cpus;           ///< OS cpu numbers to bind to, ascending, never empty
  std::vector<int> memory_nodes;   ///< OS NUMA indices to bind memory to; empty: no binding
  std::vector<std::string> nics;   ///< best first
  bool shares_cores = false;       ///< there were fewer cores than ranks
};

struct Placement {
  std::vector<RankPlacement> ranks;      ///< by rank
  std::vector<std::string> reasons;      ///< one sentence a decision, for `plan --explain`
};

struct PlacementRequest {
  RankGrid grid;
  int ranks_per_node = 1;
  DeviceKind device = DeviceKind::cpu;
  /// How many nodes of the cluster share one real machine (virtual nodes): their ranks divide its cores.
  bool nodes_share_machine = false;
};

/// Errors: infeasible, with what would fit (too few nodes, GPUs).
Result<Placement> place(const Cluster& cluster, const PlacementRequest& request);

nlohmann::json to_json(const Placement& placement, const Cluster& cluster);

/// A picture of nodes, packages, cores and GPUs coloured by TP/PP/DP group, as an SVG document.
/// Requires at least one rank.
std::string placement_svg(const Cluster& cluster, const Placement& placement, const RankGrid& grid);

}  // namespace mds::topology
