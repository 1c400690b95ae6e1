// Work: what a training job asks of its machines, as shapes alone. The cost model's input: it knows neither job files
// nor tensors, so that any layout can be tried without building anything.
#pragma once

#include <cstdint>

namespace mds::topology::cost {

enum class Precision { fp32, bf16, fp16, fp8 };
enum class Recompute { none, selective, full };
enum class Schedule { gpipe, one_f_one_b, interleaved, zero_bubble };
enum class Offload { none, cpu, nvme };

/// Whose engine does the work: what it keeps between passes and what it hides behind computing.
enum class Engine {
  ours,           ///< mdstrain: fused attention, no dropout, one stream (see memory.hpp, step_time.hpp)
  megatron_2022,  ///< Megatron-LM as in arXiv 2205.05198: dropout, attention scores kept, for published figures
};

struct ModelShape {
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t intermediate = 0;
  int64_t vocabulary = 0;
  int64_t learned_positions = 0;  ///< rows of a learned position table, 0: none
  bool gated = false;             ///< SwiGLU: gate and up
  bool biases = false;            ///< biases everywhere, and norms of weight and bias
  bool embedding_norm = false;
  bool alibi = false;             ///< a [heads, seq, seq] bias is kept
  bool tied = false;              ///< the head is the embedding

  int64_t query_width() const { return heads * head_dim; }
  int64_t key_width() const { return key_value_heads * head_dim; }
};

struct Layout {
  int tensor = 1;
  int context = 1;
  int data = 1;
  int pipeline = 1;
  bool sequence_parallel = false;
  Schedule schedule = Schedule::one_f_one_b;
  int virtual_stages = 1;

  int64_t ranks() const { return int64_t{tensor} * context * data * pipeline; }
  bool operator==(const Layout&) const = default;
};

struct Work {
  ModelShape model;
  Layout layout;
  int64_t seq_len = 0;
  int64_t global_batch = 0;
  int64_t micro_batch = 1;
  Precision precision = Precision::bf16;
  Recompute recompute = Recompute::none;
  int zero_stage = 1;
  Offload offload_optimizer = Offload::none;
  Offload offload_parameters = Offload::none;
  Engine engine = Engine::ours;

  /// Tokens of a micro batch that one rank sees (a sequence is divided over the context ranks).
  int64_t tokens() const { return micro_batch * seq_len / layout.context; }
  int64_t micro_batches() const;  ///< of one replica in a step; at least 1
  /// Parts that hidden states are in outside of the tensor-parallel regions.
  int64_t sequence_parts() const { return layout.sequence_parallel ? layout.tensor : 1; }
  /// Ranks over which ZeRO divides and gradients are summed: context ranks hold the same weights, too.
  int64_t replicas() const { return int64_t{layout.data} * layout.context; }
  int64_t element_bytes() const { return precision == Precision::fp32 ? 4 : 2; }
};

/// Layers of a stage: as even as can be, counted as the trainer does (split_range).
int64_t stage_layers(const Work& work, int stage);

/// Parameters of one layer that a tensor rank holds.
int64_t layer_parameters(const Work& work);
/// Parameters that a rank holds: its stage's layers, embedding on the first and head on the last stage.
int64_t rank_parameters(const Work& work, int stage, int tensor_rank = 0);

/// Floating point operations of a step that count for the MFU: 6 a parameter but the embedding and a token, and
/// 12 x layers x query width x sequence a token for attention (full, not only causal). Recomputation does not count.
double model_flops(const Work& work);

}  // namespace mds::topology::cost
