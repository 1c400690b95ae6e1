// Which nodes take which ranks.
#pragma once

#include <string>
#include <vector>

#include "topology/placement.hpp"

namespace mds::topology {

struct NodeChoice {
  std::vector<NodePlacement> nodes;  ///< as Placement::nodes
  std::vector<std::string> reasons;
};

/// Nodes in the order of the fabric (node_order.hpp), improved where another order makes the traffic between nodes
/// cheaper; without a fabric as given. Nodes that cannot hold their ranks are passed over where others can, and said.
/// Up to 8 nodes the order is the best there is; up to kSearchedNodesMax it is improved by swaps; above, the better of
/// the plain order and of those that put whole groups on a leaf first, in O(ranks log ranks).
/// Errors: infeasible, with what would fit.
Result<NodeChoice> choose_nodes(const Cluster& cluster, const PlacementRequest& request);

inline constexpr size_t kSearchedNodesMax = 128;

}  // namespace mds::topology
