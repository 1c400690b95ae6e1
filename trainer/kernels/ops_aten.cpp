#include <ATen/ATen.h>

#if __has_include(<ATen/ops/_fused_rms_norm_backward.h>)
#define MDS_ATEN_FUSES_RMS_NORM 1  // from PyTorch 2.9 on
#endif

#include <algorithm>
#include <array>
#include <cmath>

#include "trainer/kernels/ops.hpp"

namespace mds::trainer::kernels {
namespace {

/// fp32 and float64 are computed in place; narrower types go through an fp32 copy.
bool is_wide(const at::Tensor& x) { return x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble; }

at::Tensor widen(const at::Tensor& x) { return is_wide(x) ? x : x.to(at::kFloat); }

at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

// ---- norms ------------------------------------------------------------------------------------------------------

NormOutput rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
#ifdef MDS_ATEN_FUSES_RMS_NORM
  if (x.is_cuda()) {
    auto [y, rstd] = at::_fused_rms_norm(x, {x.size(-1)}, weight, eps);
    return {y, {{}, rstd}};
  }
#endif
  const at::Tensor wide = widen(x);
  const double n = static_cast<double>(x.size(-1));
  at::Tensor rstd = at::linalg_vector_norm(wide, 2, at::IntArrayRef{-1}, /*keepdim=*/true);
  rstd.square_().div_(n).add_(eps).rsqrt_();
  at::Tensor y = (wide * rstd).mul_(weight);
  return {y.to(x.scalar_type()), {{}, rstd}};
}

// With g = dy * weight and h = x * rstd: dx = rstd * (g - h * mean(g * h)), dweight = sum over rows of dy * h.
at::Tensor rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const NormStatistics& statistics,
                             const at::Tensor& weight, const at::Tensor& add, at::Tensor& weight_grad) {
#ifdef MDS_ATEN_FUSES_RMS_NORM
  if (x.is_cuda()) {
    auto [dx, dweight] = at::_fused_rms_norm_backward(dy, x, {x.size(-1)}, statistics.rstd, weight, {true, true});
    weight_grad.add_(dweight);
    return add.defined() ? dx.add_(add) : dx;
  }
#endif
  const double n = static_cast<double>(x.size(-1));
  const at::Tensor wide_weight = widen(weight);
  at::Tensor h = (widen(x) * statistics.rstd);
  const at::Tensor wide_dy = widen(dy);
  at::Tensor dy_h = wide_dy * h;
  weight_grad.add_(rows_of(dy_h).sum(0));
  const at::Tensor mean_gh = at::matmul(dy_h, wide_weight).unsqueeze(-1).div_(n);
  at::Tensor dx = (wide_dy * wide_weight).sub_(h.mul_(mean_gh)).mul_(statistics.rstd);
  if (add.defined()) dx.add_(add);
  return dx.to(x.scalar_type());
}

/// ATen's CPU kernel keeps the statistics of narrow inputs in fp32 only if the weights are fp32.
at::Tensor norm_weight(const at::Tensor& x, const at::Tensor& weight) { return x.is_cpu() ? widen(weight) : weight; }

NormOutput layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  auto [y, mean, rstd] = at::native_layer_norm(x, {x.size(-1)}, norm_weight(x, weight), norm_weight(x, bias), eps);
  return {y, {mean, rstd}};
}

at::Tensor layer_norm_backward(const at::Tensor& dy, const at::Tensor& x, const NormStatistics& statistics,
                               const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& add,
                               at::Tensor& weight_grad, at::Tensor& bias_grad) {
  auto [dx, dweight, dbias] =
      at::native_layer_norm_backward(dy, x, {x.size(-1)}, statistics.mean, statistics.rstd, norm_weight(x, weight),
                                     norm_weight(x, bias), {true, true, true});
  weight_grad.add_(dweight);
  bias_grad.add_(dbias);
  return add.defined() ? dx.add_(add) : dx;
}

// ---- rotary positions and activations ---------------------------------------------------------------------------

void rope(at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor c = cos.view({x.size(0), 1, 1, half});
  const at::Tensor s = sin.view({x.size(0), 1, 1, half});
  const double sign = inverse ? -1.0 : 1.0;
  at::Tensor first = x.narrow(-1, 0, half);
  at::Tensor second = x.narrow(-1, half, half);
  if (is_wide(x)) {
    const at::Tensor first_sin = first * s;
    first.mul_(c).addcmul_(second, s, -sign);
    second.mul_(c).add_(first_sin, sign);
    return;
  }
  const at::Tensor a = first.to(at::kFloat), b = second.to(at::kFloat);
  first.copy_((a * c).addcmul_(b, s, -sign));
  second.copy_((b * c).addcmul_(a, s, sign));
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  const int64_t f = gate_up.size(-1) / 2;
  return at::silu(gate_up.narrow(-1, 0, f)).mul_(gate_up.narrow(-1, f, f));
}

at::Tensor swiglu_backward(const at::Tensor& dy, const at::Tensor& gate_up) {
  const int64_t f = gate_up.size(-1) / 2;
  const at::Tensor gate = gate_up.narrow(-1, 0, f), up = gate_up.narrow(-1, f, f);
  at::Tensor grad = at::empty_like(gate_up);
  at::Tensor dgate = grad.narrow(-1, 0, f), dup = grad.narrow(-1, f, f);
  at::silu_backward_out(dgate, dy * up, gate);
  at::silu_out(dup, gate);
  dup.mul_(dy);
  return grad;
}

