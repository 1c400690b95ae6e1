// `plan --json`, version 1; docs/reference.md describes it (launcher/job_reference.cpp).
#include <optional>

#include <nlohmann/json.hpp>

#include "launcher/plan.hpp"
#include "launcher/plan_cost.hpp"

namespace mds::launcher {
namespace {

using nlohmann::json;

// What placement says of the rank, and what it runs.
json rank_json(json out, const agent::RankSpec& spec, const LaunchPlan& plan, const std::optional<PlanCost>& cost) {
  out["argv"] = spec.argv;
  out["env"] = spec.env;
  if (!cost) return out;
  const topology::Coordinates& at = plan.placement.ranks[static_cast<size_t>(spec.rank)].coordinates;
  out["memory"] = memory_json(cost->stages[static_cast<size_t>(at.pipeline)]);
  return out;
}

}  // namespace

json to_json(const LaunchPlan& plan, const Job& job, const topology::Cluster& cluster) {
  std::optional<PlanCost> cost;
  if (job.payload.empty() && !cluster.nodes.empty()) cost = plan_cost(job, cluster);
  const auto size = [&](topology::Axis axis) { return plan.grid.size(axis); };
  json out{{"version", 1},
           {"job", job.name},
           {"world_size", plan.grid.world_size()},
           {"parallel",
            {{"tensor", size(topology::Axis::tensor)},
             {"pipeline", size(topology::Axis::pipeline)},
             {"data", size(topology::Axis::data)},
             {"context", size(topology::Axis::context)},
             {"order", job.trainer.parallel.order}}},
           {"step_time", cost ? step_time_json(*cost) : json()},
           {"reasons", plan.placement.reasons}};
  for (const std::string& note : job.notes) out["reasons"].push_back(note);
  if (cost) {
    for (const std::string& reason : cost_reasons(*cost)) out["reasons"].push_back(reason);
  } else {
    out["step_time_reason"] = "the job runs a program of its own";
  }
  json placement = to_json(plan.placement, cluster);
  json placed = std::move(placement.at("ranks"));  // moved: 16,384 ranks are many megabytes
  for (const PlannedNode& node : plan.nodes) {
    for (const agent::RankSpec& spec : node.ranks) {
      json& rank = placed.at(static_cast<size_t>(spec.rank));
      rank = rank_json(std::move(rank), spec, plan, cost);
    }
  }
  out["ranks"] = std::move(placed);
  return out;
}

}  // namespace mds::launcher
