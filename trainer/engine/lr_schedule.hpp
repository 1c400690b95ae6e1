// The learning rate of a step: linear warm-up, then a decay to min_lr at the last step.
#pragma once

#include <cstdint>

#include "trainer/config.hpp"

namespace mds::trainer {

/// Rate of step `step` (1-based) out of `steps`. Step n <= warmup_steps has lr * n / warmup_steps; afterwards, with
/// x = (step - warmup_steps) / (steps - warmup_steps): cosine min + (lr - min) (1 + cos(pi x)) / 2 (Loshchilov and
/// Hutter, "SGDR"), linear lr + (min - lr) x, constant lr.
double learning_rate(double lr, const LrScheduleConfig& schedule, int64_t step, int64_t steps);

}  // namespace mds::trainer
