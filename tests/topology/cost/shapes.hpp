// Published models and machines for the cost model's tests.
#pragma once

#include <string>

#include "topology/cost/search.hpp"

namespace mds::topology::cost::tests {

/// GPT as Megatron-LM builds it (arXiv 2205.05198, table 3): vocabulary 51200, 2048 learned positions.
inline ModelShape megatron(int64_t hidden, int64_t layers, int64_t heads) {
  ModelShape m;
  m.hidden = hidden;
  m.layers = layers;
  m.heads = m.key_value_heads = heads;
  m.head_dim = hidden / heads;
  m.intermediate = 4 * hidden;
  m.vocabulary = 51200;
  m.learned_positions = 2048;
  m.biases = m.tied = true;
  return m;
}

/// LLaMA 3 with an untied head.
inline ModelShape llama(int64_t hidden, int64_t layers, int64_t heads, int64_t intermediate) {
  ModelShape m;
  m.hidden = hidden;
  m.layers = layers;
  m.heads = heads;
  m.key_value_heads = 8;
  m.head_dim = hidden / heads;
  m.intermediate = intermediate;
  m.vocabulary = 128256;
  m.gated = true;
  return m;
}

/// `nodes` nodes of `gpus` such GPUs, each with a NIC of its own of `network` GB/s.
inline Machines machines(const std::string& device, int nodes, int gpus, int sm, double network) {
  Machines out;
  out.gpu = out.rates_known = true;
  out.device = *device_class(device);
  out.memory_bytes = out.device.memory_bytes;
  out.nodes = nodes;
  out.ranks_per_node = out.domain = gpus;
  out.links = {LinkHardware::nvlink, out.device.nvlink, network, sm, false, true};
  return out;
}

/// The four runs of arXiv 2205.05198: table 3 (shapes), figure 1 (GiB), table 5 (seconds a step).
struct MegatronRun {
  const char* name;
  ModelShape model;
  int pipeline, chunks;
  int64_t batch, micro_batch;
  double state, activations, activations_selective;  ///< GiB; selective: with sequence parallelism
  double full, selective;                            ///< seconds
};

inline const MegatronRun kMegatronRuns[] = {
    {"22B", megatron(6144, 48, 64), 1, 1, 4, 4, 45.6, 59.3, 9.6, 1.42, 1.10},
    {"175B", megatron(12288, 96, 96), 8, 3, 64, 1, 45.6, 66.8, 12.4, 18.13, 13.75},
    {"530B", megatron(20480, 105, 128), 35, 3, 280, 1, 31.6, 114, 23.1, 49.05, 37.83},
    {"1T", megatron(25600, 128, 160), 64, 1, 512, 1, 33.0, 131, 26.6, 94.42, 71.49},
};

inline Work work_of(const MegatronRun& run, Recompute recompute, bool sequence_parallel) {
  Work w;
  w.model = run.model;
  w.layout.tensor = 8;
  w.layout.pipeline = run.pipeline;
  w.layout.virtual_stages = run.chunks;
  w.layout.schedule = run.chunks > 1 ? Schedule::interleaved : Schedule::one_f_one_b;
  w.layout.sequence_parallel = sequence_parallel;
  w.seq_len = 2048;
  w.global_batch = run.batch;
  w.micro_batch = run.micro_batch;
  w.recompute = recompute;
  w.engine = Engine::megatron_2022;
  w.zero_stage = 0;
  return w;
}

/// What our own trainer took on NVIDIA H200 (docs/performance.md): peak GiB of tensors and tokens/s of each GPU.
struct OwnRun {
  const char* name;
  ModelShape model;
  int tensor, pipeline, data;
  Recompute recompute;
  int64_t batch, micro_batch;
  double gib, tokens_per_second;
};

inline const OwnRun kOwnRuns[] = {
    {"llama-1b", llama(2048, 16, 32, 8192), 1, 1, 1, Recompute::none, 2, 2, 47.9, 56384},
    {"llama-8b tensor 2", llama(4096, 32, 32, 14336), 2, 1, 1, Recompute::none, 8, 1, 85.5, 9594},
    {"llama-8b pipeline 2", llama(4096, 32, 32, 14336), 1, 2, 1, Recompute::none, 8, 1, 101.9, 9474},
    {"llama-8b data 2, selective", llama(4096, 32, 32, 14336), 1, 1, 2, Recompute::selective, 8, 1, 115.0, 10657},
    {"llama-8b data 2, full", llama(4096, 32, 32, 14336), 1, 1, 2, Recompute::full, 8, 1, 94.0, 8375},
};

inline Work work_of(const OwnRun& run) {
  Work w;
  w.model = run.model;
  w.layout.tensor = run.tensor;
  w.layout.pipeline = run.pipeline;
  w.layout.data = run.data;
  w.layout.sequence_parallel = run.tensor > 1;
  w.seq_len = 8192;
  w.global_batch = run.batch;
  w.micro_batch = run.micro_batch;
  w.recompute = run.recompute;
  return w;
}

inline double gib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

}  // namespace mds::topology::cost::tests
