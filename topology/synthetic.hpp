// Synthetic machines: a topology source for plans and tests that need no hardware.
#pragma once

#include <string>

#include "topology/cluster.hpp"

namespace mds::topology {

/// "MACHINE" or "MACHINE xN" (N nodes, 1 at least), where MACHINE is a known one (dgx-a100, dgx-h100, dgx-h200, gh200)
/// or "cpu:packages=2,cores=32,numa=1,threads=2,memory=256GiB", every key optional (1 package, 4 cores a package, 1
/// NUMA node a package, 1 thread a core, 64GiB a NUMA node). Hosts are called MACHINE-0000, ... Errors: bad_input.
Result<Cluster> synthetic_cluster(const std::string& description);

/// What `--topology` takes: a recording or a folder of recordings (load_cluster), else a synthetic cluster.
/// Errors: bad_input.
Result<Cluster> open_topology(const std::string& source);

}  // namespace mds::topology
