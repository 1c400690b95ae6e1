// The container of a job's ranks: what the job file says, and the binds that every run needs.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "container/container.hpp"
#include "launcher/job.hpp"

namespace mds::launcher {

struct StagePlan;

/// The job's container with the run folder (writable), data, checkpoint and model paths (read-only) bound where they
/// are on the host, and GPUs as the job has them. With `stage` the image is the node's staged one, what was staged is
/// bound as one folder, and the run folder only where nodes see it. Runtime none: an empty one. Errors: bad_input
/// (container::check).
Result<container::Container> job_container(const Job& job, const std::string& run_folder,
                                           const StagePlan* stage = nullptr);

/// Of the user's environment what container.inherit lets in; all of it without a container.
std::map<std::string, std::string> let_in(const Job& job, const std::map<std::string, std::string>& environment);

/// What `run --dry-run` shows: the argument list with which this node would start the container. Empty without one.
/// Errors: unavailable (no such runtime here).
Result<std::string> container_text(const container::Container& container);

}  // namespace mds::launcher
