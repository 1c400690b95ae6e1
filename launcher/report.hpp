// The report: what became of a run, for report.json and for the summary at its end.
#pragma once

#include <cstdint>
#include <ctime>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "launcher/metrics.hpp"
#include "launcher/supervisor.hpp"
#include "launcher/view.hpp"

namespace mds::launcher {

struct RunReport {
  std::string name;                        ///< of the job
  std::string run;                         ///< of the folder
  std::string folder;
  std::string shown_folder;                ///< as people read it: relative if below the working folder
  std::string loss_unit = "nats per token";
  std::string program;                     ///< mdslaunch as typed, so that suggestions can be pasted
  std::string job_argument;                ///< the job file as typed
  bool runs_trainer = true;
  bool tensorboard = false;
  bool has_loss_curve = false;
  bool kill_asked = false;                 ///< --kill-rank was given
  int ranks = 0;
  int nodes = 0;
  int64_t steps = 0;                       ///< asked for; 0 unknown
  std::time_t started = 0;
  double seconds = 0;                      ///< wall time of the run
  std::optional<int64_t> parameters{};
  std::map<int, uint64_t> memory_bytes_max{};  ///< by rank: of tensors on its GPU, or of its process on CPUs
  std::vector<Cause> failures;             ///< first cause of every failed attempt
  SupervisorState state;                   ///< the last one
};

/// "finished", "failed", "stopped", "preempted" (exit code 75) or "no_agents".
std::string outcome_name(const SupervisorState& state);

/// report.json (version 1).
nlohmann::json to_json(const RunReport& report, const MetricsHistory& history);

/// The end of the run as people see it.
RunSummary summarize(const RunReport& report, const MetricsHistory& history);

}  // namespace mds::launcher
