// Synthetic machines: a topology source for plans and tests that need no hardware.
#pragma once

#include <string>
#include <string_view>

#include "topology/cluster.hpp"

namespace mds::topology {

/// "MACHINE", "MACHINE xN" (N nodes, 1 at least) or "MACHINE xN fabric:leaf=8,spine=4,rails=8", where MACHINE is
/// - a known one (read/synthetic_models.cpp): dgx-v100, dgx-a100, dgx-h100, dgx-h200, dgx-b200, gb200-nvl72 (nodes of 4
///   GPUs, 18 nodes an NVLink domain), gh200, mi300x-8, l40s-8;
/// - "cpu:packages=2,cores=32,numa=1,threads=2,memory=256GiB", every key optional: 1 package, 4 cores a package, 1 NUMA
///   node a package, 1 thread a core, 64GiB a NUMA node;
/// - "gpu:gpus=8,sm=90,nvlink=switch|mesh|none,memory=80GiB,nics=8,gbps=400,host_memory=256GiB" with the keys of cpu:
///   but memory, which is a GPU's here. Defaults: 8 GPUs of compute capability 9.0 and 80GiB, a switch, a NIC of 400
///   Gbit/s a GPU, 2 packages of 32 cores. GPUs and NICs are spread over the NUMA nodes, a GPU and its NICs share a PCI
///   switch.
/// Only what training uses is there: GPUs, their NICs and what both hang on.
/// Hosts are called MACHINE-0000, ... Errors: bad_input.
Result<Cluster> synthetic_cluster(const std::string& description);

/// Both parts of "NAME xN fabric:...": the name may hold spaces itself.
struct SourceName {
  std::string name;
  int count = 1;
  bool counted = false;  ///< xN was given, be it x1
  std::string fabric;    ///< what stands behind "fabric:"
  bool has_fabric = false;
};
/// Errors: bad_input where xN is no number from 1 to 100,000.
Result<SourceName> split_source(const std::string& source);

/// Puts a fabric between the nodes: `leaf` nodes hang on a leaf, `spine` leaves are below one group of `spines` spine
/// switches (2), and where there are several groups, below as many core switches. With `rails` (1) there are that many
/// leaves instead of each: NIC i of every node hangs on leaf i modulo `rails`. Without `spine` all leaves are below one
/// group; a leaf alone has nothing above it. Errors: bad_input naming the key.
Status add_synthetic_fabric(Cluster& cluster, std::string_view keys);

}  // namespace mds::topology
