#include "launcher/run_curves.hpp"

#include <nlohmann/json.hpp>

namespace mds::launcher {

void RunCurves::Curve::add(int64_t step, double value) {
  if (count++ % stride == 0) points.push_back({step, value});
  if (points.size() < kPointsMax) return;
  size_t kept = 0;
  for (size_t i = 0; i < points.size(); i += 2) points[kept++] = points[i];
  points.resize(kept);
  stride *= 2;
}

void RunCurves::Curve::drop_from(int64_t step) {
  while (!points.empty() && points.back().step >= step) points.pop_back();
}

void RunCurves::add(const StepMetrics& m) {
  if (m.attempt < attempt_) return;  // a straggler
  if (m.attempt > attempt_) {
    if (attempt_ > 0) restarts_.push_back(m.step);
    attempt_ = m.attempt;
    for (Curve* curve : {&loss_, &validation_loss_, &tokens_per_second_}) curve->drop_from(m.step);
  }
  if (m.loss) loss_.add(m.step, *m.loss);
  if (m.validation_loss) validation_loss_.add(m.step, *m.validation_loss);
  if (const auto speed = m.loss ? m.tokens_per_second() : std::nullopt) tokens_per_second_.add(m.step, *speed);
}

nlohmann::json RunCurves::to_json() const {
  const auto list = [](const Curve& curve) {
    nlohmann::json out = nlohmann::json::array();
    for (const Point& point : curve.points) out.push_back({point.step, point.value});
    return out;
  };
  return {{"loss", list(loss_)},
          {"validation_loss", list(validation_loss_)},
          {"tokens_per_second", list(tokens_per_second_)},
          {"restarts", restarts_}};
}

}  // namespace mds::launcher
