// Surroundings: what the environment says about the machines that this launcher may use. Read once, in main's commands;
// all that follows is told, so that it can be tested without one.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "launcher/job.hpp"
#include "slurm/allocation.hpp"

namespace mds::launcher {

struct Surroundings {
  std::optional<slurm::Allocation> allocation{};  ///< this process runs in a Slurm job
  std::set<std::string> lost_hosts{};  ///< machines of the job that are not to be used any more
  int place = 0;  ///< among the processes of an mpirun or srun that was given this command; only the first one launches
};

/// Is this a variable that mpirun or mpiexec sets for the processes that it starts, so that whoever inherits it takes
/// itself for one of these?
bool is_of_mpirun(std::string_view variable);

/// Errors: bad_input naming the variable.
Result<Surroundings> read_surroundings(const std::map<std::string, std::string>& environment);

/// The environment of this process.
std::map<std::string, std::string> environment_map();

}  // namespace mds::launcher
