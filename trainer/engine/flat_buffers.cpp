#include "trainer/engine/flat_buffers.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

#include <ATen/ops/zeros.h>

namespace mds::trainer {
namespace {

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

int64_t element_count(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace

FlatRange FlatRange::intersect(const FlatRange& other) const {
  const int64_t from = std::max(begin, other.begin);
  return {from, std::max(from, std::min(end, other.end))};
}

FlatBuffers::FlatBuffers(const std::vector<Parameter*>& parameters, const FlatOptions& options)
    : shards_(options.shards) {
  int64_t end = 0;
  for (Parameter* parameter : parameters) {
    const int64_t begin = round_up(end, kAlignment);
    const int64_t count = element_count(parameter->shape);
    placed_.push_back({parameter, {begin, begin + count}});
    end = begin + count + (parameter->padding_rows ? parameter->padding_rows * parameter->shape.back() : 0);
  }
  size_ = round_up(std::max<int64_t>(end, 1), kAlignment * shards_);
  const at::ScalarType master = options.compute_dtype == at::kDouble ? at::kDouble : at::kFloat;
  const auto where = at::TensorOptions(options.device);
  values_ = at::zeros({size_}, where.dtype(options.compute_dtype));
  grads_ = at::zeros({size_}, where.dtype(master));
  bind_values(values_);
  for (const PlacedParameter& placed : placed_) {
    placed.parameter->grad = slice(grads_, placed.range).view(placed.parameter->shape);
  }
}

FlatRange FlatBuffers::shard(int index) const {
  const int64_t length = size_ / shards_;
  return {index * length, (index + 1) * length};
}

at::Tensor FlatBuffers::slice(const at::Tensor& flat, const FlatRange& range) {
  return flat.narrow(0, range.begin, range.size());
}

void FlatBuffers::bind_values(const at::Tensor& flat) {
  for (const PlacedParameter& placed : placed_) {
    placed.parameter->value = slice(flat, placed.range).view(placed.parameter->shape);
  }
}

}  // namespace mds::trainer
