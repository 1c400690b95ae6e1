// The core of attention, softmax(scale * q k^T + bias, causal) v, by ATen's fused operations and their own backward:
// no matrix of scores is ever kept.
//
//   device and dtype                  operation (ATen 2.11)
//   CPU                               _scaled_dot_product_flash_attention_for_cpu
//   CUDA bf16/fp16, no bias           _scaled_dot_product_cudnn_attention; under deterministic algorithms, whose cuDNN
//                                     backward is not, _scaled_dot_product_flash_attention
//   CUDA, bias or fp32                _scaled_dot_product_efficient_attention
//   CUDA float64                      not supported (tests in float64 run on the CPU)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mds::trainer::kernels {

/// Views [batch, heads, seq, head_dim]; only the last dimension must be contiguous. Keys and values may have fewer
/// heads than the queries (grouped-query attention): query head i uses key head i / (heads / key heads).
struct AttentionInput {
  at::Tensor query, key, value;
  at::Tensor bias;  ///< undefined, or [heads, seq, seq] added to the scores (ALiBi); gets no gradient
  double scale = 1;
};

/// What backward needs besides the input and the output.
struct AttentionSaved {
  at::Tensor log_sum_exp;
  at::Tensor philox_seed, philox_offset;  ///< of a dropout that is never used; CUDA operations want them back
};

struct AttentionGradient {
  at::Tensor query, key, value;  ///< shapes of the input; any strides
};

/// [batch, heads, seq, head_dim], any strides. `saved` is filled.
at::Tensor causal_attention(const AttentionInput& input, AttentionSaved& saved);

/// `output` is what causal_attention returned (any strides), `grad` is its gradient.
AttentionGradient causal_attention_backward(const at::Tensor& grad, const AttentionInput& input,
                                            const at::Tensor& output, const AttentionSaved& saved);

/// The dtype in which a bias for inputs of this dtype and device must be.
at::ScalarType attention_bias_dtype(at::ScalarType compute_dtype, c10::DeviceType device);

}  // namespace mds::trainer::kernels
