// What one rank keeps in memory at the peak of a step, by part. Bytes.
//
// Both engines hold n parameters at e bytes (4 fp32, 2 otherwise, and one more for the FP8 copy), gradients at 4 (they
// are accumulated in fp32) and for AdamW two fp32 moments and an fp32 master unless the parameters are these: 18 n with
// bf16. ZeRO divides the optimizer (stage 1), gradients (2) and parameters (3) by the replicas.
//
// Activations of one layer and b x s tokens, with t tensor ranks, u = t with sequence parallelism and 1 otherwise,
// q and k the widths of query and key heads, f of the MLP and g = 2 gated, else 1:
//
// ours           e [4h/u + (2q + 2k + (g + 1) f)/t] a token: the inputs of both norms and both blocks, QKV, the heads'
//                output, the MLP before and behind its activation; besides, in fp32, the heads' log-sum-exp and the
//                norms' statistics. Attention keeps no scores. Selective recomputation drops the blocks' inputs and
//                the activation: e [2h/u + (2q + 2k + g f)/t]. Full keeps the layer's input alone.
// megatron_2022  Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (arXiv
//                2205.05198), equations 1-4: sbh (10/u + 24/t + 5as/(ht)); selective recomputation drops the scores'
//                term 5as/(ht), full keeps 2sbh alone. As published, its figures leave the head and the embedding's
//                dropout out.
//
// The peak is the largest of the moments that the trainer passes through with all micro batches of its schedule in
// flight: the head's backward pass (logits of e V/t a token turned into their gradient in place), the backward pass of
// the last layer (what it needs in passing, and under recomputation that layer's activations made again) and the
// embedding's (an fp32 copy of the gradient).
#pragma once

#include <cstdint>

#include "topology/cost/work.hpp"

namespace mds::topology::cost {

struct Memory {
  int64_t parameters = 0;
  int64_t gradients = 0;
  int64_t optimizer = 0;
  int64_t activations = 0;  ///< kept between the passes, all micro batches in flight
  int64_t buffers = 0;      ///< what a pass needs for itself: logits, gradients of activations, gathered weights
  int64_t runtime = 0;      ///< not tensors: the driver's context, kernels, NCCL's channels; 0 on CPUs
  int64_t host = 0;         ///< in the node's memory, for what is offloaded to it (staging only for NVMe)
  int64_t nvme = 0;

  int64_t state() const { return parameters + gradients + optimizer; }
  /// What an allocator of tensors counts at the peak: the trainer's memory_bytes_max.
  int64_t tensors() const { return state() + activations + buffers; }
  int64_t total() const { return tensors() + runtime; }
};

/// `gpu`: whether `runtime` counts. Requires a stage of the layout.
Memory estimate_memory(const Work& work, int stage, bool gpu = true, int tensor_rank = 0);

/// The stage whose total() is the largest.
struct FullestStage {
  int stage = 0;
  Memory memory;
};
FullestStage fullest_stage(const Work& work, bool gpu = true);

/// Layers' worth of activations that a stage keeps at its peak, in units of one layer of one micro batch.
double layers_in_flight(const Work& work, int stage);
/// Bytes that one layer keeps of one micro batch.
int64_t layer_activations(const Work& work, Recompute recompute);

/// How far the model may be off: estimates within this share of the memory are reported, not refused. The measured
/// runs of tests/topology/cost stay within 1 %; allocators leave gaps that no estimate knows.
inline constexpr double kMemoryError = 0.05;

}  // namespace mds::topology::cost
