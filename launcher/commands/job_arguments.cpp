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

namespace {

/// "4" as it is; of "2-4" the most that there are (0: unknown, then the least). Errors: bad_input.
Result<std::string> choose_nodes(const std::string& text, int available) {
  int least = 0, most = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%6d-%6d%c", &least, &most, &rest) != 2) return text;
  if (least < 1 || most < least) return bad_input("--nodes " + text + " is no range such as 2-4");
  if (available == 0) return std::to_string(least);
  if (available < least) {
    return infeasible("--nodes " + text + ": this Slurm job has " + std::to_string(available));
  }
  return std::to_string(std::min(available, most));
}

}  // namespace

std::optional<Job> load_job(const Arguments& arguments, int& exit_code, const std::set<std::string>& lost_hosts) {
  std::error_code gone;
  [[maybe_unused]] const auto here = std::filesystem::current_path(gone);
  if (gone) {
    std::fprintf(stderr, "mdslaunch: the working folder is not there any more; change to another one\n");
    exit_code = kExitBadInput;
    return std::nullopt;
  }
  Result<Surroundings> surroundings = read_surroundings(environment_map());
  if (!surroundings) {
    exit_code = report_error(surroundings.error());
    return std::nullopt;
  }
  surroundings->lost_hosts = lost_hosts;
  std::vector<std::string> overrides = arguments.values("set");
  if (arguments.has("nodes")) {
    const int available = surroundings->allocation ? static_cast<int>(surroundings->allocation->hosts.size()) : 0;
    const Result<std::string> nodes = choose_nodes(arguments.value("nodes"), available);
    if (!nodes) {
      exit_code = report_error(nodes.error());
      return std::nullopt;
    }
    overrides.push_back("job.nodes=" + *nodes);
  }
  if (arguments.has("hosts")) overrides.push_back("job.hosts=[" + toml_string(arguments.value("hosts")) + "]");
  for (const char* name : {"hostfile", "include", "exclude"}) {
    const std::string key = name == std::string("hostfile") ? "hosts" : name;
    if (arguments.has(name)) overrides.push_back("job." + key + "=" + toml_string(arguments.value(name)));
  }
  if (arguments.has("netns")) overrides.push_back("job.netns=true");
  if (arguments.has("output-dir")) overrides.push_back("job.output_dir=" + toml_string(arguments.value("output-dir")));

  JobFileResult result = load_job(arguments.positional.at(0), overrides, *surroundings);
  const auto& problems = result.problems;
  for (const JobProblem& problem : problems) std::fprintf(stderr, "%s\n", format(problem).c_str());
  const bool only_infeasible = std::all_of(problems.begin(), problems.end(), [](auto& p) { return p.infeasible; });
  exit_code = problems.empty() ? kExitFinished : only_infeasible ? kExitInfeasible : kExitBadInput;
  return std::move(result.job);
}

std::string output_dir_of(const Arguments& arguments) {
  return arguments.has("output-dir") ? arguments.value("output-dir") : "runs";
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

namespace {

PlanInputs sketch_inputs(const Job& job) {
  const Result<std::string> trainer = program_beside_us("mdstrain");
  const std::string run = job.name + "-TIME-ID";
  std::error_code error;
  PlanInputs inputs;
  inputs.run_folder = job.output_dir + "/" + run;
  inputs.run_id = run;
  inputs.trainer_program = trainer ? *trainer : "mdstrain";
  inputs.working_dir = std::filesystem::current_path(error).string();
  return inputs;
}

}  // namespace

Result<LaunchPlan> sketch_plan(const Job& job, const topology::Cluster& cluster, const StagePlan* stage) {
  PlanInputs inputs = sketch_inputs(job);
  inputs.stage = stage;
  return make_plan(job, cluster, inputs);
}

Result<StagePlan> sketch_stage(const Job& job) {
  const Result<std::string> agent = program_beside_us("mdsagent");
  return plan_stage(job, sketch_inputs(job), agent ? *agent : "mdsagent");
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
