#include "launcher/report.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include <nlohmann/json.hpp>

#include "launcher/event_log.hpp"
#include "launcher/run.hpp"
#include "launcher/view.hpp"

namespace mds::launcher {

using nlohmann::json;

namespace {

std::string utc(std::time_t time) {
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

/// Over the final history: tokens of all steps by the time that they took, without pauses between attempts and without
/// the first step of each, in which libraries choose their kernels; of the only step there is, if there is one only.
std::optional<double> mean_tokens_per_second(const MetricsHistory& history) {
  double tokens = 0, seconds = 0;
  uint32_t attempt = 0;
  std::optional<double> first;
  for (const auto& [step, m] : history.steps()) {
    if (!m.tokens || !m.seconds) continue;
    if (!first) first = m.tokens_per_second();
    if (std::exchange(attempt, m.attempt) != m.attempt) continue;
    tokens += static_cast<double>(*m.tokens);
    seconds += *m.seconds;
  }
  return seconds > 0 ? std::optional(tokens / seconds) : first;
}

std::optional<int64_t> last_step(const MetricsHistory& history) {
  return history.steps().empty() ? std::nullopt : std::optional(history.steps().rbegin()->first);
}

template <typename T>
json maybe(const std::optional<T>& value) {
  return value ? json(*value) : json();
}

std::string outcome_sentence(const RunReport& report) {
  const SupervisorState& s = report.state;
  const std::string time = human_seconds(report.seconds);
  const std::string outcome = outcome_name(s);
  if (outcome == "finished") return "finished in " + time;
  if (outcome == "preempted" && s.preempt_signal == 0) return "stopped after " + time + ": " + s.verdict;
  if (outcome == "preempted") return "stopped with a checkpoint on " + signal_name(s.preempt_signal) + " after " + time;
  if (outcome == "stopped") return "stopped on " + signal_name(s.exit_code - 128) + " after " + time;
  return "failed after " + time + (s.verdict.empty() ? "" : ": " + s.verdict);
}

std::vector<Suggestion> suggestions(const RunReport& report) {
  std::vector<Suggestion> next;
  if (report.job_argument.empty()) return next;
  const std::string program = shell_word(report.program), job = shell_word(report.job_argument);
  const std::string folder = shell_word(report.shown_folder);
  const bool finished = report.state.exit_code == kExitFinished;
  if (!finished) {
    if (report.runs_trainer && !report.state.checkpoint.empty()) {
      next.push_back({program + " run --resume " + folder, "go on from the newest checkpoint"});
    }
    const bool any_rank = report.state.exit_code != kExitNoAgents;
    next.push_back({"less " + folder + (any_rank ? "/logs/rank-*.log" : "/logs/node-*.log"),
                    any_rank ? "all that the ranks said" : "all that the agents said"});
    return next;
  }
  if (report.runs_trainer && report.steps > 1 && !report.kill_asked) {
    const int victim = std::min(3, report.ranks - 1);
    next.push_back({program + " " + job + " --kill-rank " + std::to_string(victim) + "@" +
                        std::to_string(report.steps / 2), "kill a rank half way and watch the recovery"});
  }
  next.push_back({program + " plan --explain " + job, "which rank sits where, and why"});
  if (report.tensorboard) {
    next.push_back({"tensorboard --logdir " + folder + "/tensorboard",
                    "the curves in a browser, if TensorBoard is installed"});
  }
  return next;
}

}  // namespace

std::string outcome_name(const SupervisorState& state) {
  if (state.exit_code == kExitFinished) return "finished";
  if (state.exit_code == kExitNoAgents) return "no_agents";
  if (state.exit_code == kExitRequeue) return "preempted";
  const int signal = state.user_signal != 0 ? state.user_signal : state.preempt_signal;
  return signal != 0 && state.exit_code == 128 + signal ? "stopped" : "failed";
}

json to_json(const RunReport& report, const MetricsHistory& history) {
  const SupervisorState& s = report.state;
  json failures = json::array();
  for (const Cause& cause : report.failures) failures.push_back(to_json(cause));
  json memory = json::object();
  for (const auto& [rank, bytes] : report.memory_bytes_max) memory[std::to_string(rank)] = bytes;
  return {{"version", 1},
          {"type", "report"},
          {"job", report.name},
          {"run", report.run},
          {"folder", report.folder},
          {"outcome", outcome_name(s)},
          {"exit_code", s.exit_code},
          {"verdict", s.verdict},
          {"signal", s.user_signal != 0 ? s.user_signal : s.preempt_signal},
          {"started", utc(report.started)},
          {"seconds", report.seconds},
          {"ranks", report.ranks},
          {"nodes", report.nodes},
          {"attempts", s.attempt},
          {"first_attempt", s.first_attempt},
          {"restarts", s.restarts},
          {"first_cause", report.failures.empty() ? json() : to_json(report.failures.back())},
          {"failures", failures},
          {"steps", report.steps},
          {"step", maybe(last_step(history))},
          {"loss", maybe(history.last_loss())},
          {"validation_loss", maybe(history.last_validation_loss())},
          {"tokens_per_second", maybe(mean_tokens_per_second(history))},
          {"parameters", maybe(report.parameters)},
          {"memory_bytes_max", memory},
          {"checkpoint", s.checkpoint.empty() ? json() : json("checkpoints/" + s.checkpoint)},
          {"stale_messages", s.stale_events},
          {"unexpected_events", s.unexpected_events}};
}

RunSummary summarize(const RunReport& report, const MetricsHistory& history) {
  RunSummary summary;
  summary.exit_code = report.state.exit_code;
  summary.outcome = report.name + " " + outcome_sentence(report);
  summary.report_json = to_json(report, history).dump(-1, ' ', false, json::error_handler_t::replace);
  const auto fact = [&](const std::string& name, const std::string& value) { summary.facts.push_back({name, value}); };
  if (const auto step = last_step(history)) {
    fact("steps", std::to_string(*step) + (report.steps > 0 ? " of " + std::to_string(report.steps) : ""));
  }
  if (const auto loss = history.last_loss()) fact("loss", number(*loss));
  if (const auto loss = history.last_validation_loss()) fact("validation loss", number(*loss) + " " + report.loss_unit);
  if (const auto speed = mean_tokens_per_second(history)) fact("speed", human_count(*speed) + " tokens/s");
  if (report.state.restarts > 0) fact("restarts", std::to_string(report.state.restarts));
  fact("run folder", report.shown_folder);
  std::string inside = report.state.checkpoint.empty() ? "" : "checkpoints/" + report.state.checkpoint + ", ";
  if (report.has_loss_curve) inside += "loss.svg, ";
  fact("in it", inside + "placement.svg, logs/");
  summary.next = suggestions(report);
  return summary;
}

}  // namespace mds::launcher
