// Machines as pictures: packages, NUMA nodes, cores, PCI switches, NICs, GPUs and the links between them.
#pragma once

#include <string>

#include "topology/cluster.hpp"

namespace mds::topology {

/// An SVG document of all machines of a cluster, those that are alike once ("x 64"), with what doctor() finds marked in
/// them and listed below. One machine fills a page 1600 pixels wide at most; more than twelve kinds are cut short.
std::string cluster_svg(const Cluster& cluster);

}  // namespace mds::topology
