#include "slurm/step.hpp"

#include <algorithm>
#include <cstdio>

#include "slurm/host_list.hpp"

namespace mds::slurm {
namespace {

/// What srun(1) reads as if it were an option ("INPUT ENVIRONMENT VARIABLES") and what sbatch and salloc set for it.
/// Those that say which job this is (SLURM_JOB_ID, SLURM_CONF, SLURM_CLUSTER_NAME, ...) stay.
constexpr const char* kStepVariables[] = {"SLURM_CPUS_PER_GPU",
                                          "SLURM_CPUS_PER_TASK",
                                          "SLURM_CPU_BIND",
                                          "SLURM_CPU_BIND_LIST",
                                          "SLURM_CPU_BIND_TYPE",
                                          "SLURM_CPU_BIND_VERBOSE",
                                          "SLURM_CORE_SPEC",
                                          "SLURM_DISTRIBUTION",
                                          "SLURM_EXACT",
                                          "SLURM_EXCLUSIVE",
                                          "SLURM_EXPORT_ENV",
                                          "SLURM_GPUS",
                                          "SLURM_GPUS_PER_NODE",
                                          "SLURM_GPUS_PER_SOCKET",
                                          "SLURM_GPUS_PER_TASK",
                                          "SLURM_GPU_BIND",
                                          "SLURM_GRES",
                                          "SLURM_HINT",
                                          "SLURM_KILL_BAD_EXIT",
                                          "SLURM_LABELIO",
                                          "SLURM_MEM_BIND",
                                          "SLURM_MEM_PER_CPU",
                                          "SLURM_MEM_PER_GPU",
                                          "SLURM_MEM_PER_NODE",
                                          "SLURM_MPI_TYPE",
                                          "SLURM_NNODES",
                                          "SLURM_NO_KILL",
                                          "SLURM_NPROCS",
                                          "SLURM_NTASKS",
                                          "SLURM_NTASKS_PER_CORE",
                                          "SLURM_NTASKS_PER_GPU",
                                          "SLURM_NTASKS_PER_NODE",
                                          "SLURM_NTASKS_PER_SOCKET",
                                          "SLURM_NTASKS_PER_TRES",
                                          "SLURM_OVERCOMMIT",
                                          "SLURM_OVERLAP",
                                          "SLURM_REMOTE_CWD",
                                          "SLURM_RELATIVE",
                                          "SLURM_SPREAD_JOB",
                                          "SLURM_STDERRMODE",
                                          "SLURM_STDINMODE",
                                          "SLURM_STDOUTMODE",
                                          "SLURM_TASKS_PER_NODE",
                                          "SLURM_TASK_EPILOG",
                                          "SLURM_TASK_PROLOG",
                                          "SLURM_THREADS_PER_CORE",
                                          "SLURM_THREADS",
                                          "SLURM_TIMELIMIT",
                                          "SLURM_TRES_BIND",
                                          "SLURM_TRES_PER_TASK",
                                          "SLURM_UNBUFFEREDIO",
                                          "SLURM_WAIT",
                                          "SLURM_WHOLE",
                                          "SLURM_WORKING_DIR"};

}  // namespace

Result<Version> parse_version(const std::string& text) {
  const size_t digit = text.find_first_of("0123456789");
  Version version;
  const bool parsed = digit != std::string::npos && std::sscanf(text.c_str() + digit, "%2d.%2d.%3d", &version.year,
                                                                &version.month, &version.patch) >= 2;
  if (!parsed) return bad_input("'" + text.substr(0, 60) + "' is no version of Slurm, such as \"slurm 22.05.8\"");
  return version;
}

Status check_version(const std::string& text) {
  const auto version = parse_version(text);
  if (!version) return version.error();
  if (*version >= kOldestVersion) return {};
  char found[32];
  std::snprintf(found, sizeof found, "%d.%02d.%d", version->year, version->month, version->patch);
  return bad_input("Slurm " + std::string(found) + " is too old: 22.05 or newer is needed");
}

std::vector<std::string> srun_arguments(const StepSpec& step) {
  const std::string count = std::to_string(step.hosts.size());
  std::vector<std::string> words{
      "--nodes=" + count, "--ntasks=" + count, "--ntasks-per-node=1", "--nodelist=" + fold_hosts(step.hosts),
      "--job-name=mdsagent",
      "--kill-on-bad-exit=0",  // one agent's end is ours to deal with
      "--no-kill",             // and so is a node's
      "--wait=0",
      "--overlap",  // leaves the node to other steps, e.g. the agent that replaces this one. Not --exact,
                    // which would give the agent one CPU: without it a step has all that the job has
      "--cpu-bind=none", "--mem=0", "--mpi=none", "--distribution=block", "--unbuffered", "--label",
      "--export=HOME,LD_LIBRARY_PATH,PATH,TMPDIR,USER",  // names alone: no value shows in the argument list
  };
  if (step.component >= 0) words.push_back("--het-group=" + std::to_string(step.component));
  if (step.gpus_per_node > 0) words.push_back("--gpus-per-node=" + std::to_string(step.gpus_per_node));
  if (!step.copied_to.empty()) {
    // Force, which lets srun replace what is there, is srun's default. The working folder may not be there.
    words.push_back("--bcast=" + step.copied_to + "/");
    words.push_back("--chdir=" + step.copied_to);
  }
  words.push_back(step.program);
  words.insert(words.end(), step.arguments.begin(), step.arguments.end());
  return words;
}

Environment srun_environment(Environment environment) {
  for (const char* name : kStepVariables) environment.erase(name);
  return environment;
}

}  // namespace mds::slurm
