// mdslaunch plan JOB.toml
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/commands/sources.hpp"
#include "launcher/job_nearest.hpp"
#include "launcher/plan_cluster.hpp"
#include "launcher/plan_cost.hpp"
#include "launcher/plan_cost_auto.hpp"
#include "launcher/run.hpp"

#include "topology/picture/placement_svg.hpp"

namespace mds::launcher {
namespace {

Result<topology::Cluster> chosen_cluster(const Job& job, const std::vector<std::string>& sources) {
  return sources.empty() ? job_cluster(job) : open_sources(sources);
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

// --candidates N. Errors: bad_input.
Result<size_t> candidates_wanted(const Arguments& arguments) {
  constexpr size_t kExplained = 5;
  if (!arguments.has("candidates")) return arguments.has("all-layouts") ? kExplained : size_t{0};
  const std::string& text = arguments.value("candidates");
  size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number > 0 && number <= 1000) return number;
  return bad_input("--candidates " + text + " is not a number from 1 to 1000");
}

Status write_picture(const Arguments& arguments, const LaunchPlan& plan, const topology::Cluster& cluster) {
  if (!arguments.has("svg")) return {};
  return write_text(arguments.value("svg"), topology::placement_svg(cluster, plan.placement, plan.grid));
}

void print_reasons(const LaunchPlan& plan, const Job& job, const std::optional<PlanCost>& cost) {
  std::vector<std::string> reasons = plan.placement.reasons;
  reasons.insert(reasons.end(), job.notes.begin(), job.notes.end());
  if (cost) {
    for (const std::string& reason : cost_reasons(*cost)) reasons.push_back(reason);
  }
  std::printf("\n");
  for (const std::string& reason : reasons) std::printf("- %s\n", reason.c_str());
}

void print_plan(const Arguments& arguments, const LaunchPlan& plan, const Job& job, const topology::Cluster& cluster) {
  print_ranks(plan, cluster);
  std::optional<PlanCost> cost;
  if (job.payload.empty()) cost = plan_cost(job, cluster);
  if (cost) std::printf("\n%s", cost_text(*cost).c_str());
  if (arguments.has("explain")) print_reasons(plan, job, cost);
}

}  // namespace

int plan_command(const Arguments& arguments) {
  int exit_code = 0;
  const std::optional<Job> asked = load_job(arguments, exit_code);
  if (!asked) return exit_code;
  const Result<size_t> candidates = candidates_wanted(arguments);
  if (!candidates) return report_error(candidates.error());
  const auto cluster = chosen_cluster(*asked, arguments.values("topology"));
  if (!cluster) return report_error(cluster.error());
  if (*candidates > 0 && asked->payload.empty()) {
    const auto found = layout_candidates(*asked, *cluster, *candidates, arguments.has("all-layouts"));
    std::printf("%s", candidates_text(found, cost_machines(*asked, *cluster)).c_str());
    return found.fitting > 0 ? kExitFinished : kExitInfeasible;
  }
  const Result<Job> job = settle_layout(*asked, *cluster);
  if (!job) return report_error(job.error());
  const auto plan = sketch_plan(*job, *cluster);
  if (!plan) return report_error(plan.error());
  if (Status written = write_picture(arguments, *plan, *cluster); !written) return report_error(written.error());
  if (arguments.has("json")) {
    std::printf("%s\n", to_json(*plan, *job, *cluster).dump(2).c_str());
  } else {
    print_plan(arguments, *plan, *job, *cluster);
  }
  return kExitFinished;
}

}  // namespace mds::launcher
