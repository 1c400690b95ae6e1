// Checkpoints: sharded safetensors files plus a manifest that is written last.
//
//   checkpoints/step-00000100/rank-00000.safetensors ... manifest.json
//
// Tensors carry layout-free names and slices ("parameter/<logical name>", "exp_avg/<logical name>", ...), so any
// TP/PP/DP/ZeRO layout loads any other's. A checkpoint exists exactly when its manifest does: files are written under
// a temporary folder, fsynced, checksummed, and renamed into place. All tensors on the CPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include "topology/result.hpp"
#include "trainer/comm/communicator.hpp"

namespace mds::trainer {

/// A block of a logical tensor that this rank owns (writes) or wants (reads).
struct TensorBlock {
  std::string name;                       ///< "parameter/layers.0.attention.query.weight"
  std::vector<int64_t> global_shape;
  std::vector<int64_t> offset;            ///< of the block in the logical tensor
  at::Tensor data;                        ///< the block: contiguous when written; overwritten in place when read
  /// A ZeRO shard may own only part of the block's elements in row-major order: [flat_begin, flat_end); the default is
  /// all. When so, `data` has flat_end - flat_begin elements (1-D).
  std::vector<int64_t> extent;            ///< the block's shape in the logical tensor; empty: that of `data`
  int64_t flat_begin = 0;
  int64_t flat_end = -1;                  ///< -1: all elements
};

struct CheckpointMeta {
  int64_t step = 0;                       ///< completed steps
  int64_t consumed_samples = 0;
  nlohmann::json config;                  ///< TrainerConfig of the run that wrote it
  nlohmann::json extra;                   ///< loss scale, ...
};

/// Collective over `world` (for CPU tensors), with one verdict for all: every rank writes its blocks, then rank 0
/// commits. A block that several ranks write alike counts once. On failure the temporary folder is removed, older
/// checkpoints are untouched, and the error names path and size. `keep` > 0 removes older ones after the commit, never
/// the one just written. Errors: unavailable (disk full), bad_input (a node does not see the folder), internal.
Status save_checkpoint(const std::string& folder, const CheckpointMeta& meta, const std::vector<TensorBlock>& blocks,
                       int keep, Communicator& world);

/// Paths of the committed checkpoints in `folder`, highest step first (manifest present and readable).
std::vector<std::string> list_checkpoints(const std::string& folder);

/// Reads the manifest only. Errors: bad_input (no checkpoint), corrupt.
Result<CheckpointMeta> read_checkpoint_meta(const std::string& checkpoint);

/// Fills the blocks from any layout's checkpoint, verifying the checksum of every file it touches; another type than
/// the stored one is converted to. Collective over `world` in its verdict: either every rank succeeds or every rank
/// gets the same error, and then the blocks hold anything. Errors: corrupt (file named), bad_input (tensor missing or
/// of another shape, named).
Status load_checkpoint(const std::string& checkpoint, std::vector<TensorBlock>& blocks, Communicator& world);

}  // namespace mds::trainer
