// DecoderLayer: x + attention(norm(x)), then x + feed_forward(norm(x)), and the two blocks that it is made of.
//
// Saved structs hold what backward needs. Under selective recomputation the outputs of norms and activations are
// dropped and made again (memory-bound and cheap); under full recomputation only the layer's input stays.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "trainer/config.hpp"
#include "trainer/kernels/attention.hpp"
#include "trainer/model/layers.hpp"
#include "trainer/model/positions.hpp"

namespace mds::trainer {

/// Causal self-attention with grouped queries; heads are split over the tensor ranks.
class SelfAttention {
 public:
  struct Saved {
    at::Tensor input;    ///< [seq / s, batch, hidden], normed; dropped under selective recomputation
    at::Tensor qkv;      ///< [seq, batch, (heads + 2 key heads) head_dim], local heads, after RoPE
    at::Tensor context;  ///< [seq, batch, heads head_dim]
    kernels::AttentionSaved core;
  };

  SelfAttention(const ModelConfig& model, const std::string& layer, const TensorRegion& region,
                ParameterSet& parameters);

  at::Tensor forward(const at::Tensor& x, const PositionTables& positions, Saved& saved) const;
  at::Tensor backward(const at::Tensor& dy, const PositionTables& positions, Saved& saved) const;

 private:
  kernels::AttentionInput split(const at::Tensor& qkv, const PositionTables& positions) const;
  void rotate(at::Tensor& qkv, const PositionTables& positions, bool inverse) const;

  TensorRegion region_;
  int64_t heads_, key_heads_;  ///< of this rank
  int64_t head_dim_;
  Linear qkv_;
  Linear output_;
  Bias output_bias_;
};

/// SwiGLU (LLaMA) or GELU (GPT-3, BLOOM); intermediate units are split over the tensor ranks.
class FeedForward {
 public:
  struct Saved {
    at::Tensor input;       ///< [seq / s, batch, hidden], normed; dropped under selective recomputation
    at::Tensor up;          ///< [seq, batch, intermediate], or gate and up side by side
    at::Tensor activation;  ///< [seq, batch, intermediate]; dropped under selective recomputation
  };

  FeedForward(const ModelConfig& model, const std::string& layer, const TensorRegion& region, ParameterSet& parameters);

  at::Tensor forward(const at::Tensor& x, Saved& saved) const;
  at::Tensor backward(const at::Tensor& dy, Saved& saved) const;

 private:
  at::Tensor activate(const at::Tensor& up) const;

  TensorRegion region_;
  bool swiglu_;
  Linear up_;
  Linear down_;
  Bias down_bias_;
};

class DecoderLayer {
 public:
  struct Saved {
    at::Tensor input;  ///< the residual stream as it enters
    kernels::NormStatistics attention_norm;
    SelfAttention::Saved attention;
    at::Tensor middle;  ///< the residual stream between the blocks
    kernels::NormStatistics feed_forward_norm;
    FeedForward::Saved feed_forward;
  };

  /// `index` counts from the model's first layer.
  DecoderLayer(const ModelConfig& model, int64_t index, Recompute recompute, const TensorRegion& region,
               ParameterSet& parameters);

  at::Tensor forward(const at::Tensor& x, const PositionTables& positions, Saved& saved) const;
  /// Returns dx. `saved` is used up.
  at::Tensor backward(const at::Tensor& dy, const PositionTables& positions, Saved& saved) const;

 private:
  at::Tensor run(const at::Tensor& x, const PositionTables& positions, Saved& saved) const;
  void drop(Saved& saved) const;
  void restore(const PositionTables& positions, Saved& saved) const;

  Recompute recompute_;
  // In the order of the forward pass, which is that of the parameters.
  Norm attention_norm_;
  SelfAttention attention_;
  Norm feed_forward_norm_;
  FeedForward feed_forward_;
};

/// Declares a norm of the model's kind: LayerNorm with bias, or RMSNorm for LLaMA.
Norm make_norm(const ModelConfig& model, const std::string& name, ParameterSet& parameters);

}  // namespace mds::trainer
