// mdslaunch plan JOB.toml
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/job_nearest.hpp"
#include "launcher/plan_cluster.hpp"
#include "launcher/plan_memory.hpp"
#include "launcher/run.hpp"
#include "topology/synthetic.hpp"

namespace mds::launcher {
namespace {

Result<topology::Cluster> chosen_cluster(const Job& job, const std::vector<std::string>& sources) {
  if (sources.empty()) return job_cluster(job);
  topology::Cluster cluster;
  for (const std::string& source : sources) {
    Result<topology::Cluster> part = topology::open_topology(source);
    if (!part) return part.error().within("--topology " + source);
    cluster.nodes.insert(cluster.nodes.end(), part->nodes.begin(), part->nodes.end());
  }
  return cluster;
}

// "0-3,8" for 0, 1, 2, 3, 8.
std::string ranges(const std::vector<int>& numbers) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin < numbers.size();) {
    size_t end = begin;
    while (end + 1 < numbers.size() && numbers[end + 1] == numbers[end] + 1) ++end;
    const std::string first = std::to_string(numbers[begin]);
    parts.push_back(begin == end ? first : first + "-" + std::to_string(numbers[end]));
    begin = end + 1;
  }
  return parts.empty() ? "-" : join_names(parts, ",");
}

void print_ranks(const LaunchPlan& plan, const topology::Cluster& cluster) {
  size_t host_width = 4;
  for (const PlannedNode& node : plan.nodes) host_width = std::max(host_width, node.host.size());
  const int width = static_cast<int>(host_width);
  std::printf("%5s  %-*s  %4s %5s  %3s %3s %4s  %-8s  %s\n", "rank", width, "host", "node", "local", "tp", "pp", "dp",
              "device", "cores");
  for (const topology::RankPlacement& placed : plan.placement.ranks) {
    const topology::Machine& machine = cluster.nodes[static_cast<size_t>(placed.node)];
    const std::string device =
        placed.gpu < 0 ? "cpu" : "cuda " + std::to_string(machine.gpus[static_cast<size_t>(placed.gpu)].index);
    std::printf("%5d  %-*s  %4d %5d  %3d %3d %4d  %-8s  %s%s\n", placed.rank, width, machine.host.c_str(), placed.node,
                placed.local_rank, placed.coordinates.tensor, placed.coordinates.pipeline, placed.coordinates.data,
                device.c_str(), ranges(placed.cpus).c_str(), placed.shares_cores ? " (shared)" : "");
  }
}

std::string readable(int64_t bytes) {
  const bool large = bytes >= 1 << 30;
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", static_cast<double>(bytes) / (large ? 1 << 30 : 1 << 20),
                large ? "GiB" : "MiB");
  return text;
}

void print_memory(const LaunchPlan& plan, const Job& job) {
  if (!job.payload.empty()) return;
  MemoryEstimate most;
  int rank = 0;
  for (const topology::RankPlacement& placed : plan.placement.ranks) {
    const MemoryEstimate estimate = estimate_memory(job.trainer, placed.coordinates);
    if (placed.rank != 0 && estimate.total() <= most.total()) continue;
    most = estimate;
    rank = placed.rank;
  }
  std::printf(
      "\nmemory of rank %d, the fullest (estimate): %s = parameters %s + gradients %s + optimizer %s + "
      "activations %s\n",
      rank, readable(most.total()).c_str(), readable(most.parameters).c_str(), readable(most.gradients).c_str(),
      readable(most.optimizer).c_str(), readable(most.activations).c_str());
}

}  // namespace

int plan_command(const Arguments& arguments) {
  int exit_code = 0;
  const std::optional<Job> job = load_job(arguments, exit_code);
  if (!job) return exit_code;
  const auto cluster = chosen_cluster(*job, arguments.values("topology"));
  if (!cluster) return report_error(cluster.error());
  const auto plan = sketch_plan(*job, *cluster);
  if (!plan) return report_error(plan.error());

  if (arguments.has("svg")) {
    const std::string picture = topology::placement_svg(*cluster, plan->placement, plan->grid);
    if (Status written = write_text(arguments.value("svg"), picture); !written) return report_error(written.error());
  }
  if (arguments.has("json")) {
    std::printf("%s\n", to_json(*plan, *job, *cluster).dump(2).c_str());
    return kExitFinished;
  }
  print_ranks(*plan, *cluster);
  print_memory(*plan, *job);
  if (arguments.has("explain")) {
    std::printf("\n");
    for (const std::string& reason : plan->placement.reasons) std::printf("- %s\n", reason.c_str());
    for (const std::string& note : job->notes) std::printf("- %s\n", note.c_str());
  }
  return kExitFinished;
}

}  // namespace mds::launcher
