#include "trainer/engine/pipeline_schedule.hpp"

#include <algorithm>

namespace mds::trainer {

std::vector<PipelineOp> pipeline_schedule(Schedule schedule, int stage, int num_stages, int micro_batches) {
  using Kind = PipelineOp::Kind;
  const int in_flight_max = schedule == Schedule::gpipe ? micro_batches : num_stages - stage;
  std::vector<PipelineOp> ops;
  int forward = 0;
  for (; forward < std::min(in_flight_max, micro_batches); ++forward) ops.push_back({Kind::forward, forward});
  for (int backward = 0; backward < micro_batches; ++backward) {
    ops.push_back({Kind::backward, backward});
    if (forward < micro_batches) ops.push_back({Kind::forward, forward++});
  }
  return ops;
}

}  // namespace mds::trainer
