// Surroundings: what the environment says about the machines that this launcher may use. Read once, in main's commands;
// all that follows is told, so that it can be tested without one.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "launcher/job.hpp"
#include "slurm/allocation.hpp"

namespace mds::launcher {

struct Surroundings {
  std::optional<slurm::Allocation> allocation{};  ///< this process runs in a Slurm job
};

/// Errors: bad_input naming the variable.
Result<Surroundings> read_surroundings(const std::map<std::string, std::string>& environment);

/// The environment of this process.
std::map<std::string, std::string> environment_map();

}  // namespace mds::launcher
