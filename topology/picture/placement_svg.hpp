// A placement as a picture: who runs where, and who works with whom.
#pragma once

#include <string>

#include "topology/placement.hpp"

namespace mds::topology {

/// An SVG document, about a screen wide: nodes (up to 8 in detail, up to 128 with a cell a rank, more with a cell a
/// node) under their leaves and spines, with NUMA nodes, GPUs and NICs; then the grid of groups, and a legend. Colours
/// stand for tensor groups. Beyond 4,096 nodes it is cut short and says so. Requires at least one rank.
std::string placement_svg(const Cluster& cluster, const Placement& placement, const RankGrid& grid);

}  // namespace mds::topology
