// What a run tells Prometheus, in its text format (version 0.0.4). Names and units follow Prometheus' conventions: base
// units, _total for what only grows. Documented in docs/guide.md.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "launcher/metrics.hpp"

namespace mds::launcher {

/// What only grows, over all attempts: a step that a restart does again counts twice.
class RunCounters {
 public:
  static constexpr std::array<double, 12> kStepSeconds{0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600};

  void on_metrics(const StepMetrics& metrics);
  /// `wall_time`: seconds since 1970.
  void on_checkpoint(double wall_time);
  void on_failure() { ++failures_; }

  uint64_t steps() const { return steps_; }
  uint64_t tokens() const { return tokens_; }
  uint64_t checkpoints() const { return checkpoints_; }
  uint64_t failures() const { return failures_; }
  double checkpoint_time() const { return checkpoint_time_; }
  double step_seconds() const { return step_seconds_; }
  const std::array<uint64_t, kStepSeconds.size()>& within() const { return within_; }  ///< cumulative, as buckets are
  const StepMetrics& last() const { return last_; }

 private:
  uint64_t steps_ = 0, tokens_ = 0, checkpoints_ = 0, failures_ = 0;
  double checkpoint_time_ = 0, step_seconds_ = 0;
  std::array<uint64_t, kStepSeconds.size()> within_{};
  StepMetrics last_;
};

/// `status` is HeadStatus::to_json()'s, `job` and `run` become labels. Pure but for this process's own figures (memory,
/// processor time, open files), which it reads from /proc.
std::string prometheus_text(const RunCounters& counters, const nlohmann::json& status, const std::string& job,
                            const std::string& run, double start_time);

}  // namespace mds::launcher
