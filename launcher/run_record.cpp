#include "launcher/run_record.hpp"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>

#include "launcher/loss_svg.hpp"
#include "launcher/plan.hpp"

namespace mds::launcher {

using nlohmann::json;
using namespace std::chrono_literals;

namespace {

constexpr auto kPicturesInterval = 5s;          // while it runs, the curve and the table are renewed at most so often

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

template <typename T>
std::optional<T> field(const json& body, const char* name) {
  const auto it = body.find(name);
  if (it == body.end()) return std::nullopt;
  if constexpr (std::is_same_v<T, std::string>) {
    return it->is_string() ? std::optional(it->get<std::string>()) : std::nullopt;
  } else {
    return it->is_number() ? std::optional(it->get<T>()) : std::nullopt;
  }
}

}  // namespace

RunRecord::RunRecord(const Job& job, const RunFolder& folder, View& view, RunReport report)
    : folder_(folder), view_(view), metrics_(folder, job.metrics), report_(std::move(report)) {
  metrics_.read_back();
}

RunRecord::~RunRecord() = default;

HeadObserver RunRecord::observer() {
  return {[this](const Event& e, const Effects& f, const SupervisorState& s, TimePoint now) { on_event(e, f, s, now); },
          [this](uint32_t attempt, const json& body, TimePoint now) { on_progress(attempt, body, now); },
          [this](const Output& output) { on_output(output); },
          [this](const std::string& text) { on_note(text); }, [this] { view_.resized(); }};
}

void RunRecord::on_event(const Event& event, const Effects& effects, const SupervisorState& state, TimePoint now) {
  view_.event(event, effects, state, now);
  for (const Effect& effect : effects) {
    if (effect.kind == EffectKind::report_cause) {
      report_.failures.push_back(*state.cause);
      write_pictures();
    }
    if (effect.kind == EffectKind::end) report_.state = state;
  }
}

void RunRecord::on_progress(uint32_t attempt, const json& body, TimePoint now) {
  if (!body.is_object()) return;
  warn_once(metrics_.add(body, attempt, wall_time()));
  if (const auto metrics = step_metrics_from_json(body, attempt)) {
    view_.metrics(*metrics, field<int64_t>(body, "steps").value_or(report_.steps), now);
    if (metrics->validation_loss && (!pictures_at_ || now - *pictures_at_ >= kPicturesInterval)) {
      pictures_at_ = now;
      write_pictures();
    }
  } else {
    tell_news(body);
  }
}

void RunRecord::tell_news(const json& body) {
  if (const auto parameters = field<int64_t>(body, "parameters")) {
    const bool known = report_.parameters.has_value();
    report_.parameters = parameters;
    std::string text = human_count(static_cast<double>(*parameters)) + " parameters";
    if (const auto bytes = field<double>(body, "memory_bytes")) {
      text += ", " + human_count(*bytes) + "B of state on rank 0";
    }
    if (!known) view_.news(text);
  }
  if (const auto bytes = field<uint64_t>(body, "memory_bytes_max")) {
    report_.memory_bytes_max[field<int>(body, "rank").value_or(0)] = *bytes;
  }
  if (const auto from = field<std::string>(body, "resumed_from")) view_.news("resumed from " + *from);
  if (const auto damaged = field<std::string>(body, "damaged")) {
    view_.warning(*damaged + "; the one before it is tried");
  }
  if (const auto error = field<std::string>(body, "checkpoint_error")) {
    view_.warning("no checkpoint at step " + std::to_string(field<int64_t>(body, "step").value_or(0)) + ": " + *error +
                  "; the run goes on");
  }
}

void RunRecord::on_output(const Output& output) {
  view_.output(output.rank, output.lines, output.dropped);
  if (!writes_rank_logs_) return;
  std::ofstream log(folder_.file("logs/" + rank_log_name(output.rank)), std::ios::app);
  for (const std::string& line : output.lines) log << line << '\n';
  if (output.dropped > 0) log << "[" << output.dropped << " lines were lost on the way]\n";
  if (!log.flush()) warn_once(unavailable("cannot write the log of rank " + std::to_string(output.rank)));
}

void RunRecord::on_note(const std::string& text) {
  if (!diagnostics_) {
    try {
      auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(folder_.file("logs/head.log"));
      diagnostics_ = std::make_shared<spdlog::logger>("head", std::move(sink));
      diagnostics_->flush_on(spdlog::level::info);
    } catch (const spdlog::spdlog_ex&) {  // spdlog reports no other way; diagnostics are no reason to stop a run
      return;
    }
  }
  diagnostics_->info("{}", text);
}

void RunRecord::write_pictures() {
  const MetricsHistory& history = metrics_.history();
  if (history.steps().empty()) return;
  warn_once(folder_.write("metrics.csv", history.csv()));
  const std::string svg = loss_svg(history, report_.name, report_.loss_unit);
  if (svg.empty()) return;
  const Status written = folder_.write("loss.svg", svg);
  report_.has_loss_curve = report_.has_loss_curve || written.ok();
  warn_once(written);
}

void RunRecord::finish(double seconds) {
  report_.seconds = seconds;
  write_pictures();
  const json report = to_json(report_, metrics_.history());
  warn_once(folder_.write("report.json", report.dump(2, ' ', false, json::error_handler_t::replace) + "\n"));
  view_.end(summarize(report_, metrics_.history()));
}

/// A disk that is full would else say so at every step.
void RunRecord::warn_once(const Status& status) {
  if (status || std::exchange(warned_, true)) return;
  view_.warning(status.error().message + "; the run goes on, its record is incomplete");
}

}  // namespace mds::launcher