at::Tensor gelu(const at::Tensor& x) { return at::gelu(x, "tanh"); }
at::Tensor gelu_backward(const at::Tensor& dy, const at::Tensor& x) { return at::gelu_backward(dy, x, "tanh"); }

// ---- cross entropy ----------------------------------------------------------------------------------------------

/// Rows per chunk, so that the fp32 copy of a chunk of narrow logits stays near 64 MiB.
int64_t chunk_rows(const at::Tensor& logits) {
  return std::max<int64_t>(1, (int64_t{16} << 20) / std::max<int64_t>(1, logits.size(1)));
}

struct LocalLabels {
  at::Tensor column;  ///< [rows, 1] int64, clamped to this rank's columns
  at::Tensor mine;    ///< [rows, 1] bool: the label is one of this rank's columns
};

LocalLabels local_labels(const at::Tensor& labels, int64_t first_column, int64_t columns) {
  const at::Tensor column = (labels - first_column).unsqueeze(1);
  return {column.clamp(0, columns - 1), column.ge(0).logical_and_(column.lt(columns))};
}

at::Tensor cross_entropy_statistics(const at::Tensor& logits, const at::Tensor& labels, int64_t first_column) {
  const int64_t rows = logits.size(0);
  const at::ScalarType dtype = statistics_dtype(logits.scalar_type());
  at::Tensor statistics = at::empty({3, rows}, logits.options().dtype(dtype));
  const LocalLabels local = local_labels(labels, first_column, logits.size(1));
  statistics[2].copy_(logits.gather(1, local.column).masked_fill_(local.mine.logical_not(), 0).squeeze(1));
  for (int64_t begin = 0; begin < rows; begin += chunk_rows(logits)) {
    const int64_t n = std::min(chunk_rows(logits), rows - begin);
    const at::Tensor chunk = widen(logits.narrow(0, begin, n));
    const at::Tensor max = chunk.amax(1, /*keepdim=*/true);
    statistics[0].narrow(0, begin, n).copy_(max.squeeze(1));
    statistics[1].narrow(0, begin, n).copy_((chunk - max).exp_().sum(1));
  }
  return statistics;
}

void cross_entropy_backward(at::Tensor& logits, const at::Tensor& labels, const at::Tensor& log_sum_exp,
                            int64_t first_column, double scale) {
  const int64_t rows = logits.size(0);
  const at::Tensor row_scale = labels.ge(0).to(log_sum_exp.scalar_type()).mul_(scale).unsqueeze(1);
  const LocalLabels local = local_labels(labels, first_column, logits.size(1));
  const at::Tensor minus_one = local.mine.to(log_sum_exp.scalar_type()).neg_();
  for (int64_t begin = 0; begin < rows; begin += chunk_rows(logits)) {
    const int64_t n = std::min(chunk_rows(logits), rows - begin);
    at::Tensor target = logits.narrow(0, begin, n);
    at::Tensor chunk = widen(target);  // the logits themselves if they are wide
    chunk.sub_(log_sum_exp.narrow(0, begin, n).unsqueeze(1)).exp_();
    chunk.scatter_add_(1, local.column.narrow(0, begin, n), minus_one.narrow(0, begin, n));
    chunk.mul_(row_scale.narrow(0, begin, n));
    if (!is_wide(target)) target.copy_(chunk);
  }
}

// ---- optimizer --------------------------------------------------------------------------------------------------

void adamw(at::Tensor& master, at::Tensor& exp_avg, at::Tensor& exp_avg_sq, const at::Tensor& grad, at::Tensor& value,
           const AdamWStep& s) {
  const at::Tensor g = s.grad_scale == 1 ? grad : grad * s.grad_scale;
  const double correction1 = 1 - std::pow(s.beta1, static_cast<double>(s.step));
  const double correction2 = 1 - std::pow(s.beta2, static_cast<double>(s.step));
  exp_avg.mul_(s.beta1).add_(g, 1 - s.beta1);
  exp_avg_sq.mul_(s.beta2).addcmul_(g, g, 1 - s.beta2);
  master.mul_(1 - s.lr * s.weight_decay);
  const at::Tensor denominator = exp_avg_sq.sqrt().div_(std::sqrt(correction2)).add_(s.eps);
  master.addcdiv_(exp_avg, denominator, -s.lr / correction1);
  if (value.defined()) value.copy_(master);
}

constexpr KernelTable kAten{rms_norm,
                            rms_norm_backward,
                            layer_norm,
                            layer_norm_backward,
                            rope,
                            swiglu,
                            swiglu_backward,
                            gelu,
                            gelu_backward,
                            cross_entropy_statistics,
                            cross_entropy_backward,
                            adamw};

}  // namespace

const KernelTable& aten_table() { return kAten; }

KernelTable& table(c10::DeviceType device) {
  static KernelTable cpu = kAten;
  static KernelTable cuda = kAten;
  return device == c10::DeviceType::CUDA ? cuda : cpu;
}

}  // namespace mds::trainer::kernels
