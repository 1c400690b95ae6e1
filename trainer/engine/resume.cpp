#include "trainer/engine/resume.hpp"

#include <cstring>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

namespace mds::trainer {
namespace {

OptimizerState on_host(const OptimizerState& state) {
  return {state.range, state.master.to(at::kCPU), state.exp_avg.to(at::kCPU), state.exp_avg_sq.to(at::kCPU)};
}

/// Rank 0's text on every rank.
std::string broadcast_text(const std::string& text, Communicator& world) {
  at::Tensor length = at::full({1}, static_cast<int64_t>(text.size()), at::kLong);
  world.broadcast(length, 0);
  at::Tensor bytes = at::empty({length.item<int64_t>()}, at::kByte);
  if (world.rank() == 0) std::memcpy(bytes.data_ptr(), text.data(), text.size());
  if (bytes.numel() > 0) world.broadcast(bytes, 0);
  return std::string(static_cast<const char*>(bytes.const_data_ptr()), bytes.numel());
}

enum class Verdict : int64_t { good, damaged, fatal };

/// The worst verdict of all ranks, so that they go on alike.
Verdict agree(Verdict own, Communicator& world) {
  at::Tensor worst = at::full({1}, static_cast<int64_t>(own), at::kLong);
  world.all_reduce(worst, ReduceOp::max);
  return static_cast<Verdict>(worst.item<int64_t>());
}

Result<CheckpointMeta> load_into(const std::string& checkpoint, Optimizer& optimizer, Communicator& world) {
  auto meta = read_checkpoint_meta(checkpoint);
  // load_checkpoint is collective: either all ranks enter it or none.
  const Verdict readable = agree(meta ? Verdict::good : Verdict::damaged, world);
  if (!meta) return meta.error();
  if (readable != Verdict::good) return corrupt(checkpoint + ": another rank cannot read its manifest");
  OptimizerState state = optimizer.shard_state(), host = on_host(state);
  auto blocks = shard_blocks(optimizer, host, true);
  if (Status status = load_checkpoint(checkpoint, blocks, world); !status) return status.error();
  if (!state.master.is_cpu()) {
    state.master.copy_(host.master);
    state.exp_avg.copy_(host.exp_avg);
    state.exp_avg_sq.copy_(host.exp_avg_sq);
  }
  optimizer.complete_from_shards();
  return *meta;
}

std::vector<std::string> candidates(const CheckpointConfig& config, Communicator& world) {
  std::string text;
  if (world.rank() == 0) {
    for (const std::string& checkpoint : list_checkpoints(config.folder)) text += checkpoint + '\n';
    if (text.empty() && !config.load.empty()) text = config.load + '\n';
  }
  text = broadcast_text(text, world);
  std::vector<std::string> paths;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    paths.push_back(text.substr(begin, end - begin));
  }
  return paths;
}

}  // namespace

std::vector<TensorBlock> shard_blocks(const Optimizer& optimizer, const OptimizerState& state, bool all) {
  const std::pair<const char*, const at::Tensor*> kinds[] = {
      {"parameter/", &state.master}, {"exp_avg/", &state.exp_avg}, {"exp_avg_sq/", &state.exp_avg_sq}};
  std::vector<TensorBlock> blocks;
  for (const PlacedParameter& placed : optimizer.buffers().parameters()) {
    const Parameter& parameter = *placed.parameter;
    if (!all && !optimizer.owns(parameter)) continue;
    const int64_t row = placed.range.size() / std::max<int64_t>(parameter.shape[0], 1);
    for (const LogicalSlice& slice : parameter.slices) {
      const int64_t begin = placed.range.begin + slice.local_begin * row;
      const FlatRange whole{begin, begin + slice.local_rows * row}, part = whole.intersect(state.range);
      if (part.size() == 0) continue;
      std::vector<int64_t> extent = parameter.shape;
      extent[0] = slice.local_rows;
      for (const auto& [prefix, tensor] : kinds) {
        const at::Tensor data = tensor->narrow(0, part.begin - state.range.begin, part.size());
        blocks.push_back({prefix + slice.name, slice.global_shape, slice.global_offset, data, extent,
                          part.begin - whole.begin, part.end - whole.begin});
      }
    }
  }
  return blocks;
}

Status save_training(const CheckpointConfig& config, const CheckpointMeta& meta, Optimizer& optimizer,
                     Communicator& world) {
  const OptimizerState state = on_host(optimizer.shard_state());
  return save_checkpoint(config.folder, meta, shard_blocks(optimizer, state, false), config.keep, world);
}

Result<std::optional<Resumed>> resume_training(const CheckpointConfig& config, Optimizer& optimizer,
                                               Communicator& world,
                                               const std::function<void(const std::string&)>& warn) {
  std::optional<Error> newest_error;
  for (const std::string& checkpoint : candidates(config, world)) {
    auto meta = load_into(checkpoint, optimizer, world);
    const bool damaged = !meta && meta.error().code == ErrorCode::corrupt;
    const Verdict own = meta ? Verdict::good : damaged ? Verdict::damaged : Verdict::fatal;
    const Verdict verdict = agree(own, world);
    if (verdict == Verdict::good) return std::optional(Resumed{checkpoint, std::move(*meta)});
    const Error error = meta ? corrupt("another rank cannot load it") : meta.error();
    if (verdict == Verdict::fatal) return error.within("checkpoint " + checkpoint);
    if (!newest_error) newest_error = error.within("checkpoint " + checkpoint);
    if (world.rank() == 0) warn("checkpoint " + checkpoint + " is damaged (" + error.message + ")");
  }
  if (!newest_error) return std::optional<Resumed>();
  newest_error->message += "; no good checkpoint is left: remove the damaged ones to start anew";
  return *newest_error;
}

}  // namespace mds::trainer
