// The files that the metrics of a run go to while it runs: metrics.jsonl and tensorboard/.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "launcher/job.hpp"
#include "launcher/metrics.hpp"
#include "launcher/metrics_tensorboard.hpp"
#include "launcher/run_folder.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

/// Files are made with the first record, so that a payload that reports nothing leaves none. Not thread-safe.
class MetricsFiles {
 public:
  MetricsFiles(const RunFolder& folder, const MetricsConfig& config);
  MetricsFiles(const MetricsFiles&) = delete;
  MetricsFiles& operator=(const MetricsFiles&) = delete;
  ~MetricsFiles();

  /// A run that is resumed: the history goes on from what metrics.jsonl has. What cannot be read is left out.
  void read_back();

  /// Appends one progress message to metrics.jsonl, with attempt and wall-clock time (seconds since 1970), and its
  /// scalars to TensorBoard's file of this attempt. Steps that are no multiple of the interval are left out, unless
  /// they carry something besides the training loss. Errors: unavailable.
  Status add(const nlohmann::json& progress, uint32_t attempt, double wall_time);

  /// The history of every record so far, whatever the interval.
  const MetricsHistory& history() const { return history_; }

 private:
  std::optional<StepMetrics> take(const nlohmann::json& progress, uint32_t attempt);
  Status append_line(const nlohmann::json& line);
  Status append_scalars(const StepMetrics& metrics, double wall_time);

  std::string jsonl_path_;
  std::string tensorboard_folder_;
  MetricsConfig config_;
  MetricsHistory history_;
  int jsonl_fd_ = -1;
  std::unique_ptr<TensorboardFile> tensorboard_;
  uint32_t tensorboard_attempt_ = 0;
};

}  // namespace mds::launcher
