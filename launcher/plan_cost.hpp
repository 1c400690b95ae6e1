// What a job costs on its machines, for `plan`, plan.json and the check before a run: topology/cost's models asked with
// a job's shapes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "launcher/job.hpp"
#include "topology/cost/search.hpp"

namespace mds::launcher {

/// The shapes of a job that trains. Requires a config without problems (trainer::check).
topology::cost::Work cost_work(const trainer::TrainerConfig& config);

/// The other way round: `config` with the layout, micro batch, recomputation, ZeRO stage and offload of `work`.
trainer::TrainerConfig with_layout(trainer::TrainerConfig config, const topology::cost::Work& work);

/// Whether this version's trainer runs it.
bool can_run(const trainer::TrainerConfig& config, const topology::cost::Work& work);

topology::cost::Machines cost_machines(const Job& job, const topology::Cluster& cluster);

struct PlanCost {
  topology::cost::Work work;
  topology::cost::Machines machines;
  std::vector<topology::cost::Memory> stages;  ///< of a rank, by pipeline stage
  size_t fullest = 0;                          ///< the stage whose ranks need most
  std::optional<topology::cost::StepTime> step;  ///< nothing where no rates of the device are known

  const topology::cost::Memory& most() const { return stages[fullest]; }
  double tokens_per_second() const;            ///< of the whole job; 0 without a step time
  double model_flops_utilization() const;      ///< 0 to 1; 0 without a step time
};

/// Requires a job that trains, and a node in the cluster. O(pipeline stages).
PlanCost plan_cost(const Job& job, const topology::Cluster& cluster);

/// MFU of the whole job at one token a second; 0 for payloads, and where the devices' peak is not known (CPUs).
double utilization_per_token(const Job& job, const topology::Cluster& cluster);

/// Errors: infeasible, with the smallest sets of changes that make it fit. An estimate that is above the memory by less
/// than the model's error is not refused: cost_reasons() says so. Jobs on CPUs and with a payload always pass.
/// internal, if an axis of the layout is still open (settle_layout()).
Status check_fits(const Job& job, const topology::Cluster& cluster);

/// Of one rank: bytes by part, "tensors" (what the trainer reports as its peak) and "total".
nlohmann::json memory_json(const topology::cost::Memory& memory);
/// {"total", "matrix", ...} in seconds, "tokens_per_second", "mfu", "dominant"; null without a step time.
nlohmann::json step_time_json(const PlanCost& cost);
/// What was assumed, and what dominates, a sentence each.
std::vector<std::string> cost_reasons(const PlanCost& cost);

/// Memory of the fullest rank and step time by part, for people.
std::string cost_text(const PlanCost& cost);

}  // namespace mds::launcher
