#include "trainer/engine/lr_schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mds::trainer {

double learning_rate(double lr, const LrScheduleConfig& schedule, int64_t step, int64_t steps) {
  const int64_t warmup = schedule.warmup_steps;
  if (step <= warmup) return lr * static_cast<double>(step) / static_cast<double>(warmup);
  const double decay_steps = static_cast<double>(std::max<int64_t>(steps - warmup, 1));
  const double x = std::min(1.0, static_cast<double>(step - warmup) / decay_steps);
  const double min_lr = schedule.min_lr;
  if (schedule.decay == "cosine") return min_lr + (lr - min_lr) * (1 + std::cos(std::numbers::pi * x)) / 2;
  if (schedule.decay == "linear") return lr + (min_lr - lr) * x;
  return lr;
}

}  // namespace mds::trainer
