// Steps: the argument list and the environment of the srun that starts one agent on each of some nodes of a job.
#pragma once

#include <string>
#include <vector>

#include "slurm/allocation.hpp"
#include "topology/result.hpp"

namespace mds::slurm {

struct Version {
  int year = 0, month = 0, patch = 0;  ///< "22.05.8": 22, 5, 8
  auto operator<=>(const Version&) const = default;
};

inline constexpr Version kOldestVersion{22, 5, 0};

/// Of "slurm 22.05.8", "slurm-wlm 24.11.1-1", as `srun --version` prints it. Errors: bad_input.
Result<Version> parse_version(const std::string& text);

/// Is the Slurm whose srun prints this new enough for srun_arguments()? Errors: bad_input, with what is needed.
Status check_version(const std::string& text);

struct StepSpec {
  std::vector<std::string> hosts;  ///< in the allocation's order; all of one component
  int component = -1;              ///< of a heterogeneous job; -1: the job is none
  int gpus_per_node = 0;           ///< 0: say nothing about GPUs
  std::string program;             ///< absolute path, the same on every node
  std::vector<std::string> arguments{};
  /// Folder, on every node, that `program` is copied to from this machine, and runs from; its name there is
  /// slurm_bcast_JOB.STEP_NODE. Empty: it is there already.
  std::string copied_to{};
};

/// One task on each host; task i runs on hosts[i]. Every task gets all of the node that the job has, unbound, so that
/// its program divides it; other steps may run beside it; neither a task's end nor a node's ends the others.
/// Every Slurm since kOldestVersion knows all of these options.
std::vector<std::string> srun_arguments(const StepSpec& step);

/// The environment for that srun: without the SLURM_* variables by which the job's own options (tasks, CPUs, memory,
/// binding) would change the step.
Environment srun_environment(Environment environment);

}  // namespace mds::slurm
