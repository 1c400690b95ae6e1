// What a plan needs to know of the world: the machines of a job and where our programs are.
#pragma once

#include <string>

#include "launcher/job.hpp"
#include "topology/cluster.hpp"

namespace mds::launcher {

/// The machines that `job` will run on. Local back end: this machine, once for each virtual node.
/// Errors: as topology::discover_machine.
Result<topology::Cluster> job_cluster(const Job& job);

/// Absolute path of one of our programs: beside this executable, or else found in PATH. Errors: bad_input.
Result<std::string> program_beside_us(const std::string& name);

}  // namespace mds::launcher
