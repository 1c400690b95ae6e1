// Allocation: what Slurm tells a program that runs in one of its jobs, from the SLURM_* environment (22.05 and newer).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "topology/result.hpp"

namespace mds::slurm {

using Environment = std::map<std::string, std::string>;

/// One component of a heterogeneous job; a plain job has exactly one.
struct Component {
  int first_node = 0;  ///< index into Allocation::hosts
  int nodes = 0;
  int gpus_per_node = 0;  ///< 0: none or unknown
  bool operator==(const Component&) const = default;
};

struct Allocation {
  std::string cluster{};     ///< empty before Slurm 22.05's SLURM_CLUSTER_NAME
  int64_t job_id = 0;        ///< of an array's task: its own
  std::string array_text{};  ///< "1234_7" for task 7 of array 1234; empty otherwise
  std::string job_name{};
  std::vector<std::string> hosts{};  ///< node names, component after component
  std::vector<Component> components{};
  int gpus_per_node = 0;              ///< of the first component
  int restart_count = 0;              ///< times that Slurm has requeued the job
  std::optional<int64_t> end_time{};  ///< seconds since 1970; some versions do not say it
  bool in_step = false;               ///< this very process was started by srun
  int task = 0;                       ///< its SLURM_PROCID then
  bool operator==(const Allocation&) const = default;
};

/// nullopt outside a job. Errors: bad_input naming the variable (a host list that does not parse, a number that is
/// none).
Result<std::optional<Allocation>> read_allocation(const Environment& environment);

/// The part of a run's id that says which Slurm job it belongs to, the same after a requeue: "test-1234", "1234_7".
std::string run_label(const Allocation& allocation);

/// "4", "a100:4", "a100:2,v100:2" (--gpus-per-node, SLURM_GPUS_PER_NODE) as a count; 0 when it is none of these.
int gpu_count(const std::string& text);

}  // namespace mds::slurm
