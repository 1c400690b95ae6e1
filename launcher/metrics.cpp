#include "launcher/metrics.hpp"

#include <cstdio>
#include <limits>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "launcher/supervisor.hpp"

namespace mds::launcher {

using nlohmann::json;

namespace {

template <typename T>
std::optional<T> number(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) return std::nullopt;
  if constexpr (std::is_floating_point_v<T>) {
    if (found->is_null()) return std::numeric_limits<T>::quiet_NaN();  // how JSON says NaN
  }
  if (!found->is_number()) return std::nullopt;
  return found->get<T>();
}

template <typename T>
void take(std::optional<T>& known, const std::optional<T>& news) {
  if (news) known = news;
}

std::string cell(const std::optional<double>& value) {
  if (!value) return ",";
  char text[40];
  std::snprintf(text, sizeof text, ",%.17g", *value);
  return text;
}

std::string cell(const std::optional<int64_t>& value) { return value ? "," + std::to_string(*value) : ","; }

}  // namespace

std::optional<double> StepMetrics::tokens_per_second() const {
  if (!tokens || !seconds || *seconds <= 0) return std::nullopt;
  return static_cast<double>(*tokens) / *seconds;
}

std::optional<StepMetrics> step_metrics_from_json(const json& progress, uint32_t attempt) {
  if (!progress.is_object()) return std::nullopt;
  const std::optional<int64_t> step = number<int64_t>(progress, "step");
  if (!step || *step < 0) return std::nullopt;
  StepMetrics m{.step = *step, .attempt = attempt};
  m.loss = number<double>(progress, "loss");
  m.validation_loss = number<double>(progress, "validation_loss");
  if (!m.loss && !m.validation_loss) return std::nullopt;
  m.lr = number<double>(progress, "lr");
  m.grad_norm = number<double>(progress, "grad_norm");
  m.tokens = number<int64_t>(progress, "tokens");
  m.seconds = number<double>(progress, "seconds");
  m.consumed_samples = number<int64_t>(progress, "consumed_samples");
  m.pipeline_bubble = number<double>(progress, "pipeline_bubble");
  return m;
}

void MetricsHistory::drop_from(int64_t step, uint32_t attempt) {
  for (auto it = steps_.lower_bound(step); it != steps_.end();) {
    it = it->second.attempt < attempt ? steps_.erase(it) : std::next(it);
  }
}

void MetricsHistory::add(const StepMetrics& m) {
  drop_from(m.step, m.attempt);
  StepMetrics& known = steps_[m.step];
  if (known.attempt > m.attempt) return;  // a straggler of an earlier attempt
  known.step = m.step;
  known.attempt = m.attempt;
  take(known.loss, m.loss);
  take(known.validation_loss, m.validation_loss);
  take(known.lr, m.lr);
  take(known.grad_norm, m.grad_norm);
  take(known.tokens, m.tokens);
  // A validation report's "seconds" is not the step's.
  if (m.loss) take(known.seconds, m.seconds);
  take(known.consumed_samples, m.consumed_samples);
  take(known.pipeline_bubble, m.pipeline_bubble);
}

void MetricsHistory::resume(uint32_t attempt, int64_t step) {
  drop_from(step + 1, attempt);
  if (attempt > kFirstAttempt) resumed_at_.push_back(step);
}

std::optional<double> MetricsHistory::last_loss() const {
  for (auto it = steps_.rbegin(); it != steps_.rend(); ++it) {
    if (it->second.loss) return it->second.loss;
  }
  return std::nullopt;
}

std::optional<double> MetricsHistory::last_validation_loss() const {
  for (auto it = steps_.rbegin(); it != steps_.rend(); ++it) {
    if (it->second.validation_loss) return it->second.validation_loss;
  }
  return std::nullopt;
}

std::string MetricsHistory::csv() const {
  std::string text =
      "step,attempt,loss,validation_loss,lr,grad_norm,tokens,seconds,consumed_samples,tokens_per_second,"
      "pipeline_bubble\n";
  for (const auto& [step, m] : steps_) {
    text += std::to_string(step) + "," + std::to_string(m.attempt) + cell(m.loss) + cell(m.validation_loss) +
            cell(m.lr) + cell(m.grad_norm) + cell(m.tokens) + cell(m.seconds) + cell(m.consumed_samples) +
            cell(m.tokens_per_second()) + cell(m.pipeline_bubble) + "\n";
  }
  return text;
}

}  // namespace mds::launcher
