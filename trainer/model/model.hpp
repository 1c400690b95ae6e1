// StageModel: the part of a transformer that one pipeline stage and one tensor rank hold, with explicit passes.
//
// Shapes: tokens and labels [micro_batch, seq] int64; hidden states are sequence-first, [seq / s, micro_batch, hidden]
// where s is the tensor size under sequence parallelism and 1 otherwise, in the compute dtype.
// forward() saves what backward() needs under the micro batch's slot; backward() frees it. Not thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "trainer/comm/communicator.hpp"
#include "trainer/config.hpp"
#include "trainer/model/parameter.hpp"

namespace mds::trainer {

struct MicroBatch {
  at::Tensor tokens;  ///< [micro_batch, seq] int64, on every stage
  at::Tensor labels;  ///< [micro_batch, seq] int64; -100 is ignored
};

struct StageOptions {
  at::ScalarType compute_dtype = at::kFloat;
  at::Device device = at::kCPU;
  int stage = 0;  ///< pipeline stage, 0-based
  int num_stages = 1;
  /// The output projection is padded to a multiple of so many rows. On GPUs it must be: with bf16 and a width that no 8
  /// divides, cuBLAS leaves the tensor cores (GPT-2's 50,257 columns take 7 times as long as 50,304).
  int64_t vocabulary_tile = 1;
};

class StageModel {
 public:
  /// Declares the parameters; their storage is bound later by the engine. `tensor` outlives the model.
  static std::unique_ptr<StageModel> make(const ModelConfig& model, const ParallelConfig& parallel, Recompute recompute,
                                          const StageOptions& options, Communicator& tensor);
  virtual ~StageModel() = default;

  virtual bool is_first() const = 0;
  virtual bool is_last() const = 0;
  /// Physical parameters in forward order; pointers stay valid for the model's life.
  virtual const std::vector<Parameter*>& parameters() = 0;

  /// First stage: `input` is undefined. Otherwise hidden states from the stage before.
  /// Returns hidden states; on the last stage the loss summed over tokens, divided by `loss_denominator` (scalar fp32
  /// or float64), equal on every tensor rank. `slot` identifies the micro batch in flight.
  virtual at::Tensor forward(int slot, const MicroBatch& batch, const at::Tensor& input, double loss_denominator) = 0;

  /// `grad_output` is undefined on the last stage, whose loss is multiplied by `loss_scale` first. Adds into the
  /// parameters' grad and returns the gradient of the input (undefined on the first stage). Frees the slot.
  virtual at::Tensor backward(int slot, const at::Tensor& grad_output, double loss_scale) = 0;

  /// Last stage, tests and generation: logits [micro_batch, seq, vocab], gathered over the tensor group; no slot.
  virtual at::Tensor logits(const MicroBatch& batch, const at::Tensor& input) = 0;
  /// Forward without saving anything, for evaluation; result as forward().
  virtual at::Tensor evaluate(const MicroBatch& batch, const at::Tensor& input, double loss_denominator) = 0;

  /// Shape of the hidden states between stages for a micro batch of this size.
  virtual std::vector<int64_t> hidden_shape(int64_t micro_batch, int64_t seq) const = 0;
};

/// Fills every bound parameter's value with initial weights that depend only on seed and logical names, never on the
/// layout: each logical tensor is drawn whole from its own generator and sliced.
void initialize(const std::vector<Parameter*>& parameters, const ModelConfig& model, uint64_t seed);

}  // namespace mds::trainer
