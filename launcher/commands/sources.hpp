// The machines that --input and --topology name.
#pragma once

#include <string>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::launcher {

/// As topology::open_topologies; what was left out or assumed is printed to standard error.
Result<topology::Cluster> open_sources(const std::vector<std::string>& sources);

}  // namespace mds::launcher
