// Runs a stage's passes in schedule order and exchanges hidden states and their gradients with the neighbours.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/comm/communicator.hpp"
#include "trainer/engine/pipeline_schedule.hpp"
#include "trainer/engine/stage_clock.hpp"
#include "trainer/model/model.hpp"

namespace mds::trainer {

/// The micro batches of one step on this data-parallel rank; all of one shape, on the stage's device.
struct PipelineWork {
  const std::vector<MicroBatch>& batches;
  double loss_denominator = 1;      ///< label tokens of the global batch: gradients become those of the mean
  double loss_scale = 1;
  at::ScalarType hidden_dtype = at::kFloat;
};

/// Forward and backward of all micro batches; gradients are added into the parameters' grad. Returns the sum of the
/// losses on the last stage (0-dim, fp32 or float64), undefined elsewhere. Collective over `pipeline`. `clock` takes
/// the times of the passes.
at::Tensor run_pipeline(StageModel& model, Communicator& pipeline, const std::vector<PipelineOp>& ops,
                        const PipelineWork& work, StageClock& clock);

/// Forward alone, nothing saved; result as run_pipeline. Collective over `pipeline`.
at::Tensor evaluate_pipeline(StageModel& model, Communicator& pipeline, const PipelineWork& work);

}  // namespace mds::trainer
