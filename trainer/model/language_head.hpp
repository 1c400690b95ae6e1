// LanguageHead: final norm, logits over this rank's part of the vocabulary, and their cross entropy.
//
// Logits are never gathered for the loss: ranks exchange three numbers per token. Backward turns the buffer of logits
// into their gradient in place, so that one [tokens, vocabulary / t] tensor in the compute dtype is all that lives.
//
// The weight's rows of padding give logits of minus infinity: they weigh nothing, and their gradient is 0.
#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/config.hpp"
#include "trainer/model/layers.hpp"

namespace mds::trainer {

class LanguageHead {
 public:
  struct Saved {
    at::Tensor input;  ///< [seq / s, batch, hidden]
    kernels::NormStatistics norm;
    at::Tensor normed;
    at::Tensor logits;       ///< [seq x batch, local vocabulary + padding]
    at::Tensor labels;       ///< [seq x batch], those of other ranks behind the padding
    at::Tensor log_sum_exp;  ///< [seq x batch], over the whole vocabulary
  };

  /// `weight` [local vocabulary, hidden]: the word embedding if tied.
  LanguageHead(const Norm& norm, Parameter* weight, const TensorRegion& region);

  /// Sum over tokens with label >= 0 of the cross entropy / denominator: a scalar in the statistics dtype, equal on
  /// every tensor rank. labels [seq, batch].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& labels, double denominator, Saved& saved) const;
  /// `scale`: gradient of one token's cross entropy. Returns dx.
  at::Tensor backward(double scale, Saved& saved) const;
  /// [seq, batch, vocabulary], gathered over the tensor ranks.
  at::Tensor logits(const at::Tensor& x) const;

 private:
  at::Tensor out_of_padding(const at::Tensor& labels) const;
  at::Tensor exchange_statistics(at::Tensor statistics, at::Tensor& target) const;

  Norm norm_;
  Linear linear_;
  TensorRegion region_;
  int64_t first_column_;
  int64_t columns_;       ///< without padding
  int64_t padding_;
  int64_t vocabulary_;
};

}  // namespace mds::trainer
