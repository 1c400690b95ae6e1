#include "trainer/model/language_head.hpp"

#include <ATen/ATen.h>

#include <limits>
#include <vector>

namespace mds::trainer {

LanguageHead::LanguageHead(const Norm& norm, Parameter* weight, const TensorRegion& region)
    : norm_(norm),
      linear_(weight),
      region_(region),
      first_column_(weight->slices.front().global_offset[0]),
      columns_(weight->shape.front()),
      padding_(weight->padding_rows),
      vocabulary_(weight->slices.front().global_shape[0]) {}

// Each rank's sum of exponentials is brought from its own maximum to the common one before the sums are added.
at::Tensor LanguageHead::exchange_statistics(at::Tensor statistics, at::Tensor& target) const {
  if (region_.group().size() > 1) {
    at::Tensor max = statistics[0].clone();
    region_.group().all_reduce(max, ReduceOp::max);
    statistics[1].mul_((statistics[0] - max).exp_());
    statistics[0].copy_(max);
    at::Tensor sums = statistics.narrow(0, 1, 2);
    region_.group().all_reduce(sums);
  }
  target = statistics[2];
  return statistics[1].log().add_(statistics[0]);
}

/// A label that is the next rank's must not fall on our padding.
at::Tensor LanguageHead::out_of_padding(const at::Tensor& labels) const {
  constexpr int64_t kNobodys = std::numeric_limits<int64_t>::max() / 2;
  const bool others_follow = first_column_ + columns_ < vocabulary_;
  if (padding_ == 0 || !others_follow) return labels;
  return labels.masked_fill(labels.ge(first_column_ + columns_), kNobodys);
}

at::Tensor LanguageHead::forward(const at::Tensor& x, const at::Tensor& labels, double denominator,
                                 Saved& saved) const {
  const kernels::NormOutput normed = norm_.forward(x);
  saved.input = x;
  saved.norm = normed.statistics;
  saved.normed = normed.y;
  saved.labels = out_of_padding(labels.reshape(-1));
  saved.logits = linear_.forward(region_.gather(normed.y)).flatten(0, 1);
  if (padding_ > 0) saved.logits.narrow(1, columns_, padding_).fill_(-std::numeric_limits<double>::infinity());
  at::Tensor target;
  saved.log_sum_exp = exchange_statistics(
      kernels::table_for(x).cross_entropy_statistics(saved.logits, saved.labels, first_column_), target);
  const at::Tensor losses = (saved.log_sum_exp - target).mul_(saved.labels.ge(0));
  return losses.sum(at::kDouble).div_(denominator).to(losses.scalar_type());
}

at::Tensor LanguageHead::backward(double scale, Saved& saved) const {
  kernels::table_for(saved.logits)
      .cross_entropy_backward(saved.logits, saved.labels, saved.log_sum_exp, first_column_, scale);
  const int64_t batch = saved.input.size(1);
  const at::Tensor dlogits = saved.logits.view({-1, batch, saved.logits.size(1)});
  const at::Tensor dnormed = region_.reduce(linear_.backward_input(dlogits));
  linear_.backward_weight(dlogits, region_.gather(saved.normed));
  return norm_.backward(dnormed, saved.input, saved.norm, {});
}

// Ranks may hold different numbers of columns, and all_gather wants equal ones: columns are padded for the exchange.
at::Tensor LanguageHead::logits(const at::Tensor& x) const {
  const at::Tensor local = linear_.forward(region_.gather(norm_.forward(x).y)).narrow(2, 0, columns_);
  const int parts = region_.group().size();
  if (parts == 1) return local;
  const int64_t columns = (vocabulary_ + parts - 1) / parts;
  at::Tensor padded = at::zeros({local.size(0), local.size(1), columns}, local.options());
  padded.narrow(2, 0, local.size(2)).copy_(local);
  at::Tensor gathered = at::empty({parts, local.size(0), local.size(1), columns}, local.options());
  region_.group().all_gather(gathered, padded);
  std::vector<at::Tensor> blocks;
  for (int i = 0; i < parts; ++i) blocks.push_back(gathered[i].narrow(2, 0, split_range(vocabulary_, i, parts).size()));
  return at::cat(blocks, 2);
}

}  // namespace mds::trainer
