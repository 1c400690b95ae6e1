// Launchers of the fused CUDA kernels, on raw device pointers, so that nvcc never sees LibTorch's headers.
//
// Every launcher enqueues on `stream` and returns at once; a launch that fails is reported by the CUDA error state,
// which the caller checks (trainer/cuda/ops_cuda.cpp). Arithmetic is in fp32 whatever the element type, reductions are
// in a fixed order, so results do not change from run to run. Row-major; "rows" x "n" elements.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace mds::trainer::cuda {

enum class Element { f32, bf16 };

/// y = x * rstd * weight, rstd[rows] = 1 / sqrt(mean(x^2) + eps).
void rms_norm(Element type, const void* x, const void* weight, void* y, float* rstd, int64_t rows, int64_t n, float eps,
              cudaStream_t stream);

/// Blocks of the grid of rms_norm_backward, which is also the number of rows of its scratch.
int rms_norm_backward_blocks(int64_t rows, int multiprocessors);

/// dx = rstd * (dy * weight - h * mean(dy * weight * h)) + add with h = x * rstd; `add` may be null. weight_grad[n] +=
/// sum over rows of dy * h, by way of `scratch` [blocks, n] fp32. Requires 4 n bytes of shared memory (n <= 32768).
void rms_norm_backward(Element type, const void* dy, const void* x, const float* rstd, const void* weight,
                       const void* add, void* dx, float* scratch, float* weight_grad, int64_t rows, int64_t n,
                       int blocks, cudaStream_t stream);

/// In place on x[seq, batch, heads, 2 half] with strides in elements; cos and sin are [seq, half] fp32.
struct RopeShape {
  int64_t seq, batch, heads, half;
  int64_t stride_seq, stride_batch, stride_head;
};
void rope(Element type, void* x, const float* cos, const float* sin, const RopeShape& shape, bool inverse,
          cudaStream_t stream);

/// gate_up [rows, 2 n] -> y [rows, n].
void swiglu(Element type, const void* gate_up, void* y, int64_t rows, int64_t n, cudaStream_t stream);
/// dy [rows, n] -> grad [rows, 2 n].
void swiglu_backward(Element type, const void* dy, const void* gate_up, void* grad, int64_t rows, int64_t n,
                     cudaStream_t stream);

/// statistics [3, rows]: maximum, sum of exp(logit - maximum), the label's logit or 0.
void cross_entropy_statistics(Element type, const void* logits, const int64_t* labels, float* statistics, int64_t rows,
                              int64_t columns, int64_t first_column, cudaStream_t stream);
/// logits = scale * (exp(logits - log_sum_exp) - onehot(label)), 0 in rows whose label is negative.
void cross_entropy_backward(Element type, void* logits, const int64_t* labels, const float* log_sum_exp, int64_t rows,
                            int64_t columns, int64_t first_column, float scale, cudaStream_t stream);

struct AdamW {
  float lr, beta1, beta2, eps, weight_decay, grad_scale;
  float correction1, sqrt_correction2;      ///< 1 - beta1^step, sqrt(1 - beta2^step)
};
/// In place; `value` may be null, otherwise it gets the new master as `value_type`.
void adamw(float* master, float* exp_avg, float* exp_avg_sq, const float* grad, Element value_type, void* value,
           int64_t n, const AdamW& step, cudaStream_t stream);

}  // namespace mds::trainer::cuda
