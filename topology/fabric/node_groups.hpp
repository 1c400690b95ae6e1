// Which nodes are near each other: by leaf, by the levels above, by NVLink domain. What node_order() and the doctor of
// fabrics share.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

/// Finds nodes by the names that a fabric uses: exact, or without the domain ("n1.cluster" and "n1" are one host).
class NodesByHost {
 public:
  explicit NodesByHost(const Cluster& cluster);
  /// Indices into Cluster::nodes (several where virtual nodes share a host); empty where there is none.
  const std::vector<int>& find(const std::string& host) const;

 private:
  std::unordered_map<std::string, std::vector<int>> exact_, short_;
};

/// Leaves that serve the same hosts: the rails of one scalable unit; mostly one leaf alone. A single cable on a wrong
/// leaf does not join two units: half of the hosts of the larger leaf must be on the other, too.
struct LeafUnits {
  std::vector<int> unit_of_switch;  ///< by index into Fabric::switches; a unit is called by its first switch's index
};
LeafUnits leaf_units(const Fabric& fabric);

/// An NVLink domain or a block, with those of its nodes that the cluster has.
struct NodeBlock {
  std::string name;
  bool nvlink = false;     ///< known from the GPUs themselves
  std::vector<int> nodes;  ///< indices into Cluster::nodes, ascending
};

struct NodeGroups {
  /// [level][node]: nodes of one number are joined by switches of this level or below; level 0: one leaf unit. -1: the
  /// fabric does not know the node. Numbers rise with the natural order of the leaves' names.
  std::vector<std::vector<int>> levels;
  std::vector<NodeBlock> blocks;  ///< in natural order of their names; only those with nodes
};
NodeGroups node_groups(const Cluster& cluster);

}  // namespace mds::topology
