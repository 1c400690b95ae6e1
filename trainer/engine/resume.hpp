// Between the optimizer's shards and checkpoints: what this rank saves and loads, and from which checkpoint a run goes
// on.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "topology/result.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/comm/communicator.hpp"
#include "trainer/config.hpp"
#include "trainer/engine/optimizer.hpp"

namespace mds::trainer {

/// Blocks of masters ("parameter/"), exp_avg and exp_avg_sq of this rank's shard, as views of `state` (on the CPU): one
/// per logical slice that the shard meets. `all`: also what another rank with the same values saves.
std::vector<TensorBlock> shard_blocks(const Optimizer& optimizer, const OptimizerState& state, bool all);

/// Collective over `world` (CPU). Errors: as save_checkpoint.
Status save_training(const CheckpointConfig& config, const CheckpointMeta& meta, Optimizer& optimizer,
                     Communicator& world);

struct Resumed {
  std::string checkpoint;     ///< its folder
  CheckpointMeta meta;
};

/// Loads the newest good checkpoint of config.folder; one that fails its checks is reported to `warn` (on rank 0) and
/// the one before it is tried. Without any, config.load is loaded, if given. Nothing to load: no value.
/// Collective over `world` (CPU). Errors: corrupt (checkpoints exist, none is good), bad_input (of another model; no
/// such checkpoint).
Result<std::optional<Resumed>> resume_training(const CheckpointConfig& config, Optimizer& optimizer,
                                               Communicator& world,
                                               const std::function<void(const std::string&)>& warn);

}  // namespace mds::trainer
