#include "trainer/cuda/ops_cuda.hpp"

#include <cmath>
#include <optional>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>

#include "trainer/cuda/kernels.hpp"

namespace mds::trainer::cuda {
namespace {

using kernels::AdamWStep;
using kernels::aten_table;
using kernels::NormOutput;
using kernels::NormStatistics;

/// The kernels' name of the dtype, or nothing if only the ATen twin serves it.
std::optional<Element> element(const at::Tensor& x) {
  if (x.scalar_type() == at::kFloat) return Element::f32;
  if (x.scalar_type() == at::kBFloat16) return Element::bf16;
  return std::nullopt;
}

cudaStream_t stream() { return at::cuda::getCurrentCUDAStream().stream(); }
int64_t rows_of(const at::Tensor& x) { return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1); }
const int64_t* labels_of(const at::Tensor& labels) { return labels.const_data_ptr<int64_t>(); }
void* optional_data(const at::Tensor& x) { return x.defined() ? x.mutable_data_ptr() : nullptr; }

NormOutput rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto type = element(x);
  if (!type || weight.scalar_type() != x.scalar_type()) return aten_table().rms_norm(x, weight, eps);
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = 1;
  NormOutput out{at::empty_like(x), {{}, at::empty(shape, x.options().dtype(at::kFloat))}};
  rms_norm(*type, x.const_data_ptr(), weight.const_data_ptr(), out.y.mutable_data_ptr(),
           out.statistics.rstd.mutable_data_ptr<float>(), rows_of(x), x.size(-1), static_cast<float>(eps), stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

at::Tensor rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const NormStatistics& statistics,
                             const at::Tensor& weight, const at::Tensor& add, at::Tensor& weight_grad) {
  constexpr int64_t kWidthMax = 32768;      // the weight's gradient is summed in shared memory
  const auto type = element(x);
  if (!type || weight.scalar_type() != x.scalar_type() || weight_grad.scalar_type() != at::kFloat ||
      x.size(-1) > kWidthMax) {
    return aten_table().rms_norm_backward(dy, x, statistics, weight, add, weight_grad);
  }
  at::Tensor dx = at::empty_like(x);
  const int blocks = rms_norm_backward_blocks(rows_of(x), at::cuda::getCurrentDeviceProperties()->multiProcessorCount);
  at::Tensor scratch = at::empty({blocks, x.size(-1)}, x.options().dtype(at::kFloat));
  rms_norm_backward(*type, dy.const_data_ptr(), x.const_data_ptr(), statistics.rstd.const_data_ptr<float>(),
                    weight.const_data_ptr(), optional_data(add), dx.mutable_data_ptr(),
                    scratch.mutable_data_ptr<float>(), weight_grad.mutable_data_ptr<float>(), rows_of(x), x.size(-1),
                    blocks, stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return dx;
}

void rope(at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  const auto type = element(x);
  if (!type) return aten_table().rope(x, cos, sin, inverse);
  const RopeShape shape{x.size(0), x.size(1), x.size(2), x.size(3) / 2, x.stride(0), x.stride(1), x.stride(2)};
  rope(*type, x.mutable_data_ptr(), cos.const_data_ptr<float>(), sin.const_data_ptr<float>(), shape, inverse, stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  const auto type = element(gate_up);
  if (!type) return aten_table().swiglu(gate_up);
  std::vector<int64_t> shape(gate_up.sizes().begin(), gate_up.sizes().end());
  shape.back() /= 2;
  at::Tensor y = at::empty(shape, gate_up.options());
  swiglu(*type, gate_up.const_data_ptr(), y.mutable_data_ptr(), rows_of(gate_up), shape.back(), stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return y;
}

at::Tensor swiglu_backward(const at::Tensor& dy, const at::Tensor& gate_up) {
  const auto type = element(gate_up);
  if (!type) return aten_table().swiglu_backward(dy, gate_up);
  at::Tensor grad = at::empty_like(gate_up);
  swiglu_backward(*type, dy.const_data_ptr(), gate_up.const_data_ptr(), grad.mutable_data_ptr(), rows_of(gate_up),
                  gate_up.size(-1) / 2, stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return grad;
}

at::Tensor cross_entropy_statistics(const at::Tensor& logits, const at::Tensor& labels, int64_t first_column) {
  const auto type = element(logits);
  if (!type) return aten_table().cross_entropy_statistics(logits, labels, first_column);
  at::Tensor statistics = at::empty({3, logits.size(0)}, logits.options().dtype(at::kFloat));
  cross_entropy_statistics(*type, logits.const_data_ptr(), labels_of(labels), statistics.mutable_data_ptr<float>(),
                           logits.size(0), logits.size(1), first_column, stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return statistics;
}

void cross_entropy_backward(at::Tensor& logits, const at::Tensor& labels, const at::Tensor& log_sum_exp,
                            int64_t first_column, double scale) {
  const auto type = element(logits);
  if (!type) return aten_table().cross_entropy_backward(logits, labels, log_sum_exp, first_column, scale);
  cross_entropy_backward(*type, logits.mutable_data_ptr(), labels_of(labels), log_sum_exp.const_data_ptr<float>(),
                         logits.size(0), logits.size(1), first_column, static_cast<float>(scale), stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

void adamw(at::Tensor& master, at::Tensor& exp_avg, at::Tensor& exp_avg_sq, const at::Tensor& grad, at::Tensor& value,
           const AdamWStep& s) {
  const auto type = value.defined() ? element(value) : Element::f32;
  if (!type || master.scalar_type() != at::kFloat || grad.scalar_type() != at::kFloat) {
    return aten_table().adamw(master, exp_avg, exp_avg_sq, grad, value, s);
  }
  const AdamW step{static_cast<float>(s.lr),
                   static_cast<float>(s.beta1),
                   static_cast<float>(s.beta2),
                   static_cast<float>(s.eps),
                   static_cast<float>(s.weight_decay),
                   static_cast<float>(s.grad_scale),
                   static_cast<float>(1 - std::pow(s.beta1, static_cast<double>(s.step))),
                   static_cast<float>(std::sqrt(1 - std::pow(s.beta2, static_cast<double>(s.step))))};
  adamw(master.mutable_data_ptr<float>(), exp_avg.mutable_data_ptr<float>(), exp_avg_sq.mutable_data_ptr<float>(),
        grad.const_data_ptr<float>(), *type, optional_data(value), master.numel(), step, stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

void register_kernels(kernels::KernelTable& table) {
  table.rms_norm = rms_norm;
  table.rms_norm_backward = rms_norm_backward;
  table.rope = rope;
  table.swiglu = swiglu;
  table.swiglu_backward = swiglu_backward;
  table.cross_entropy_statistics = cross_entropy_statistics;
  table.cross_entropy_backward = cross_entropy_backward;
  table.adamw = adamw;
}

}  // namespace mds::trainer::cuda
