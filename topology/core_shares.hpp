// How the cores of one machine are divided among the ranks on it.
#pragma once

#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

/// What one rank gets.
struct CoreShare {
  std::vector<const Core*> cores;  ///< never empty; they belong to the machine
  bool shared = false;             ///< another rank has this core, too
};

/// One share a rank. `nearest[i]` is the OS index of the NUMA node that rank i should be near to, -1 for any.
///
/// - With at least as many cores as ranks, no core has two ranks and every core of a NUMA node with ranks has one.
/// - A rank near to a NUMA node gets cores of it, unless there are fewer than ranks near to it: then of another one of
///   the package that has some to spare, or else of any. A node without cores counts as numa_with_cores() says.
/// - Ranks near to any are spread so that the smallest share is as large as can be, neighbours on the same NUMA node. A
///   rank's cores lie in one NUMA node, unless there are fewer ranks than nodes, or that would cost the poorest rank
///   more than a quarter of an even share.
/// - With fewer cores than ranks each rank gets one core, in turn, so that neighbours sit on different ones.
///
/// Requires a core.
std::vector<CoreShare> divide_cores(const Machine& machine, const std::vector<int>& nearest);

/// `numa` itself if it has cores, or the nearest NUMA node that has: of the same package, then by number, as firmware
/// numbers neighbours side by side. -1 for -1, and where no node has cores.
int numa_with_cores(const Machine& machine, int numa);

}  // namespace mds::topology
