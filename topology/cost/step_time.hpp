// How long a step takes, by part. Seconds on the pipeline stage that the others wait for.
//
// Matrix products run at the device's rate, less what their tiles leave idle in the last wave; attention at its own;
// everything else moves bytes. Collectives take what NCCL's tuner expects (collective.hpp). A stage's micro batch takes
// t = forward + backward, a step M micro batches of the slowest stage and a bubble: the other stages' t once (1F1B and
// GPipe), that / v (interleaved, arXiv 2104.04473), or less twice the weight gradients (zero bubble, arXiv 2401.10241).
//
// What is hidden: ours does all its work on one stream, so tensor, pipeline and (up to ZeRO-1) data traffic all show.
// megatron_2022 hides the backward passes' all-reduces and reduce-scatters behind weight gradients (Korthikanti et al.,
// section 4.2.2). From ZeRO-2 on gradients are reduced and weights gathered while layers compute; of that time
// tensor-parallel traffic is taken off where it needs the same links.
#pragma once

#include "topology/cost/machines.hpp"
#include "topology/cost/work.hpp"

namespace mds::topology::cost {

struct StepTime {
  double matrix = 0;         ///< matrix products, forward and backward
  double attention = 0;
  double elementwise = 0;    ///< norms, activations, rotations, residual sums, the loss
  double recompute = 0;      ///< activations made again, whatever they are made of
  double tensor = 0;         ///< tensor-parallel collectives that nothing hides
  double context = 0;        ///< keys and values passed round
  double pipeline = 0;       ///< sends and receives between stages
  double bubble = 0;         ///< waiting for the first and last micro batches
  double data = 0;           ///< gradients and weights over the replicas, as far as nothing hides them
  double optimizer = 0;
  double offload = 0;        ///< to and from the host or NVMe

  double total() const {
    return matrix + attention + elementwise + recompute + tensor + context + pipeline + bubble + data + optimizer +
           offload;
  }
};

/// Requires machines.rates_known.
StepTime estimate_step(const Work& work, const Machines& machines);

/// One layer's passes over one micro batch, with what of its collectives shows: for comparison with published layers.
struct LayerTime {
  double forward = 0, backward = 0, recompute = 0;
};
LayerTime estimate_layer(const Work& work, const Machines& machines);

}  // namespace mds::topology::cost
