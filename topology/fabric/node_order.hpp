// In which order the nodes of a cluster are filled with ranks: neighbours in the fabric stay neighbours in rank order.
#pragma once

#include <string>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

struct NodeOrder {
  std::vector<int> nodes;            ///< indices into Cluster::nodes; every node once
  std::vector<std::string> reasons;  ///< for `plan --explain`
};

/// Nodes of one leaf side by side, leaves of one spine side by side, and so on up; NVLink domains and blocks are kept
/// whole, where two overlap the larger one. Leaves and blocks come in the natural order of their names, nodes of one
/// leaf in the order in which they were given: so the same cluster gives the same order, and putting another node on
/// the same leaf into a node's place moves no other, whatever its name. (Sorting nodes by name could not do that.)
/// Nodes that the fabric does not know come last. Without a fabric: as given. O(n log n).
NodeOrder node_order(const Cluster& cluster);

/// How far two nodes are from each other: 0 the same node, 1 the same NVLink domain, 2 the same leaf, 3 a common
/// spine, 4 the level above, ...; without a fabric all nodes share a leaf. Where no switch joins two nodes, or the
/// fabric does not know one: one more than the fabric has levels.
class NodeDistances {
 public:
  explicit NodeDistances(const Cluster& cluster);  ///< O(n log n); the cluster need not live on
  int operator()(int node_a, int node_b) const;    ///< O(levels + blocks of a node)

 private:
  std::vector<std::vector<int>> levels_;  ///< [level][node]
  std::vector<std::vector<int>> blocks_;  ///< by node, ascending
  std::vector<int> host_, domain_;        ///< by node; domain -1: the GPUs do not say
};

/// The same for one pair. O(n log n): for many pairs keep a NodeDistances.
int fabric_distance(const Cluster& cluster, int node_a, int node_b);

}  // namespace mds::topology
