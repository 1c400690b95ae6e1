// AdamW on fp32 masters over FlatBuffers, with ZeRO stage 0 or 1 as a policy.
//
// ZeRO-0: every data-parallel rank has all masters and moments; gradients are all-reduced.
// ZeRO-1: it has those of its own shard; gradients are reduce-scattered, new values all-gathered.
// Both do the same operations in the same order, shard by shard, so their bits are the same: sums over ranks are in
// rank order, the norm is a sum of per-shard sums, and kernels are called for the same ranges.
// Not thread-safe. Collectives must be called by all ranks in the same order.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/comm/communicator.hpp"
#include "trainer/config.hpp"
#include "trainer/engine/flat_buffers.hpp"

namespace mds::trainer {

/// What the optimizer must know of this rank's place.
struct OptimizerGroups {
  Communicator& tensor;
  Communicator& data;
  Communicator& embedding;       ///< of size 1 where no tied embedding is shared
  /// Whether the tied embedding of this rank is the one that counts (norm, checkpoint): not on the last of several
  /// stages.
  bool owns_shared_embedding = true;
};

/// fp32 masters and moments of the range that this rank owns; all have range.size() elements.
struct OptimizerState {
  FlatRange range;
  at::Tensor master, exp_avg, exp_avg_sq;
};

class Optimizer {
 public:
  /// `buffers` and the groups outlive this.
  Optimizer(FlatBuffers& buffers, const OptimizerConfig& config, int zero_stage, const OptimizerGroups& groups);

  /// Fills the parameters by `fill`, which finds them bound to master precision, then sets masters and values.
  void initialize(const std::function<void()>& fill);

  /// Collective over tensor, embedding and data groups: sums this step's gradients. Afterwards this rank's shard (all
  /// shards under ZeRO-0) holds the gradient of the global batch.
  void reduce_gradients();

  /// Sum of squares of this rank's shard, without what another rank counts: the square of the global norm is its sum
  /// over all ranks. 0-dim float64 on the device. After reduce_gradients.
  at::Tensor squared_norm_share();

  /// Step `step` (1-based) with gradients multiplied by `grad_scale`; then values are gathered and gradients zeroed.
  /// Collective over the data group.
  void update(double lr, double grad_scale, int64_t step);

  /// Masters and moments were overwritten (checkpoint): brings all values in line. Collective over the data group.
  void publish_values();

  /// State of this rank's shard alone, whatever the ZeRO stage: what it saves and loads.
  OptimizerState shard_state();
  /// Under ZeRO-0 gathers what every rank loaded into its shard; then as publish_values.
  void complete_from_shards();

  const FlatBuffers& buffers() const { return buffers_; }
  /// Whether this rank, among those that hold the same values, saves and counts the parameter.
  bool owns(const Parameter& parameter) const;
  uint64_t state_bytes() const;

 private:
  /// A range within one shard whose parameters are treated alike; padding goes with its predecessor.
  struct Run {
    FlatRange range;
    bool flag = false;
  };
  std::vector<Run> runs(const FlatRange& within, const std::function<bool(const Parameter&)>& flag) const;
  std::vector<FlatRange> updated_shards() const;
  at::Tensor state_slice(const at::Tensor& state, const FlatRange& range) const;
  void sum_over(Communicator& group, const std::function<bool(const Parameter&)>& chosen);
  void gather(at::Tensor& flat);

  FlatBuffers& buffers_;
  OptimizerConfig config_;
  OptimizerGroups groups_;
  bool sharded_;                 ///< ZeRO-1
  FlatRange own_shard_;
  bool values_are_masters_;      ///< full precision: one buffer is both
  OptimizerState state_;
};

}  // namespace mds::trainer
