// A machine in words: what `mdslaunch topo` prints.
#pragma once

#include <string>
#include <vector>

#include "topology/cluster.hpp"
#include "topology/doctor/doctor.hpp"

namespace mds::launcher {

/// The machines of a cluster, those that are alike once: a tree of packages, NUMA nodes, PCI switches, GPUs and NICs,
/// and the path class and bandwidth from every GPU to every GPU and NIC; then the fabric in a line.
std::string topology_text(const topology::Cluster& cluster);

/// Findings by severity, the worst first, each with its remedy; "no findings" where there are none. `colours`: with
/// terminal colours.
std::string findings_text(const std::vector<topology::Finding>& findings, bool colours);

}  // namespace mds::launcher
