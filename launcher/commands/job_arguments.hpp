// What the commands that take a job file share.
#pragma once

#include <set>
#include <string>

#include "launcher/cli.hpp"
#include "launcher/job_file.hpp"
#include "launcher/plan.hpp"
#include "launcher/stage_plan.hpp"

namespace mds::launcher {

/// Loads the job file named by the arguments, with --nodes, --output-dir and --set applied. On problems prints them all
/// to standard error and leaves `exit_code` at 2 or 3; otherwise 0. The job does without `lost_hosts`.
std::optional<Job> load_job(const Arguments& arguments, int& exit_code, const std::set<std::string>& lost_hosts = {});

/// --rank R of `command`. Errors: bad_input.
Result<int> rank_argument(const Arguments& arguments, const std::string& command);

/// Where runs are looked for: --output-dir, or else "runs".
std::string output_dir_of(const Arguments& arguments);

/// Prints "mdslaunch: message" and gives the exit code that an error of this kind has.
int report_error(const Error& error);

/// A plan as `plan` and `run --dry-run` show it: nothing is started, so that run folder and run id are placeholders.
/// `stage`: of sketch_stage(), for commands and paths as they are on the nodes.
Result<LaunchPlan> sketch_plan(const Job& job, const topology::Cluster& cluster, const StagePlan* stage = nullptr);
/// What would be sent to its nodes, as far as that is known before they are asked. Requires stage.enabled.
Result<StagePlan> sketch_stage(const Job& job);

/// Writes `text` to `path`. Errors: bad_input naming path and cause.
Status write_text(const std::string& path, const std::string& text);

}  // namespace mds::launcher
