// Runs a whole model under a tensor x pipeline layout inside one process: a thread per tensor rank, each of which holds
// every pipeline stage and chains them. Results come back layout-free, by logical name.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "trainer/comm/cpu.hpp"
#include "trainer/model/model.hpp"

namespace mds::trainer::testing {

using Tensors = std::map<std::string, at::Tensor>;  ///< by logical name, whole

struct Layout {
  int tensor = 1;
  int pipeline = 1;
  bool sequence_parallel = false;
  Recompute recompute = Recompute::none;
  at::ScalarType compute = at::kDouble;
  at::ScalarType grad = at::kDouble;
  int64_t vocabulary_tile = 1;
};

struct LayoutResult {
  double loss = 0;       ///< of the last micro batch
  double evaluated = 0;  ///< the same by evaluate()
  at::Tensor logits;     ///< [micro_batch, seq, vocab]
  Tensors gradients;     ///< summed over micro batches, tensor ranks and tied ends
};

/// The block of a whole logical tensor that a slice holds. `local` is the slice's part of the physical tensor.
inline at::Tensor block_of(const at::Tensor& whole, const LogicalSlice& slice, const at::Tensor& local) {
  at::Tensor block = whole;
  for (int64_t i = 0; i < local.dim(); ++i) block = block.narrow(i, slice.global_offset[i], local.size(i));
  return block;
}

inline void bind(const std::vector<Parameter*>& parameters, at::ScalarType compute, at::ScalarType grad) {
  for (Parameter* p : parameters) {
    std::vector<int64_t> padded = p->shape;
    padded.front() += p->padding_rows;
    p->value = at::zeros(padded, at::TensorOptions().dtype(compute)).narrow(0, 0, p->shape.front());
    p->grad = at::zeros(padded, at::TensorOptions().dtype(grad)).narrow(0, 0, p->shape.front());
  }
}

/// Copies whole logical tensors into bound parameters.
inline void load(const std::vector<Parameter*>& parameters, const Tensors& values) {
  for (Parameter* p : parameters) {
    for (const LogicalSlice& s : p->slices) {
      at::Tensor local = p->value.narrow(0, s.local_begin, s.local_rows);
      local.copy_(block_of(values.at(s.name), s, local));
    }
  }
}

/// Random values for every logical tensor of a model, norms and biases included, scaled so that nothing saturates.
inline Tensors random_values(const ModelConfig& model, uint64_t seed, at::ScalarType dtype = at::kDouble) {
  auto group = make_single_communicator("tensor");
  auto stage = StageModel::make(model, {}, Recompute::none, {}, *group);
  at::Generator generator = at::detail::createCPUGenerator(seed);
  Tensors values;
  for (const Parameter* p : stage->parameters()) {
    for (const LogicalSlice& s : p->slices) {
      at::Tensor t = at::randn(s.global_shape, generator, at::TensorOptions().dtype(at::kDouble)).mul_(0.2);
      if (s.init == Init::ones) t.add_(1);
      values[s.name] = t.to(dtype);
    }
  }
  return values;
}

/// One thread per rank; rethrows the first exception.
inline void on_ranks(int size, const std::function<void(int)>& body) {
  std::vector<std::exception_ptr> errors(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(rank);
      } catch (...) {
        errors[rank] = std::current_exception();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  for (const std::exception_ptr& e : errors) {
    if (e) std::rethrow_exception(e);
  }
}

/// The whole gradients, from every tensor rank's parameters: split parts are placed, partial sums added.
inline Tensors collect_gradients(const std::vector<std::vector<Parameter*>>& ranks) {
  Tensors whole;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    for (const Parameter* p : ranks[rank]) {
      const at::Tensor padding = with_padding(*p, p->grad).narrow(0, p->shape.front(), p->padding_rows);
      TORCH_CHECK(padding.count_nonzero().item<int64_t>() == 0, p->name, ": padding has a gradient");
      if (p->tensor_replicated && !p->sequence_partial && rank > 0) continue;
      for (const LogicalSlice& s : p->slices) {
        at::Tensor& sum = whole[s.name];
        const at::Tensor local = p->grad.narrow(0, s.local_begin, s.local_rows);
        if (!sum.defined()) sum = at::zeros(s.global_shape, local.options());
        block_of(sum, s, local).add_(local);
      }
    }
  }
  return whole;
}

struct RankStages {
  std::vector<std::unique_ptr<StageModel>> stages;

  std::vector<Parameter*> parameters() const {
    std::vector<Parameter*> all;
    for (const auto& stage : stages) all.insert(all.end(), stage->parameters().begin(), stage->parameters().end());
    return all;
  }
};

namespace detail {

/// Forward and backward of every micro batch through all stages of one tensor rank; rank 0 fills the result.
inline void run_rank(RankStages& rank, const std::vector<MicroBatch>& batches, double denominator, double loss_scale,
                     LayoutResult* result) {
  for (size_t slot = 0; slot < batches.size(); ++slot) {
    at::Tensor x;
    for (auto& stage : rank.stages) {
      x = stage->forward(static_cast<int>(slot), batches[slot], x, denominator);
      if (!stage->is_last())
        TORCH_CHECK(x.sizes().vec() == stage->hidden_shape(batches[slot].tokens.size(0), batches[slot].tokens.size(1)));
    }
    if (result) result->loss = x.item<double>();
  }
  for (size_t slot = 0; slot < batches.size(); ++slot) {
    at::Tensor d;
    for (size_t i = rank.stages.size(); i-- > 0;) d = rank.stages[i]->backward(static_cast<int>(slot), d, loss_scale);
  }
  at::Tensor x, input;
  for (auto& stage : rank.stages) {
    input = x;
    x = stage->evaluate(batches.back(), input, denominator);
  }
  const at::Tensor logits = rank.stages.back()->logits(batches.back(), input);
  if (result) {
    result->evaluated = x.item<double>();
    result->logits = logits;
  }
}

}  // namespace detail

/// All micro batches forward, then all backward (so that slots overlap), with the weights `values`.
inline LayoutResult run_layout(const ModelConfig& model, const Layout& layout, const Tensors& values,
                               const std::vector<MicroBatch>& batches, double denominator, double loss_scale = 1) {
  auto groups = make_local_group(layout.tensor);
  ParallelConfig parallel;
  parallel.tensor = layout.tensor;
  parallel.pipeline = layout.pipeline;
  parallel.sequence_parallel = layout.sequence_parallel;
  std::vector<RankStages> ranks(layout.tensor);
  LayoutResult result;
  on_ranks(layout.tensor, [&](int rank) {
    for (int stage = 0; stage < layout.pipeline; ++stage) {
      const StageOptions options{layout.compute, at::kCPU, stage, layout.pipeline, layout.vocabulary_tile};
      ranks[rank].stages.push_back(StageModel::make(model, parallel, layout.recompute, options, *groups[rank]));
      bind(ranks[rank].stages.back()->parameters(), layout.compute, layout.grad);
      load(ranks[rank].stages.back()->parameters(), values);
    }
    detail::run_rank(ranks[rank], batches, denominator, loss_scale, rank == 0 ? &result : nullptr);
  });
  std::vector<std::vector<Parameter*>> parameters;
  for (const RankStages& rank : ranks) parameters.push_back(rank.parameters());
  result.gradients = collect_gradients(parameters);
  return result;
}

/// |a - b| / |b| in the Frobenius norm; |a - b| where b is all but zero.
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  const double difference = (x - y).norm().item<double>(), size = y.norm().item<double>();
  return size > 1e-12 ? difference / size : difference;
}

}  // namespace mds::trainer::testing
