// The curves of a run for the web page: few enough points for a screen, however many steps there are. O(1) a step.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "launcher/metrics.hpp"

namespace mds::launcher {

class RunCurves {
 public:
  static constexpr size_t kPointsMax = 2000;  ///< of a curve; beyond, every second one is left out

  void add(const StepMetrics& metrics);

  /// {loss: [[step, value]], validation_loss: ..., tokens_per_second: ..., restarts: [step]}; NaN is null.
  nlohmann::json to_json() const;

 private:
  struct Point {
    int64_t step;
    double value;
  };
  struct Curve {
    std::vector<Point> points;
    int64_t stride = 1;
    int64_t count = 0;
    void add(int64_t step, double value);
    void drop_from(int64_t step);
  };
  Curve loss_, validation_loss_, tokens_per_second_;
  std::vector<int64_t> restarts_;  ///< the first steps of later attempts
  uint32_t attempt_ = 0;
};

}  // namespace mds::launcher
