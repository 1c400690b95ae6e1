#include "launcher/prometheus.hpp"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace mds::launcher {

using nlohmann::json;

namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  for (int digits = 6; digits < 17; ++digits) {  // the shortest that reads back as the same
    char shorter[40];
    std::snprintf(shorter, sizeof shorter, "%.*g", digits, value);
    if (std::strtod(shorter, nullptr) == value) return shorter;
  }
  return text;
}

class Exposition {
 public:
  void family(const std::string& name, const char* type, const char* help) {
    name_ = name;
    text_ += "# HELP " + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
  }
  void sample(double value, const Labels& labels = {}, const char* suffix = "") {
    text_ += name_ + suffix;
    const char* before = "{";
    for (const auto& [label, word] : labels) {
      text_ += before + label + "=\"" + escaped(word) + "\"";
      before = ",";
    }
    text_ += (labels.empty() ? " " : "} ") + number(value) + "\n";
  }
  void gauge(const std::string& name, double value, const char* help) {
    family(name, "gauge", help);
    sample(value);
  }
  void counter(const std::string& name, double value, const char* help) {
    family(name, "counter", help);
    sample(value);
  }
  std::string text() && { return std::move(text_); }

 private:
  static std::string escaped(const std::string& word) {
    std::string out;
    for (const char c : word) out += c == '\\' ? "\\\\" : c == '"' ? "\\\"" : c == '\n' ? "\\n" : std::string(1, c);
    return out;
  }
  std::string name_, text_;
};

void add_training(Exposition& out, const RunCounters& counters, const json& status) {
  const StepMetrics& last = counters.last();
  const auto optional = [&](const char* name, const std::optional<double>& value, const char* help) {
    if (value) out.gauge(name, *value, help);
  };
  if (status.contains("step")) out.gauge("mds_step", status["step"], "Last completed step; falls back at a restart.");
  if (const int64_t steps = status.value("steps", int64_t{0}); steps > 0) {
    out.gauge("mds_steps_planned", static_cast<double>(steps), "Steps that the job asks for.");
  }
  if (counters.steps() > 0) {
    out.counter("mds_steps_total", static_cast<double>(counters.steps()),
                "Steps done; those that a restart does again count again.");
    out.counter("mds_tokens_total", static_cast<double>(counters.tokens()), "Tokens in those steps.");
    out.family("mds_step_duration_seconds", "histogram", "Time of a step.");
    for (size_t i = 0; i < RunCounters::kStepSeconds.size(); ++i) {
      const double bound = RunCounters::kStepSeconds[i];
      out.sample(static_cast<double>(counters.within()[i]), {{"le", number(bound)}}, "_bucket");
    }
    out.sample(static_cast<double>(counters.steps()), {{"le", "+Inf"}}, "_bucket");
    out.sample(counters.step_seconds(), {}, "_sum");
    out.sample(static_cast<double>(counters.steps()), {}, "_count");
  }
  optional("mds_loss", last.loss, "Training loss of the last step, nats a token.");
  optional("mds_validation_loss", last.validation_loss, "Last validation loss, nats a token.");
  optional("mds_learning_rate", last.lr, "Learning rate of the last step.");
  optional("mds_gradient_norm", last.grad_norm, "Gradient norm of the last step, before clipping.");
  optional("mds_pipeline_bubble_ratio", last.pipeline_bubble, "Share of the stages' time without work, 0 to 1.");
  optional("mds_tokens_per_second", last.tokens_per_second(), "Throughput of the last step, over all ranks.");
  if (status.contains("mfu")) {
    out.gauge("mds_model_flops_utilization_ratio", status["mfu"], "Model FLOPs utilization of the last step, 0 to 1.");
  }
}

