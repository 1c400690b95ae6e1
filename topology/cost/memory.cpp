#include "topology/cost/memory.hpp"

#include <algorithm>
#include <cmath>

namespace mds::topology::cost {
namespace {

constexpr int64_t kMiB = 1 << 20;

int64_t divided(int64_t bytes, int64_t parts) { return (bytes + parts - 1) / parts; }

// cuBLAS takes 32 MiB for its workspace on sm90 through PyTorch's allocator, once a stream; other GPUs get 8 MiB, which
// makes no difference here.
constexpr int64_t kMatrixWorkspace = 32 * kMiB;
// A CUDA context with LibTorch's and cuDNN's kernels loaded lazily, as nvidia-smi shows for a process without tensors.
constexpr int64_t kContext = 600 * kMiB;
// NCCL: a receive buffer a channel of 4 MiB (Simple), 4.7 MiB (LL128) and 1 MiB (LL), at its default sizes, and 16
// channels as it opens over NVLink.
constexpr int64_t kCommunicator = 16 * 10 * kMiB;
// DeepSpeed's and Megatron's default buckets are 2e8 and 4e7 elements; ours, for stages that bucket, is to be 1e8 fp32.
constexpr int64_t kBucket = int64_t{4} * 100'000'000;

/// Widths in elements a token, divided as they are kept.
struct Widths {
  explicit Widths(const Work& w)
      : e(w.element_bytes()),
        t(w.layout.tensor),
        hidden(w.model.hidden),
        hidden_part(w.model.hidden / w.sequence_parts()),
        query(w.model.query_width() / t),
        qkv((w.model.query_width() + 2 * w.model.key_width()) / t),
        up((w.model.gated ? 2 : 1) * w.model.intermediate / t),
        activation(w.model.intermediate / t),
        words(divided(w.model.vocabulary, t)) {}

