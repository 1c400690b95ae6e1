// How long NCCL's collectives take: the formulas and constants of its own tuner (NCCL 2.28, src/graph/tuning.cc), which
// picks the quickest of algorithm (ring, tree, NVLS) and protocol (LL, LL128, Simple) by them. Seconds.
#pragma once

#include <cstdint>

namespace mds::topology::cost {

enum class Collective { all_reduce, all_gather, reduce_scatter };
enum class LinkHardware { nvlink, pci, host };  ///< host: ranks on CPUs, over memory or sockets

/// What ranks are joined by. GB/s in one direction, for one rank.
struct Links {
  LinkHardware hardware = LinkHardware::pci;  ///< within a node
  double inside = 0;                          ///< within a node or NVLink domain
  double network = 0;                         ///< this rank's share of its node's NICs; 0: there is no other node
  int sm = 0;                                 ///< compute capability x 10; 0: not NVIDIA's
  bool nvls = false;                          ///< switches that reduce (NVLink SHARP)
  bool amd_cpu = false;
};

/// The ranks of one group: `per_node` on each of `nodes` nodes.
struct Group {
  int ranks = 1;
  int per_node = 1;
  bool leaves_domain = false;  ///< within a node, but beyond what NVLink joins
  int nodes() const { return (ranks + per_node - 1) / per_node; }
};

/// `bytes`: of the whole tensor (all_reduce), of the gathered (all_gather) or the unreduced one (reduce_scatter), as
/// NCCL counts. 0 for a group of one.
double collective_seconds(Collective collective, double bytes, const Group& group, const Links& links);

/// A send that a receive answers at the same time.
double transfer_seconds(double bytes, bool across_nodes, const Links& links);

}  // namespace mds::topology::cost
