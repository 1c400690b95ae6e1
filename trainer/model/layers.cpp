#include "trainer/model/layers.hpp"

#include <ATen/ATen.h>

namespace mds::trainer {
namespace {

at::Tensor as_matrix(const at::Tensor& x) { return x.view({-1, x.size(-1)}); }

}  // namespace

at::Tensor TensorRegion::gather(const at::Tensor& x) const {
  if (!sequence_parallel_) return x;
  at::Tensor whole = at::empty({x.size(0) * group_->size(), x.size(1), x.size(2)}, x.options());
  group_->all_gather(whole, x);
  return whole;
}

at::Tensor TensorRegion::reduce(at::Tensor x) const {
  if (group_->size() == 1) return x;
  if (!sequence_parallel_) {
    group_->all_reduce(x);
    return x;
  }
  at::Tensor part = at::empty({x.size(0) / group_->size(), x.size(1), x.size(2)}, x.options());
  group_->reduce_scatter(part, x);
  return part;
}

void accumulate_product(at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x) {
  if (grad.scalar_type() == x.scalar_type()) {
    grad.addmm_(dy.t(), x);
#if __has_include(<torch/headeronly/version.h>)  // PyTorch 2.9 and newer
  } else if (x.is_cuda()) {
    // The product leaves the tensor cores in fp32 and is added there: no rounding, no second pass.
    at::addmm_out(grad, grad, dy.t(), x, grad.scalar_type());
#endif
  } else {
    grad.add_(at::mm(dy.t(), x));
  }
}

at::Tensor Linear::forward(const at::Tensor& x) const {
  const at::Tensor weight = with_padding(*weight_, weight_->value).t();
  at::Tensor y = bias_ ? at::addmm(bias_->value, as_matrix(x), weight) : at::mm(as_matrix(x), weight);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = y.size(1);
  return y.view(shape);
}

at::Tensor Linear::backward_input(const at::Tensor& dy) const {
  std::vector<int64_t> shape = dy.sizes().vec();
  shape.back() = weight_->value.size(1);
  return at::mm(as_matrix(dy), with_padding(*weight_, weight_->value)).view(shape);
}

void Linear::backward_weight(const at::Tensor& dy, const at::Tensor& x) const {
  at::Tensor grad = with_padding(*weight_, weight_->grad);
  accumulate_product(grad, as_matrix(dy), as_matrix(x));
  Bias(bias_).backward_weight(dy);
}

void Bias::forward(at::Tensor& y) const {
  if (bias_) y.add_(bias_->value);
}

void Bias::backward_weight(const at::Tensor& dy) const {
  if (bias_) bias_->grad.add_(at::sum(as_matrix(dy), 0, /*keepdim=*/false, bias_->grad.scalar_type()));
}

kernels::NormOutput Norm::forward(const at::Tensor& x) const {
  const kernels::KernelTable& k = kernels::table_for(x);
  return bias_ ? k.layer_norm(x, weight_->value, bias_->value, eps_) : k.rms_norm(x, weight_->value, eps_);
}

at::Tensor Norm::backward(const at::Tensor& dy, const at::Tensor& x, const kernels::NormStatistics& statistics,
                          const at::Tensor& add) const {
  const kernels::KernelTable& k = kernels::table_for(x);
  if (!bias_) return k.rms_norm_backward(dy, x, statistics, weight_->value, add, weight_->grad);
  return k.layer_norm_backward(dy, x, statistics, weight_->value, bias_->value, add, weight_->grad, bias_->grad);
}

at::Tensor VocabularyEmbedding::forward(const at::Tensor& tokens) const {
  const at::Tensor& weight = weight_->value;
  if (region_.group().size() == 1) return at::embedding(weight, tokens);
  const at::Tensor row = tokens - first_row_;
  const at::Tensor others = row.lt(0).logical_or_(row.ge(weight.size(0)));
  at::Tensor hidden = at::embedding(weight, row.clamp(0, weight.size(0) - 1));
  hidden.masked_fill_(others.unsqueeze(-1), 0);
  return region_.reduce(hidden);
}

void VocabularyEmbedding::backward_weight(const at::Tensor& dy, const at::Tensor& tokens) const {
  at::Tensor& grad = weight_->grad;
  const at::Tensor row = (tokens - first_row_).view(-1);
  at::Tensor whole = as_matrix(region_.gather(dy)).to(grad.scalar_type());
  if (region_.group().size() == 1) {
    grad.index_put_({row}, whole, /*accumulate=*/true);
    return;
  }
  const at::Tensor mine = row.ge(0).logical_and_(row.lt(grad.size(0))).unsqueeze(1);
  grad.index_put_({row.clamp(0, grad.size(0) - 1)}, whole * mine, /*accumulate=*/true);
}

Range PositionEmbedding::local_positions(int64_t count) const {
  const int64_t begin = region_.sequence_parallel() ? count * region_.group().rank() : 0;
  return {begin, begin + count};
}

void PositionEmbedding::forward(at::Tensor& hidden) const {
  const Range range = local_positions(hidden.size(0));
  TORCH_CHECK(range.end <= weight_->value.size(0),
              "sequence longer than max_position_embeddings = ", weight_->value.size(0));
  hidden.add_(weight_->value.narrow(0, range.begin, range.size()).unsqueeze(1));
}

void PositionEmbedding::backward_weight(const at::Tensor& dy) const {
  const Range range = local_positions(dy.size(0));
  at::Tensor grad = weight_->grad.narrow(0, range.begin, range.size());
  grad.add_(at::sum(dy, 1, /*keepdim=*/false, grad.scalar_type()));
}

}  // namespace mds::trainer
