// What only shows when nodes are compared with each other.
#pragma once

#include <vector>

#include "topology/doctor/doctor.hpp"

namespace mds::topology::doctor {

/// Nodes with fewer or other parts than most. Where more than a quarter differs, the cluster is taken to be mixed on
/// purpose, and that is a note.
void check_peers(const Cluster& cluster, std::vector<Finding>& findings);

/// Findings that differ by their host only become one, with the hosts as ranges ("dgx-[0000-0063]"), in the order of
/// severity, then of first appearance.
std::vector<Finding> folded(const std::vector<Finding>& findings);

}  // namespace mds::topology::doctor
