// An estimate of what one rank keeps in memory, by part. Bytes.
//
// parameters   n x e, with n the parameters that this rank's tensor and pipeline coordinates hold and e the bytes of
//              the compute type (4 fp32, 2 bf16).
// gradients    n x 4: they are accumulated in fp32.
// optimizer    n x 8 for AdamW's two moments, and n x 4 for fp32 masters unless the parameters are these (fp32);
// divided
//              by the replicas from ZeRO stage 1 on.
// activations  After Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", 2022
//              (arXiv 2205.05198), section 4, without dropout masks and with attention that keeps no scores. For b
//              samples of s tokens, width h, t tensor ranks, q and k the widths of query and key heads and f of the
//              MLP, one layer keeps
//                  s b e [ 4h/u + (2q + 2k + m f)/t ],  m = 3 gated (LLaMA), otherwise 2
//              where 4h are the inputs of both norms and of both blocks, and u = t with sequence parallelism,
//              otherwise 1. Selective recomputation drops the blocks' inputs and the activation: 2h/u, m - 1. Full
//              recomputation keeps a layer's input alone, and all of one layer while that is computed again. The last
//              stage adds s b (2h e/u + 4V/t): the inputs of the last norm and of the output layer, and fp32 logits.
//              A stage has min(stages - stage, micro batches) micro batches in flight (1F1B), or all (GPipe).
#pragma once

#include <cstdint>

#include "topology/rank_grid.hpp"
#include "trainer/config.hpp"

namespace mds::launcher {

struct MemoryEstimate {
  int64_t parameters = 0;
  int64_t gradients = 0;
  int64_t optimizer = 0;
  int64_t activations = 0;

  int64_t state() const { return parameters + gradients + optimizer; }
  int64_t total() const { return state() + activations; }
};

/// Parameters that a rank with these coordinates holds; for one rank in all, trainer::parameter_count().
int64_t rank_parameter_count(const trainer::TrainerConfig& config, const topology::Coordinates& at);

/// Requires a config without problems (trainer::check).
MemoryEstimate estimate_memory(const trainer::TrainerConfig& config, const topology::Coordinates& at);

}  // namespace mds::launcher
