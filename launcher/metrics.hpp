// Metrics of a run: what the ranks reported, step by step. After a restart the steps behind the resumed one are
// superseded: the file metrics.jsonl keeps every record with its attempt, the history only the final ones.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "topology/result.hpp"

namespace mds::launcher {

/// One step's numbers, as far as they were reported; all floating-point values exactly as the rank sent them.
struct StepMetrics {
  int64_t step = 0;                          ///< completed steps
  uint32_t attempt = 0;
  std::optional<double> loss{};              ///< training loss, nats a token
  std::optional<double> validation_loss{};
  std::optional<double> lr{};
  std::optional<double> grad_norm{};
  std::optional<int64_t> tokens{};           ///< of all ranks in this step
  std::optional<double> seconds{};           ///< of this step
  std::optional<int64_t> consumed_samples{};
  std::optional<double> pipeline_bubble{};   ///< share of the stages' time without work, of the step before; 0 to 1
  bool operator==(const StepMetrics&) const = default;

  std::optional<double> tokens_per_second() const;
};

/// The numbers in a progress message, or none if it carries neither a step nor any number of a step.
std::optional<StepMetrics> step_metrics_from_json(const nlohmann::json& progress, uint32_t attempt);

class MetricsHistory {
 public:
  /// Merges with what is known of the same step and attempt; earlier attempts' records from this step on are dropped.
  void add(const StepMetrics& metrics);
  /// The attempt continues after `step`: earlier attempts' records beyond it are dropped.
  void resume(uint32_t attempt, int64_t step);

  const std::map<int64_t, StepMetrics>& steps() const { return steps_; }
  const std::vector<int64_t>& resumed_at() const { return resumed_at_; }   ///< steps, in the order of the restarts
  std::optional<double> last_loss() const;
  std::optional<double> last_validation_loss() const;

  /// Header and one line a step; doubles with 17 significant digits, so that equal text means equal bits.
  std::string csv() const;

 private:
  void drop_from(int64_t step, uint32_t attempt);
  std::map<int64_t, StepMetrics> steps_;
  std::vector<int64_t> resumed_at_;
};

}  // namespace mds::launcher
