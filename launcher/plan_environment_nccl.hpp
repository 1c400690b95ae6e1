// What NCCL (and Gloo) are told: which adapters, which interface, whether rails may be crossed, and a topology where a
// virtual machine hides its own.
//
// NCCL_IB_HCA         "=name:port,..." ('=': exact names) of the RDMA adapters that are best for some rank of the node,
//                     the rank's own first. All ranks of a node get the same set: NCCL numbers adapters by it, and a
//                     rank may send through another's (PXN). Management and storage adapters stay out. Not for
//                     adapters without verbs (Slingshot's cxi, EFA's rdmap): NCCL reaches those through plug-ins.
// NCCL_SOCKET_IFNAME  "=name" of an interface that all nodes have, for the bootstrap and TCP: not one of an RDMA rail,
//                     whose addresses are often not routed, then hardware, then the fastest. "lo" where all ranks are
//                     on one machine: nothing listens where strangers could reach it.
// NCCL_CROSS_NIC      0 where the fabric is rail-optimised (each NIC of a host on a leaf of its own, together with the
//                     same NIC of others): a ring that changed its NIC would cross the spine. Otherwise not set: NCCL
//                     then crosses where that gains bandwidth (its default, 2).
// NCCL_TOPO_FILE      where the recording describes a virtual machine with bridges that no hardware has: such files are
//                     written because NCCL cannot see the machine's own PCI tree.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "topology/placement.hpp"

namespace mds::launcher {

using Environment = std::map<std::string, std::string>;

class NcclEnvironment {
 public:
  /// `one_machine`: all nodes of the cluster are this machine.
  NcclEnvironment(const topology::Cluster& cluster, const topology::Placement& placement, bool one_machine,
                  const std::string& run_folder);

  /// Variables for every rank of a node (index into Placement::nodes).
  const Environment& of_node(size_t node_rank) const { return nodes_[node_rank]; }
  /// And for one rank alone. Requires that it is on that node.
  void add_adapters(Environment& env, const topology::RankPlacement& rank) const;

  /// What is to be written into the run folder before ranks start: path in the folder -> content.
  const std::map<std::string, std::string>& files() const { return files_; }
  const std::vector<std::string>& reasons() const { return reasons_; }

 private:
  void choose_interface(const topology::Cluster& cluster, const topology::Placement& placement);
  void choose_crossing(const topology::Cluster& cluster, const topology::Placement& placement);
  void write_topologies(const topology::Cluster& cluster, const topology::Placement& placement,
                        const std::string& run_folder);
  void collect_adapters(const topology::Cluster& cluster, const topology::Placement& placement);

  std::vector<Environment> nodes_;
  std::vector<std::vector<std::pair<std::string, std::string>>> adapters_;  // by node: name, "name:port"
  std::map<std::string, std::string> files_;
  std::vector<std::string> reasons_;
};

}  // namespace mds::launcher
