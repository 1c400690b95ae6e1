// The fabric's cables as seen from the nodes, and what is wrong with them.
#pragma once

#include <string>
#include <vector>

#include "topology/cluster.hpp"
#include "topology/doctor/doctor.hpp"
#include "topology/fabric/node_groups.hpp"

namespace mds::topology::doctor {

/// A cable of a node of the cluster.
struct Cable {
  const FabricPort* port = nullptr;  ///< of the cluster's fabric, which must outlive this
  int node = 0;                      ///< index into Cluster::nodes
  int unit = 0;                      ///< the leaf unit in which most of the node's cables end
  int kind = 0;                      ///< nodes of one number are built alike: as many GPUs, NICs of the same names
  int expected_leaf = -1;            ///< where its peers' cables end; -1: as expected, or nobody knows
};

/// All cables of the cluster's nodes; those of NICs that have peers know where they should end.
std::vector<Cable> cables_of(const Cluster& cluster, const NodesByHost& nodes, const NodeGroups& groups);

void check_rails(const Cluster& cluster, const std::vector<Cable>& cables, std::vector<Finding>& findings);
void check_leaves(const Cluster& cluster, const std::vector<Cable>& cables, std::vector<Finding>& findings);
void check_rates(const Cluster& cluster, const std::vector<Cable>& cables, std::vector<Finding>& findings);
void check_islands(const Cluster& cluster, const std::vector<Cable>& cables, std::vector<Finding>& findings);

}  // namespace mds::topology::doctor