/// How many nodes or ranks are in each state; a state that was never met has no sample.
void add_states(Exposition& out, const json& status, const char* list, const char* name, const char* help) {
  std::map<std::string, int> by_state;
  for (const json& one : status[list]) {
    std::string state = one.value("state", "");
    if (state.find(' ') != std::string::npos) state = "ended";  // "exited with code 1": labels are few
    ++by_state[state];
  }
  out.family(name, "gauge", help);
  for (const auto& [state, count] : by_state) out.sample(count, {{"state", state}});
}

double worst(const json& list, const char* name) {
  double most = 0;
  for (const json& one : list) most = std::max(most, one.value(name, 0.0));
  return most;
}

void add_own_process(Exposition& out) {
  long pages = 0;
  std::ifstream("/proc/self/statm").ignore(32, ' ') >> pages;
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  out.gauge("process_resident_memory_bytes", static_cast<double>(pages) * page, "Resident memory of mdslaunch.");
  timespec used{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  out.counter("process_cpu_seconds_total", static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9,
              "Processor time of mdslaunch.");
  std::error_code error;
  size_t files = 0;
  for (std::filesystem::directory_iterator at("/proc/self/fd", error), end; !error && at != end; at.increment(error)) {
    ++files;
  }
  out.gauge("process_open_fds", static_cast<double>(files), "Open file descriptors of mdslaunch.");
}

}  // namespace

void RunCounters::on_metrics(const StepMetrics& m) {
  if (m.validation_loss) last_.validation_loss = m.validation_loss;
  if (!m.loss) return;
  const std::optional<double> validation = last_.validation_loss;
  last_ = m;
  last_.validation_loss = validation;
  ++steps_;
  tokens_ += static_cast<uint64_t>(std::max<int64_t>(0, m.tokens.value_or(0)));
  const double seconds = m.seconds.value_or(0);
  step_seconds_ += seconds;
  for (size_t i = 0; i < kStepSeconds.size(); ++i) within_[i] += seconds <= kStepSeconds[i];
}

void RunCounters::on_checkpoint(double wall_time) {
  ++checkpoints_;
  checkpoint_time_ = wall_time;
}

std::string prometheus_text(const RunCounters& counters, const json& status, const std::string& job,
                            const std::string& run, double start_time) {
  Exposition out;
  out.family("mds_build_info", "gauge", "Version of mdslaunch.");
  out.sample(1, {{"version", MDS_VERSION}});
  out.family("mds_run_info", "gauge", "The run.");
  out.sample(1, {{"job_name", job}, {"run", run}});
  out.family("mds_run_state", "gauge", "1 for the state that the run is in.");
  const std::string now = status.value("state", "");
  for (const char* state :
       {"idle", "waiting_for_agents", "starting", "running", "stopping", "backing_off", "finishing", "ended"}) {
    out.sample(now == state, {{"state", state}});
  }
  out.gauge("mds_run_start_time_seconds", start_time, "When mdslaunch began this run, since 1970.");
  out.gauge("mds_attempt", status.value("attempt", 1), "Number of the attempt.");
  out.counter("mds_restarts_total", status.value("restarts", 0), "Restarts of all ranks.");
  out.counter("mds_failures_total", static_cast<double>(counters.failures()), "Attempts that failed.");
  add_states(out, status, "nodes", "mds_nodes", "Nodes by state.");
  add_states(out, status, "ranks", "mds_ranks", "Ranks by state.");
  out.gauge("mds_node_silence_max_seconds", worst(status["nodes"], "heard_s"),
            "Time since the node was heard of that has been silent for longest.");
  out.gauge("mds_rank_heartbeat_age_max_seconds", worst(status["ranks"], "beat_s"),
            "Time since the heartbeat of the rank that has been silent for longest.");
  add_training(out, counters, status);
  out.counter("mds_checkpoints_total", static_cast<double>(counters.checkpoints()), "Checkpoints committed.");
  if (counters.checkpoints() > 0) {
    out.gauge("mds_checkpoint_last_timestamp_seconds", counters.checkpoint_time(),
              "When the last checkpoint was committed, since 1970.");
  }
  add_own_process(out);
  return std::move(out).text();
}

}  // namespace mds::launcher
