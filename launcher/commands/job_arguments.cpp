#include "launcher/commands/job_arguments.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "launcher/job_schema.hpp"
#include "launcher/plan_cluster.hpp"
#include "launcher/run.hpp"

namespace mds::launcher {

std::optional<Job> load_job(const Arguments& arguments, int& exit_code) {
  std::error_code gone;
  [[maybe_unused]] const auto here = std::filesystem::current_path(gone);
  if (gone) {
    std::fprintf(stderr, "mdslaunch: the working folder is not there any more; change to another one\n");
    exit_code = kExitBadInput;
    return std::nullopt;
  }
  std::vector<std::string> overrides = arguments.values("set");
  if (arguments.has("nodes")) overrides.push_back("job.nodes=" + arguments.value("nodes"));
  if (arguments.has("output-dir")) overrides.push_back("job.output_dir=" + toml_string(arguments.value("output-dir")));

  JobFileResult result = load_job(arguments.positional.at(0), overrides);
  const auto& problems = result.problems;
  for (const JobProblem& problem : problems) std::fprintf(stderr, "%s\n", format(problem).c_str());
  const bool only_infeasible = std::all_of(problems.begin(), problems.end(), [](auto& p) { return p.infeasible; });
  exit_code = problems.empty() ? kExitFinished : only_infeasible ? kExitInfeasible : kExitBadInput;
  return std::move(result.job);
}

int report_error(const Error& error) {
  std::fprintf(stderr, "mdslaunch: %s\n", error.message.c_str());
  switch (error.code) {
    case ErrorCode::bad_input:
      return kExitBadInput;
    case ErrorCode::infeasible:
      return kExitInfeasible;
    default:
      return kExitFailed;
  }
}

Result<LaunchPlan> sketch_plan(const Job& job, const topology::Cluster& cluster) {
  const Result<std::string> trainer = program_beside_us("mdstrain");
  const std::string run = job.name + "-TIME-ID";
  std::error_code error;
  PlanInputs inputs;
  inputs.run_folder = job.output_dir + "/" + run;
  inputs.run_id = run;
  inputs.trainer_program = trainer ? *trainer : "mdstrain";
  inputs.working_dir = std::filesystem::current_path(error).string();
  return make_plan(job, cluster, inputs);
}

Status write_text(const std::string& path, const std::string& text) {
  errno = 0;
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) return bad_input("cannot write " + path + ": " + system_error("", errno).message);
  return {};
}

}  // namespace mds::launcher
