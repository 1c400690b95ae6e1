#include "launcher/plan_memory.hpp"

#include <algorithm>

namespace mds::launcher {
namespace {

using trainer::Architecture;

struct Shape {
  int64_t h, q, k, f, t, vocabulary;  // as in the header
  bool llama, first, last, tied;
  int64_t layers;  // of this stage
};

Shape shape_of(const trainer::TrainerConfig& config, const topology::Coordinates& at) {
  const trainer::ModelConfig& model = config.model;
  const int64_t stages = config.parallel.pipeline;
  Shape s{};
  s.h = model.hidden_size;
  s.q = model.num_attention_heads * model.head_dim;
  s.k = model.num_key_value_heads * model.head_dim;
  s.f = model.intermediate_size;
  s.t = config.parallel.tensor;
  s.vocabulary = model.vocab_size * (at.tensor + 1) / s.t - model.vocab_size * at.tensor / s.t;
  s.llama = model.architecture == Architecture::llama;
  s.first = at.pipeline == 0;
  s.last = at.pipeline == stages - 1;
  s.tied = model.tie_word_embeddings;
  s.layers = model.num_layers * (at.pipeline + 1) / stages - model.num_layers * at.pipeline / stages;
  return s;
}

int64_t layer_parameters(const Shape& s) {
  const int64_t norms = s.llama ? 2 * s.h : 4 * s.h;
  const int64_t matrices = (s.h * (2 * s.q + 2 * s.k) + (s.llama ? 3 : 2) * s.h * s.f) / s.t;
  const int64_t biases = s.llama ? 0 : (s.q + 2 * s.k + s.f) / s.t + 2 * s.h;
  return norms + matrices + biases;
}

/// Elements a token that a layer keeps from its forward to its backward pass.
int64_t layer_activations(const Shape& s, int64_t sequence_shards, trainer::Recompute recompute) {
  if (recompute == trainer::Recompute::full) return s.h / sequence_shards;
  const bool all = recompute == trainer::Recompute::none;
  const int64_t wide = (s.llama ? 2 : 1) + (all ? 1 : 0);
  return (all ? 4 : 2) * s.h / sequence_shards + (2 * s.q + 2 * s.k + wide * s.f) / s.t;
}

}  // namespace

int64_t rank_parameter_count(const trainer::TrainerConfig& config, const topology::Coordinates& at) {
  const Shape s = shape_of(config, at);
  const trainer::ModelConfig& model = config.model;
  int64_t count = s.layers * layer_parameters(s);
  if (s.first) {
    count += s.vocabulary * s.h;
    if (model.architecture == Architecture::gpt3) count += model.max_position_embeddings * s.h;
    if (model.architecture == Architecture::bloom) count += 2 * s.h;
  }
  if (s.last) {
    count += s.llama ? s.h : 2 * s.h;
    if (!s.tied || !s.first) count += s.vocabulary * s.h;
  }
  return count;
}

MemoryEstimate estimate_memory(const trainer::TrainerConfig& config, const topology::Coordinates& at) {
  const Shape s = shape_of(config, at);
  const trainer::TrainingConfig& training = config.training;
  const int64_t element = training.precision == trainer::Precision::fp32 ? 4 : 2;
  const int64_t n = rank_parameter_count(config, at);
  const int64_t replicas = config.parallel.data;

  MemoryEstimate out;
  out.parameters = n * element;
  out.gradients = n * 4;
  const int64_t optimizer = n * (element < 4 ? 12 : 8);
  out.optimizer = config.zero.stage >= 1 ? (optimizer + replicas - 1) / replicas : optimizer;

  const int64_t tokens = training.seq_len * training.micro_batch_size;
  const int64_t shards = config.parallel.sequence_parallel ? s.t : 1;
  const int64_t micro_batches =
      std::max<int64_t>(1, training.global_batch_size / (replicas * training.micro_batch_size));
  const bool gpipe = config.parallel.schedule == trainer::Schedule::gpipe;
  const int64_t stages_to_go = config.parallel.pipeline - at.pipeline;
  const int64_t in_flight = gpipe ? micro_batches : std::min(stages_to_go, micro_batches);
  int64_t elements = in_flight * s.layers * layer_activations(s, shards, training.recompute);
  if (training.recompute == trainer::Recompute::full) {
    elements += layer_activations(s, shards, trainer::Recompute::none);  // the layer that is being computed again
  }
  out.activations = tokens * elements * element;
  if (s.last) out.activations += tokens * (2 * s.h / shards * element + 4 * s.vocabulary);
  return out;
}

}  // namespace mds::launcher
