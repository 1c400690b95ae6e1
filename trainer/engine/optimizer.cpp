#include "trainer/engine/optimizer.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include "trainer/kernels/ops.hpp"

namespace mds::trainer {
namespace {

template <typename T>
double sum_of_squares(const T* values, int64_t count) {
  double sums[4] = {0, 0, 0, 0};
  for (int64_t i = 0; i < count; ++i) sums[i & 3] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// In float64 on CPUs, without a float64 copy of the gradients; on GPUs the tree sum in fp32 is exact enough.
at::Tensor squared_norm(const at::Tensor& flat) {
  const auto dtype = flat.scalar_type();
  if (!flat.is_cpu()) return at::linalg_vector_norm(flat).to(at::kDouble).square();
  const double sum = dtype == at::kDouble ? sum_of_squares(flat.const_data_ptr<double>(), flat.numel())
                                          : sum_of_squares(flat.const_data_ptr<float>(), flat.numel());
  return at::scalar_tensor(sum, at::kDouble);
}

}  // namespace

Optimizer::Optimizer(FlatBuffers& buffers, const OptimizerConfig& config, int zero_stage, const OptimizerGroups& groups)
    : buffers_(buffers),
      config_(config),
      groups_(groups),
      sharded_(zero_stage >= 1),
      own_shard_(buffers.shard(groups.data.rank())) {
  state_.range = sharded_ ? own_shard_ : buffers_.whole();
  const at::Tensor values = FlatBuffers::slice(buffers_.values(), state_.range);
  const auto options = buffers_.grads().options();
  // In full precision the values are the masters.
  values_are_masters_ = values.scalar_type() == buffers_.master_dtype();
  state_.master = values_are_masters_ ? values : at::zeros({state_.range.size()}, options);
  state_.exp_avg = at::zeros({state_.range.size()}, options);
  state_.exp_avg_sq = at::zeros({state_.range.size()}, options);
}

void Optimizer::initialize(const std::function<void()>& fill) {
  // The gradients' buffer has the masters' precision and is free before the first step.
  buffers_.bind_values(buffers_.grads());
  fill();
  state_.master.copy_(FlatBuffers::slice(buffers_.grads(), state_.range));
  buffers_.values().copy_(buffers_.grads());
  buffers_.bind_values(buffers_.values());
  buffers_.grads().zero_();
}

bool Optimizer::owns(const Parameter& parameter) const {
  if (parameter.tensor_replicated && groups_.tensor.rank() > 0) return false;
  return !parameter.shared_embedding || groups_.owns_shared_embedding;
}

void Optimizer::reduce_gradients() {
  sum_over(groups_.tensor, [](const Parameter& parameter) { return parameter.sequence_partial; });
  sum_over(groups_.embedding, [](const Parameter& parameter) { return parameter.shared_embedding; });
  if (groups_.data.size() == 1) return;
  if (sharded_) {
    at::Tensor shard = FlatBuffers::slice(buffers_.grads(), own_shard_);
    groups_.data.reduce_scatter(shard, buffers_.grads());
  } else {
    groups_.data.all_reduce(buffers_.grads());
  }
}

/// Sums the gradients of the chosen parameters over the group, in one collective.
void Optimizer::sum_over(Communicator& group, const std::function<bool(const Parameter&)>& chosen) {
  if (group.size() == 1) return;
  std::vector<at::Tensor> grads;
  for (const PlacedParameter& placed : buffers_.parameters()) {
    if (chosen(*placed.parameter)) grads.push_back(FlatBuffers::slice(buffers_.grads(), placed.range));
  }
  if (grads.empty()) return;
  at::Tensor all = grads.size() == 1 ? grads[0] : at::cat(grads);
  group.all_reduce(all);
  if (grads.size() == 1) return;
  int64_t offset = 0;
  for (at::Tensor& grad : grads) {
    grad.copy_(all.narrow(0, offset, grad.numel()));
    offset += grad.numel();
  }
}

std::vector<Optimizer::Run> Optimizer::runs(const FlatRange& within,
                                            const std::function<bool(const Parameter&)>& flag) const {
  std::vector<Run> runs;
  const auto& parameters = buffers_.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const int64_t next = i + 1 < parameters.size() ? parameters[i + 1].range.begin : buffers_.size();
    const FlatRange range = FlatRange{parameters[i].range.begin, next}.intersect(within);
    if (range.size() == 0) continue;
    const bool value = flag(*parameters[i].parameter);
    if (!runs.empty() && runs.back().flag == value) {
      runs.back().range.end = range.end;
    } else {
      runs.push_back({range, value});
    }
  }
  return runs;
}

at::Tensor Optimizer::squared_norm_share() {
  at::Tensor sum = at::zeros({}, buffers_.grads().options().dtype(at::kDouble));
  for (const Run& run : runs(own_shard_, [this](const Parameter& parameter) { return owns(parameter); })) {
    if (run.flag) sum += squared_norm(FlatBuffers::slice(buffers_.grads(), run.range));
  }
  return sum;
}

std::vector<FlatRange> Optimizer::updated_shards() const {
  if (sharded_) return {own_shard_};
  std::vector<FlatRange> shards;
  for (int i = 0; i < groups_.data.size(); ++i) shards.push_back(buffers_.shard(i));
  return shards;
}

at::Tensor Optimizer::state_slice(const at::Tensor& state, const FlatRange& range) const {
  return state.narrow(0, range.begin - state_.range.begin, range.size());
}

void Optimizer::update(double lr, double grad_scale, int64_t step) {
  kernels::AdamWStep adamw{lr, config_.beta1, config_.beta2, config_.eps, 0, grad_scale, step};
  for (const FlatRange& shard : updated_shards()) {
    for (const Run& run : runs(shard, [](const Parameter& parameter) { return parameter.weight_decay; })) {
      adamw.weight_decay = run.flag ? config_.weight_decay : 0;
      at::Tensor master = state_slice(state_.master, run.range), exp_avg = state_slice(state_.exp_avg, run.range),
                 exp_avg_sq = state_slice(state_.exp_avg_sq, run.range);
      at::Tensor value = values_are_masters_ ? at::Tensor() : FlatBuffers::slice(buffers_.values(), run.range);
      kernels::table_for(master).adamw(master, exp_avg, exp_avg_sq, FlatBuffers::slice(buffers_.grads(), run.range),
                                       value, adamw);
    }
  }
  if (sharded_) gather(buffers_.values());
  buffers_.grads().zero_();
}

/// Every rank's own shard of `flat` (of the buffers' size) to every rank.
void Optimizer::gather(at::Tensor& flat) {
  if (groups_.data.size() > 1) groups_.data.all_gather(flat, FlatBuffers::slice(flat, own_shard_));
}

void Optimizer::publish_values() {
  if (!values_are_masters_) FlatBuffers::slice(buffers_.values(), state_.range).copy_(state_.master);
  if (sharded_) gather(buffers_.values());
}

OptimizerState Optimizer::shard_state() {
  return {own_shard_, state_slice(state_.master, own_shard_), state_slice(state_.exp_avg, own_shard_),
          state_slice(state_.exp_avg_sq, own_shard_)};
}

void Optimizer::complete_from_shards() {
  if (!sharded_) {
    gather(state_.master);
    gather(state_.exp_avg);
    gather(state_.exp_avg_sq);
  }
  publish_values();
}

uint64_t Optimizer::state_bytes() const {
  return (values_are_masters_ ? 0 : state_.master.nbytes()) + state_.exp_avg.nbytes() + state_.exp_avg_sq.nbytes();
}

}  // namespace mds::trainer
