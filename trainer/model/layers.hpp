// The layers that transformers are made of, with explicit passes. None keeps activations: what backward needs is
// passed in, so that recomputation and pipeline schedules are the caller's choice.
//
// Tensor parallelism (Shoeybi et al., "Megatron-LM") and sequence parallelism (Korthikanti et al., "Reducing Activation
// Recomputation") live in TensorRegion alone: between gather() and reduce() hidden states are whole and each tensor
// rank works on its share of heads, hidden units or vocabulary. Linear layers themselves know nothing of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "trainer/comm/communicator.hpp"
#include "trainer/kernels/ops.hpp"
#include "trainer/model/parameter.hpp"
#include "trainer/model/parameter_set.hpp"

namespace mds::trainer {

/// The way into and out of the part of a layer that tensor ranks share. gather() and reduce() are each other's
/// backward.
class TensorRegion {
 public:
  /// `group` outlives the region.
  TensorRegion(Communicator& group, bool sequence_parallel)
      : group_(&group), sequence_parallel_(sequence_parallel && group.size() > 1) {}

  /// Sequence parallel: all-gathers x [seq / t, batch, n] to [seq, batch, n]; otherwise x itself.
  at::Tensor gather(const at::Tensor& x) const;
  /// Sums partial results over the ranks. Sequence parallel: reduce-scatters [seq, batch, n] to this rank's
  /// [seq / t, batch, n]; otherwise all-reduces in place and returns x.
  at::Tensor reduce(at::Tensor x) const;

  bool sequence_parallel() const { return sequence_parallel_; }
  /// Number of parts that the sequence is in outside of the region.
  int sequence_parts() const { return sequence_parallel_ ? group_->size() : 1; }
  Communicator& group() const { return *group_; }

 private:
  Communicator* group_;
  bool sequence_parallel_;
};

/// y = x weight^T (+ bias), weight [out, in]; `out` counts the weight's rows of padding, whose dy must be 0.
class Linear {
 public:
  explicit Linear(Parameter* weight, Parameter* bias = nullptr) : weight_(weight), bias_(bias) {}

  at::Tensor forward(const at::Tensor& x) const;  ///< [..., in] -> [..., out]
  at::Tensor backward_input(const at::Tensor& dy) const;
  void backward_weight(const at::Tensor& dy, const at::Tensor& x) const;  ///< bias, too

 private:
  Parameter* weight_;
  Parameter* bias_;
};

/// Adds dy^T x to grad, in grad's dtype: what every weight gradient comes down to. dy [rows, out], x [rows, in].
void accumulate_product(at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x);

/// The bias of a row-parallel layer, added once, after the reduction.
class Bias {
 public:
  explicit Bias(Parameter* bias) : bias_(bias) {}  ///< nullptr: no bias
  void forward(at::Tensor& y) const;               ///< in place
  void backward_weight(const at::Tensor& dy) const;

 private:
  Parameter* bias_;
};

/// LayerNorm if it has a bias, else RMSNorm.
class Norm {
 public:
  Norm(Parameter* weight, Parameter* bias, double eps) : weight_(weight), bias_(bias), eps_(eps) {}

  kernels::NormOutput forward(const at::Tensor& x) const;
  /// Returns dx (+ `add`, if defined) and adds the weights' gradients: one pass over memory yields both.
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& x, const kernels::NormStatistics& statistics,
                      const at::Tensor& add) const;

 private:
  Parameter* weight_;
  Parameter* bias_;
  double eps_;
};

/// Word embedding split over the vocabulary: each rank looks up its rows, and the sum over the ranks is the embedding.
class VocabularyEmbedding {
 public:
  VocabularyEmbedding(Parameter* weight, const TensorRegion& region)
      : weight_(weight), region_(region), first_row_(weight->slices.front().global_offset[0]) {}

  at::Tensor forward(const at::Tensor& tokens) const;  ///< [seq, batch] -> [seq / s, batch, hidden]
  void backward_weight(const at::Tensor& dy, const at::Tensor& tokens) const;

 private:
  Parameter* weight_;
  TensorRegion region_;
  int64_t first_row_;
};

/// Learned absolute positions (GPT), added to this rank's part of the sequence.
class PositionEmbedding {
 public:
  PositionEmbedding(Parameter* weight, const TensorRegion& region) : weight_(weight), region_(region) {}

  void forward(at::Tensor& hidden) const;  ///< [seq / s, batch, hidden], in place
  void backward_weight(const at::Tensor& dy) const;

 private:
  Range local_positions(int64_t count) const;
  Parameter* weight_;
  TensorRegion region_;
};

}  // namespace mds::trainer
