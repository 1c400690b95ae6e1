// mdslaunch run JOB.toml
#include "launcher/run.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <nlohmann/json.hpp>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/job_nearest.hpp"
#include "launcher/plan_cluster.hpp"
#include "launcher/plan_container.hpp"
#include "launcher/plan_cost_auto.hpp"
#include "launcher/requeue.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/view.hpp"

namespace mds::launcher {
namespace {

// "R@STEP". Errors: bad_input.
Result<KillRank> parse_kill_rank(const std::string& text, const Job& job) {
  int rank = 0;
  long long step = 0;
  char rest = 0;
  const bool parsed = std::sscanf(text.c_str(), "%9d@%15lld%c", &rank, &step, &rest) == 2;
  const int world = job.nodes * job.ranks_per_node;
  if (!parsed || rank < 0 || rank >= world || step < 0) {
    return bad_input("--kill-rank " + text + " is not R@STEP with a rank from 0 to " + std::to_string(world - 1) +
                     ", e.g. 1@100");
  }
  const int64_t steps = job.trainer.training.steps;
  if (job.payload.empty() && step > steps) {
    return bad_input("--kill-rank " + text + " would never happen: the job ends at step " + std::to_string(steps));
  }
  KillRank kill;
  kill.rank = rank;
  kill.step = step;
  return kill;
}

void print_rank(const agent::RankSpec& spec, const std::string& host) {
  std::vector<std::string> cores, words;
  for (const int cpu : spec.cpus) cores.push_back(std::to_string(cpu));
  for (const auto& [name, value] : spec.env) words.push_back(shell_word(name + "=" + value));
  for (const std::string& word : spec.argv) words.push_back(shell_word(word));
  std::printf("# rank %d on %s, cores %s\n%s\n", spec.rank, host.c_str(), join_names(cores, ",").c_str(),
              join_names(words, " ").c_str());
}

int dry_run(const Job& asked, bool as_json) {
  const auto cluster = job_cluster(asked);
  if (!cluster) return report_error(cluster.error());
  const auto settled = settle_layout(asked, *cluster);
  if (!settled) return report_error(settled.error());
  const Job& job = *settled;
  StagePlan stage;
  if (job.stage.enabled) {
    auto sketched = sketch_stage(job);
    if (!sketched) return report_error(sketched.error());
    stage = *std::move(sketched);
  }
  auto plan = sketch_plan(job, *cluster, job.stage.enabled ? &stage : nullptr);
  if (!plan) return report_error(plan.error());
  if (as_json) {
    std::printf("%s\n", to_json(*plan, job, *cluster).dump(2).c_str());
    return kExitFinished;
  }
  std::printf("# Would run %d ranks on %d nodes; MASTER_ADDR, MASTER_PORT and your own environment come on top.\n",
              plan->grid.world_size(), job.nodes);
  for (const std::string& path : stage.sources) std::printf("# Sent to every node: %s\n", path.c_str());
  if (!stage.image.empty()) std::printf("# Sent to every node that has not got it: %s\n", stage.image.c_str());
  const auto container = container_text(plan->container);
  if (!container) return report_error(container.error());
  if (!container->empty()) {
    std::printf("# Each node starts one container, which its ranks enter:\n%s\n", container->c_str());
  }
  for (const PlannedNode& node : plan->nodes) {
    for (const agent::RankSpec& spec : node.ranks) print_rank(spec, node.host);
  }
  return kExitFinished;
}

/// In a Slurm job SIGTERM means its end (time limit, scancel, preemption), and one that was started again goes on.
RunEnd run_in_slurm(const Job& job, RunOptions options, const slurm::Allocation& allocation) {
  const char* continued = std::getenv("MDS_CONTINUE_JOB");
  const JobIdentity identity = job_identity(allocation, continued ? continued : "", job.output_dir, job.name);
  options.run_id = identity.run_id;
  if (options.resume.empty()) options.resume = identity.resume;
  options.preempt_on_term = true;
  constexpr std::chrono::milliseconds kForTheEnd{20'000}, kDrainMin{10'000};
  options.preempt_drain = std::max(kDrainMin, job.slurm.signal_before_end - kForTheEnd);
  return run_job(job, options);
}

/// One run, which goes on without the machines that it loses as long as the job file allows it: each time as if it were
/// resumed by hand, with fewer hosts.
int run_to_the_end(const Arguments& arguments, const Job& first, RunOptions options, const Surroundings& surroundings) {
  Job job = first;
  std::set<std::string> lost_hosts;
  while (true) {
    const bool in_slurm = job.backend == Backend::slurm && surroundings.allocation;
    const RunEnd end = in_slurm ? run_in_slurm(job, options, *surroundings.allocation) : run_job(job, options);
    if (!end.lost_host.empty() && lost_hosts.insert(end.lost_host).second) {
      int unusable = 0;
      if (const std::optional<Job> smaller = load_job(arguments, unusable, lost_hosts)) {
        std::fprintf(stderr, "mdslaunch: %s is lost; going on with %d nodes\n", end.lost_host.c_str(), smaller->nodes);
        job = *smaller;
        options.resume = end.folder;
        options.goes_on_without = true;
        options.kill_rank.reset();
        continue;
      }
      std::fprintf(stderr, "mdslaunch: %s is lost, and the job cannot go on without it\n", end.lost_host.c_str());
    }
    if (end.exit_code == kExitRequeue && in_slurm && job.slurm.requeue) requeue(*surroundings.allocation);
    return end.exit_code;
  }
}

}  // namespace

int run_command(const Arguments& arguments) {
  const Result<Surroundings> surroundings = read_surroundings(environment_map());
  if (!surroundings) return report_error(surroundings.error());
  if (surroundings->place > 0) return kExitFinished;  // `mpirun -np 4 mdslaunch ...` is one run, not four
  RunOptions options;
  Arguments words = arguments;
  if (arguments.has("resume")) {
    const Result<RunFolder> folder = RunFolder::find(arguments.value("resume"), output_dir_of(arguments));
    if (!folder) return report_error(folder.error());
    options.resume = folder->path();
    if (words.positional.empty()) words.positional.push_back(folder->file("job.toml"));
  }
  int exit_code = 0;
  const std::optional<Job> job = load_job(words, exit_code);
  if (!job) return exit_code;
  options.job_argument = words.positional.front();
  options.json = arguments.has("json");
  if (arguments.has("kill-rank")) {
    const Result<KillRank> kill = parse_kill_rank(arguments.value("kill-rank"), *job);
    if (!kill) return report_error(kill.error());
    options.kill_rank = *kill;
  }
  if (arguments.has("dry-run")) return dry_run(*job, options.json);
  return run_to_the_end(words, *job, options, *surroundings);
}

}  // namespace mds::launcher
