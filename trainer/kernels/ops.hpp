// The operations whose cost is memory traffic, behind one table per kind of device.
//
// Every entry starts as its twin in ATen operations (ops_aten.cpp), which runs on any device and is the reference of
// the tests. A plug-in with fused kernels replaces entries of the CUDA table before the first model is made; after
// that the tables are read-only, and every function here may be called from any thread.
//
// Tensors are contiguous unless said otherwise. "rows" stands for all leading dimensions: x is [..., n] with rows = the
// number of vectors of n. Statistics are in the statistics dtype: float64 for float64 inputs, otherwise fp32.
// Weight gradients are in the accumulation dtype and are added to.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

namespace mds::trainer::kernels {

/// What a norm's backward needs besides its input, one value per row.
struct NormStatistics {
  at::Tensor mean;  ///< undefined for RMSNorm
  at::Tensor rstd;  ///< 1 / sqrt(variance + eps), or 1 / sqrt(mean square + eps)
};

struct NormOutput {
  at::Tensor y;  ///< like x
  NormStatistics statistics;
};

struct AdamWStep {
  double lr = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0;
  double grad_scale = 1;  ///< multiplied to the gradient first (clipping, loss scale)
  int64_t step = 1;       ///< 1-based, for the bias correction
};

struct KernelTable {
  /// y = x * rstd * weight. Zhang and Sennrich, "Root Mean Square Layer Normalization".
  NormOutput (*rms_norm)(const at::Tensor& x, const at::Tensor& weight, double eps);
  /// Returns dx (+ `add`, if defined: the residual stream's gradient) and adds into weight_grad.
  at::Tensor (*rms_norm_backward)(const at::Tensor& dy, const at::Tensor& x, const NormStatistics& statistics,
                                  const at::Tensor& weight, const at::Tensor& add, at::Tensor& weight_grad);

  /// y = (x - mean) * rstd * weight + bias.
  NormOutput (*layer_norm)(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);
  at::Tensor (*layer_norm_backward)(const at::Tensor& dy, const at::Tensor& x, const NormStatistics& statistics,
                                    const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& add,
                                    at::Tensor& weight_grad, at::Tensor& bias_grad);

  /// Rotates, in place, x [seq, batch, heads, head_dim] (a view; only the last dimension must be contiguous) by cos and
  /// sin [seq, head_dim / 2] in the statistics dtype; element i is paired with i + head_dim / 2 (GPT-NeoX, Hugging
  /// Face's rotate_half). `inverse` rotates back, which is also the backward pass.
  void (*rope)(at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse);

  /// gate_up [..., 2 f] holds gate, then up; returns silu(gate) * up, [..., f]. Shazeer, "GLU Variants".
  at::Tensor (*swiglu)(const at::Tensor& gate_up);
  at::Tensor (*swiglu_backward)(const at::Tensor& dy, const at::Tensor& gate_up);  ///< [..., 2 f]
  /// The tanh approximation that GPT-2 and BLOOM were trained with.
  at::Tensor (*gelu)(const at::Tensor& x);
  at::Tensor (*gelu_backward)(const at::Tensor& dy, const at::Tensor& x);

  /// One pass over this rank's columns of the logits [rows, columns]: [3, rows] of the row's maximum, sum of
  /// exp(logit - maximum), and the label's logit (0 where labels[row] - first_column is not one of these columns).
  at::Tensor (*cross_entropy_statistics)(const at::Tensor& logits, const at::Tensor& labels, int64_t first_column);
  /// In place: logits become scale * (softmax - onehot(label)), and 0 in rows whose label is negative. `log_sum_exp`
  /// [rows] is that of the whole vocabulary.
  void (*cross_entropy_backward)(at::Tensor& logits, const at::Tensor& labels, const at::Tensor& log_sum_exp,
                                 int64_t first_column, double scale);

  /// Decoupled weight decay (Loshchilov and Hutter), in place on flat tensors of one size: master, both moments and
  /// gradient in fp32 (or float64). If `value` is defined it gets the new master in its own dtype.
  void (*adamw)(at::Tensor& master, at::Tensor& exp_avg, at::Tensor& exp_avg_sq, const at::Tensor& grad,
                at::Tensor& value, const AdamWStep& step);
};

/// The table for tensors on this kind of device. A plug-in writes its entries here once, at start.
KernelTable& table(c10::DeviceType device);

/// The twins themselves, which tests compare a plug-in's entries with.
const KernelTable& aten_table();

inline const KernelTable& table_for(const at::Tensor& x) { return table(x.device().type()); }

/// fp32, or float64 for float64.
inline at::ScalarType statistics_dtype(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

}  // namespace mds::trainer::kernels
