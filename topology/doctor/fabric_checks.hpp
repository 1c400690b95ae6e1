// What is wrong between the nodes: cables, leaves, blocks.
#pragma once

#include <vector>

#include "topology/doctor/doctor.hpp"

namespace mds::topology {

/// Findings about Cluster::fabric and how it fits the nodes; none where nothing is known of a fabric. Codes:
/// missing-rail, swapped-cables, cable-on-wrong-leaf, slow-fabric-link, fabric-island, host-on-two-leaves,
/// host-not-in-fabric, fabric-of-other-hosts (warnings); fabric-host-without-node, domain-over-leaves, empty-block
/// (notes). A cable is judged by those of its peers: the same NIC of nodes that are built alike, on the same leaves.
/// Where peers have no clear pattern, nothing is said. O(n log n).
std::vector<Finding> examine_fabric(const Cluster& cluster);

}  // namespace mds::topology
