// Why the ranks sit where they sit, in sentences for `plan --explain`.
#pragma once

#include <string>
#include <vector>

#include "topology/placement.hpp"

namespace mds::topology {

/// "1 rank", "2 ranks".
std::string counted(size_t count, const std::string& noun);

/// One sentence a decision. Nodes about which the same is to be said share a sentence ("nodes 0-7: ...").
std::vector<std::string> placement_reasons(const Cluster& cluster, const PlacementRequest& request,
                                           const std::vector<RankPlacement>& ranks);

}  // namespace mds::topology
