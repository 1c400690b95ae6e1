// RunRecord: follows a run as the head's observer, writes down what it learns, and tells the view.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "launcher/head.hpp"
#include "launcher/job.hpp"
#include "launcher/metrics_files.hpp"
#include "launcher/report.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/view.hpp"

namespace spdlog {
class logger;
}

namespace mds::launcher {

/// Threads: the head's only. `folder` and `view` must outlive it.
class RunRecord {
 public:
  RunRecord(const Job& job, const RunFolder& folder, View& view, RunReport report);
  ~RunRecord();

  /// Callbacks that refer to this object.
  HeadObserver observer();

  /// The nodes do not see the run folder: what ranks say is written to their logs from here.
  void write_rank_logs() { writes_rank_logs_ = true; }

  /// After the run: metrics.csv, loss.svg, report.json and the summary on the view.
  void finish(double seconds);

 private:
  void on_event(const Event& event, const Effects& effects, const SupervisorState& state, TimePoint now);
  void on_progress(uint32_t attempt, const nlohmann::json& body, TimePoint now);
  void on_output(const Output& output);
  void on_note(const std::string& text);
  void tell_news(const nlohmann::json& body);
  void write_pictures();
  void warn_once(const Status& status);

  const RunFolder& folder_;
  View& view_;
  MetricsFiles metrics_;
  RunReport report_;
  std::shared_ptr<spdlog::logger> diagnostics_;   ///< logs/head.log, made with its first line
  std::optional<TimePoint> pictures_at_;
  bool warned_ = false;
  bool writes_rank_logs_ = false;
};

}  // namespace mds::launcher