  int64_t e, t, hidden, hidden_part, query, qkv, up, activation, words;
};

int64_t layer_of_ours(const Work& work, Recompute recompute) {
  const Widths w(work);
  if (recompute == Recompute::full) return work.tokens() * w.e * w.hidden_part;
  int64_t elements = 2 * w.hidden_part + w.qkv + w.query + w.up;
  if (recompute == Recompute::none) elements += 2 * w.hidden_part + w.activation;
  const int64_t statistics = work.model.heads / w.t + (work.model.biases ? 4 : 2) / work.sequence_parts();
  return work.tokens() * (elements * w.e + statistics * 4);
}

// The equations are for 16 bits and 4h; the general widths are those that they add up.
int64_t layer_of_megatron(const Work& work, Recompute recompute) {
  const Widths w(work);
  const int64_t t = work.layout.tensor;
  if (recompute == Recompute::full) return work.tokens() * 2 * w.hidden_part;
  const int64_t hidden = 10 * w.hidden_part;  // inputs of norms and blocks (8h), two dropout masks of a byte
  const int64_t inside = 2 * (w.qkv + w.query + w.up + w.activation);
  const int64_t scores = recompute == Recompute::none ? 5 * work.model.heads * work.seq_len / t : 0;
  return work.tokens() * (hidden + inside + scores);
}

/// What the backward pass of one layer needs in passing, beyond what is kept of it.
int64_t layer_backward(const Work& work) {
  const Widths w(work);
  const bool parts = work.sequence_parts() > 1;
  // dy, gathered dy, the activation's gradient, that of its input, dx whole and its part.
  int64_t mlp = w.hidden_part + (parts ? w.hidden : 0) + w.activation + w.up + w.hidden + (parts ? w.hidden_part : 0);
  // The activation is made again under recomputation and is gone before its input's gradient is made in any case.
  if (work.recompute == Recompute::none) mlp -= w.activation;
  if (work.recompute == Recompute::selective) mlp += 2 * w.hidden_part;  // the blocks' inputs made again
  // The MLP's share is freed by then: dmiddle, gathered dy, dcontext, dq dk dv and their copy side by side; cuDNN
  // accumulates dq in fp32 (two elements of 16 bits).
  int64_t attention = w.hidden_part + (parts ? w.hidden : 0) + w.query + 2 * w.qkv + 2 * w.query;
  attention -= w.up + (work.recompute == Recompute::none ? w.activation + w.hidden_part : 0);
  int64_t bytes = work.tokens() * w.e * std::max(mlp, attention);
  if (work.recompute == Recompute::full) {
    bytes += layer_activations(work, Recompute::none) - layer_activations(work, Recompute::full);
    bytes -= work.tokens() * w.e * w.activation;  // counted there; see above
  }
  return bytes;
}

/// Tables and inputs that stay for good: the step's tokens and labels, rotary tables or ALiBi's bias.
int64_t standing_tables(const Work& work) {
  const int64_t samples = work.micro_batches() * work.micro_batch;
  const int64_t tokens = samples * work.seq_len / work.layout.context * 2 * 8;
  const int64_t seq = work.seq_len;
  if (work.model.alibi) return tokens + work.model.heads / work.layout.tensor * seq * seq * work.element_bytes();
  return tokens + (work.model.learned_positions ? 0 : seq * work.model.head_dim * 4);
}

struct Passing {
  int64_t activations = 0, buffers = 0;
  int64_t total() const { return activations + buffers; }
};

Passing peak_of_passes(const Work& work, int stage) {
  const Widths w(work);
  const int64_t tokens = work.tokens();
  const bool first = stage == 0, last = stage == work.layout.pipeline - 1;
  const auto kept = static_cast<int64_t>(
      std::llround(layers_in_flight(work, stage) * static_cast<double>(layer_activations(work, work.recompute))));
  if (work.engine == Engine::megatron_2022) return {kept, 0};

  Passing peak{kept, layer_backward(work)};
  if (last) {
    // Its input and the normed one, the logits, labels and their log-sum-exp (8 + 4 bytes); in the backward pass dx
    // whole and, with sequence parallelism, its part and the gathered input.
    const bool parts = work.sequence_parts() > 1;
    const int64_t hidden = 2 * w.hidden_part + w.hidden + (parts ? w.hidden_part + w.hidden : 0);
    const Passing head{kept, tokens * ((hidden + w.words) * w.e + 12)};
    if (head.total() > peak.total()) peak = head;
  }
  if (first) {
    const int64_t micro_batch = stage_layers(work, stage) * layer_activations(work, work.recompute);
    const Passing embedding{kept - std::min(kept, micro_batch), tokens * w.hidden * (w.e + 2 * 4)};
    if (embedding.total() > peak.total()) peak = embedding;
  }
  return peak;
}

void place_state(const Work& work, int64_t n, Memory& out) {
  const int64_t e = work.element_bytes(), replicas = work.replicas();
  const bool low = work.precision != Precision::fp32;
  const int64_t weights = n * (e + (work.precision == Precision::fp8 ? 1 : 0));
  out.parameters = work.zero_stage >= 3 ? divided(weights, replicas) : weights;
  out.gradients = work.zero_stage >= 2 ? divided(n * 4, replicas) : n * 4;
  const int64_t optimizer = n * (low ? 12 : 8);
  out.optimizer = work.zero_stage >= 1 ? divided(optimizer, replicas) : optimizer;
  if (work.zero_stage >= 2) out.buffers += std::min(kBucket, n * 4);
  if (work.zero_stage >= 3) {
    // The layer in use and the next one, gathered whole; the embedding or head by itself.
    const int64_t words = divided(work.model.vocabulary, work.layout.tensor) * work.model.hidden;
    out.buffers += e * std::max(2 * layer_parameters(work), words);
  }
  const auto move = [&](Offload where, int64_t& bytes, int64_t staged) {
    if (where == Offload::none) return;
    (where == Offload::cpu ? out.host : out.nvme) += bytes;
    if (where == Offload::nvme) out.host += std::min(bytes, 2 * kBucket);  // read ahead and written behind
    bytes = 0;
    out.buffers += staged;
  };
  if (work.offload_optimizer == Offload::cpu) out.host += divided(n * 4, work.zero_stage >= 1 ? replicas : 1);
  move(work.offload_optimizer, out.optimizer, 0);
  if (work.zero_stage >= 3) move(work.offload_parameters, out.parameters, e * layer_parameters(work));
}

}  // namespace

int64_t layer_activations(const Work& work, Recompute recompute) {
  return work.engine == Engine::ours ? layer_of_ours(work, recompute) : layer_of_megatron(work, recompute);
}

// GPipe keeps all micro batches. 1F1B (Narayanan et al., arXiv 1806.03377): as many as there are stages to go.
// Interleaved (arXiv 2104.04473): 2 (p - stage - 1) + (v - 1) p chunks before the first backward pass and one more, on
// stage 0 together layers x (1 + (p - 1)/(p v)). Zero bubble (arXiv 2401.10241, ZB-H1) puts weight gradients off, which
// makes every stage keep what the first one keeps under 1F1B.
double layers_in_flight(const Work& work, int stage) {
  const int64_t p = work.layout.pipeline, v = work.layout.virtual_stages, m = work.micro_batches();
  const auto layers = static_cast<double>(stage_layers(work, stage));
  switch (work.layout.schedule) {
    case Schedule::gpipe:
      return layers * static_cast<double>(m);
    case Schedule::zero_bubble:
      return layers * static_cast<double>(std::min(p, m));
    case Schedule::interleaved: {
      if (v <= 1 || p == 1) break;
      const int64_t chunks = std::min(2 * (p - stage - 1) + (v - 1) * p + 1, m * v);
      return layers * static_cast<double>(chunks) / static_cast<double>(v);
    }
    case Schedule::one_f_one_b:
      break;
  }
  return layers * static_cast<double>(std::min(p - stage, m));
}

Memory estimate_memory(const Work& work, int stage, bool gpu, int tensor_rank) {
  Memory out;
  place_state(work, rank_parameters(work, stage, tensor_rank), out);
  const Passing peak = peak_of_passes(work, stage);
  out.activations = peak.activations;
  out.buffers += peak.buffers;
  if (work.engine != Engine::ours) return out;
  out.buffers += standing_tables(work);
  if (!gpu) return out;
  out.buffers += kMatrixWorkspace;
  const Layout& layout = work.layout;
  const int64_t groups = (layout.ranks() > 1) + (layout.tensor > 1) + (layout.context > 1) + (work.replicas() > 1) +
                         (layout.pipeline > 1);
  out.runtime = kContext + groups * kCommunicator;
  return out;
}

FullestStage fullest_stage(const Work& work, bool gpu) {
  // Activations in flight fall from stage to stage and layers differ by one at most, so it is one of the first stages
  // with each number of layers, or the last, which has the head.
  FullestStage fullest{0, estimate_memory(work, 0, gpu)};
  const int p = work.layout.pipeline;
  int more = 1;
  while (more < p && stage_layers(work, more) <= stage_layers(work, 0)) ++more;
  for (const int stage : {1, more, p - 1}) {
    if (stage < 1 || stage >= p) continue;
    const Memory memory = estimate_memory(work, stage, gpu);
    if (memory.total() > fullest.memory.total()) fullest = {stage, memory};
  }
  return fullest;
}

}  // namespace mds::topology::cost
