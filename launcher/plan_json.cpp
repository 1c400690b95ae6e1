// `plan --json`, version 1; docs/reference.md describes it (launcher/job_reference.cpp).
#include <nlohmann/json.hpp>

#include "launcher/plan.hpp"
#include "launcher/plan_memory.hpp"

namespace mds::launcher {
namespace {

using nlohmann::json;

json memory_json(const MemoryEstimate& estimate) {
  return {{"parameters", estimate.parameters},
          {"gradients", estimate.gradients},
          {"optimizer", estimate.optimizer},
          {"activations", estimate.activations},
          {"total", estimate.total()}};
}

// What placement says of the rank, and what it runs.
json rank_json(json out, const agent::RankSpec& spec, const LaunchPlan& plan, const Job& job) {
  out["argv"] = spec.argv;
  out["env"] = spec.env;
  if (!job.payload.empty()) return out;
  const topology::Coordinates& at = plan.placement.ranks[static_cast<size_t>(spec.rank)].coordinates;
  out["memory"] = memory_json(estimate_memory(job.trainer, at));
  return out;
}

}  // namespace

json to_json(const LaunchPlan& plan, const Job& job, const topology::Cluster& cluster) {
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
           {"step_time", nullptr},
           {"step_time_reason", "this version has no cost model"},
           {"reasons", plan.placement.reasons}};
  for (const std::string& note : job.notes) out["reasons"].push_back(note);
  json placed = to_json(plan.placement, cluster).at("ranks");
  for (const PlannedNode& node : plan.nodes) {
    for (const agent::RankSpec& spec : node.ranks) {
      json& rank = placed.at(static_cast<size_t>(spec.rank));
      rank = rank_json(std::move(rank), spec, plan, job);
    }
  }
  out["ranks"] = std::move(placed);
  return out;
}

}  // namespace mds::launcher
