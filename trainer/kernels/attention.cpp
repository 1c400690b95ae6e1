#include "trainer/kernels/attention.hpp"

#include <ATen/ATen.h>

#include <optional>

#include "trainer/kernels/ops.hpp"

namespace mds::trainer::kernels {
namespace {

enum class Variant { cpu_flash, cuda_cudnn, cuda_flash, cuda_efficient };

Variant choose(const AttentionInput& input) {
  const at::Tensor& q = input.query;
  if (!q.is_cuda()) return Variant::cpu_flash;
  const bool half = q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf;
  if (!half) return Variant::cuda_efficient;
  if (!at::globalContext().deterministicAlgorithms()) return Variant::cuda_cudnn;
  return input.bias.defined() ? Variant::cuda_efficient : Variant::cuda_flash;   // flash attention takes no bias
}

/// cuDNN and flash attention group queries themselves; the others want as many key heads as query heads.
bool groups_queries(Variant variant) { return variant == Variant::cuda_cudnn || variant == Variant::cuda_flash; }

at::Tensor repeat_heads(const at::Tensor& x, int64_t heads) {
  const int64_t group = heads / x.size(1);
  if (group == 1) return x;
  return x.unsqueeze(2).expand({x.size(0), x.size(1), group, x.size(2), x.size(3)}).flatten(1, 2);
}

at::Tensor sum_heads(const at::Tensor& grad, int64_t heads) {
  if (grad.size(1) == heads) return grad;
  return grad.unflatten(1, {heads, grad.size(1) / heads}).sum(2);
}

/// [batch, heads, seq, seq] without copying: every sample shares the bias.
std::optional<at::Tensor> batch_bias(const AttentionInput& input) {
  if (!input.bias.defined()) return std::nullopt;
  return input.bias.unsqueeze(0).expand({input.query.size(0), -1, -1, -1});
}

}  // namespace

at::ScalarType attention_bias_dtype(at::ScalarType compute_dtype, c10::DeviceType device) {
  return device == c10::DeviceType::CUDA ? compute_dtype : statistics_dtype(compute_dtype);
}

at::Tensor causal_attention(const AttentionInput& input, AttentionSaved& saved) {
  const at::Tensor& q = input.query;
  const Variant variant = choose(input);
  if (variant == Variant::cuda_cudnn) {
    auto r = at::_scaled_dot_product_cudnn_attention(q, input.key, input.value, batch_bias(input),
                                                     /*compute_log_sumexp=*/true, 0.0, /*is_causal=*/true,
                                                     /*return_debug_mask=*/false, input.scale);
    saved = {std::get<1>(r), std::get<6>(r), std::get<7>(r)};
    return std::get<0>(r);
  }
  if (variant == Variant::cuda_flash) {
    auto r = at::_scaled_dot_product_flash_attention(q, input.key, input.value, 0.0, /*is_causal=*/true,
                                                     /*return_debug_mask=*/false, input.scale);
    saved = {std::get<1>(r), std::get<6>(r), std::get<7>(r)};
    return std::get<0>(r);
  }
  const at::Tensor k = repeat_heads(input.key, q.size(1)), v = repeat_heads(input.value, q.size(1));
  if (variant == Variant::cuda_efficient) {
    auto [output, log_sum_exp, seed, offset] = at::_scaled_dot_product_efficient_attention(
        q, k, v, batch_bias(input), /*compute_log_sumexp=*/true, 0.0, /*is_causal=*/true, input.scale);
    saved = {log_sum_exp, seed, offset};
    return output;
  }
  auto [output, log_sum_exp] =
      at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, /*is_causal=*/true, batch_bias(input), input.scale);
  saved = {log_sum_exp, {}, {}};
  return output;
}

AttentionGradient causal_attention_backward(const at::Tensor& grad, const AttentionInput& input,
                                            const at::Tensor& output, const AttentionSaved& saved) {
  const at::Tensor& q = input.query;
  const int64_t seq = q.size(2), key_heads = input.key.size(1);
  const Variant variant = choose(input);
  const at::Tensor none;
  AttentionGradient result;
  if (groups_queries(variant)) {
    auto [dq, dk, dv] =
        variant == Variant::cuda_cudnn
            ? at::_scaled_dot_product_cudnn_attention_backward(
                  grad, q, input.key, input.value, output, saved.log_sum_exp, saved.philox_seed, saved.philox_offset,
                  batch_bias(input).value_or(none), none, none, seq, seq, 0.0, /*is_causal=*/true, input.scale)
            : at::_scaled_dot_product_flash_attention_backward(
                  grad, q, input.key, input.value, output, saved.log_sum_exp, none, none, seq, seq, 0.0,
                  /*is_causal=*/true, saved.philox_seed, saved.philox_offset, input.scale);
    return {dq, dk, dv};
  }
  const at::Tensor k = repeat_heads(input.key, q.size(1)), v = repeat_heads(input.value, q.size(1));
  if (variant == Variant::cuda_efficient) {
    auto [dq, dk, dv, dbias] = at::_scaled_dot_product_efficient_attention_backward(
        grad, q, k, v, batch_bias(input).value_or(none), output, saved.log_sum_exp, saved.philox_seed,
        saved.philox_offset, 0.0, {true, true, true, false}, /*is_causal=*/true, input.scale);
    result = {dq, dk, dv};
  } else {
    auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, output, saved.log_sum_exp, 0.0, /*is_causal=*/true, batch_bias(input), input.scale);
    result = {dq, dk, dv};
  }
  return {result.query, sum_heads(result.key, key_heads), sum_heads(result.value, key_heads)};
}

}  // namespace mds::trainer::kernels
