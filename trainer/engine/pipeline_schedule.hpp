// In which order one pipeline stage does its forward and backward passes. Pure.
#pragma once

#include <vector>

#include "trainer/config.hpp"

namespace mds::trainer {

struct PipelineOp {
  enum class Kind { forward, backward } kind = Kind::forward;
  int micro_batch = 0;
  bool operator==(const PipelineOp&) const = default;
};

/// gpipe: all forwards, then all backwards (Huang et al., "GPipe"). one_f_one_b: num_stages - stage - 1 forwards to
/// fill the pipeline, then alternating, so that at most num_stages - stage micro batches are in flight (Narayanan et
/// al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM"). Any number of micro
/// batches. Both do the backwards in the order of the micro batches, so gradients are summed alike.
std::vector<PipelineOp> pipeline_schedule(Schedule schedule, int stage, int num_stages, int micro_batches);

}  // namespace mds::trainer
