#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "trainer/checkpoint/agreement.hpp"
#include "trainer/checkpoint/block_region.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/digest.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/checkpoint/tensor_types.hpp"

namespace mds::trainer {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

/// A wanted block while it is filled. `staging` is the block's data itself, or a tensor of the stored type that is
/// converted at the end.
struct Wanted {
  TensorBlock* block;
  const StoredTensor* stored;
  Region region;
  at::Tensor staging;
  std::vector<std::pair<int64_t, int64_t>> filled;  // [begin, end) of the staging elements

  /// True if the filled stretches leave no gap.
  bool complete() {
    std::ranges::sort(filled);
    int64_t end = 0;
    for (const auto& [from, to] : filled) {
      if (from > end) return false;
      end = std::max(end, to);
    }
    return end == region.size();
  }
};

/// One piece of work: a slice of a file that some wanted block needs.
struct Piece {
  const StoredSlice* slice;
  Wanted* wanted;
  std::vector<Run> runs;  // a: in the slice, b: in the block
};

Result<std::vector<Wanted>> find_wanted(const Manifest& manifest, std::vector<TensorBlock>& blocks) {
  std::vector<Wanted> wanted;
  for (TensorBlock& block : blocks) {
    Result<Region> region = region_of(block);
    if (!region) return region.error();
    const auto found = manifest.tensors.find(block.name);
    if (found == manifest.tensors.end()) {
      return bad_input("it has no tensor " + block.name + "; it was written by another model");
    }
    const StoredTensor& stored = found->second;
    if (stored.shape != block.global_shape) {
      return bad_input("tensor " + block.name + " has shape " + shape_text(stored.shape) + " there and " +
                       shape_text(block.global_shape) + " in this run's model");
    }
    const at::ScalarType type = scalar_type(stored.type);
    const bool direct = block.data.scalar_type() == type && block.data.is_contiguous() && block.data.is_cpu();
    at::Tensor staging = direct ? block.data : at::empty(block.data.sizes(), at::TensorOptions().dtype(type));
    wanted.push_back({&block, &stored, *std::move(region), std::move(staging), {}});
  }
  return wanted;
}

/// Pieces by file, so that each file is opened and checked once.
std::map<size_t, std::vector<Piece>> plan_pieces(std::vector<Wanted>& wanted) {
  std::map<size_t, std::vector<Piece>> pieces;
  for (Wanted& want : wanted) {
    for (const StoredSlice& slice : want.stored->slices) {
      std::vector<Run> runs = common_runs(want.stored->shape, slice.region, want.region);
      if (runs.empty()) continue;
      for (const Run& run : runs) want.filled.emplace_back(run.b, run.b + run.count);
      pieces[slice.file].push_back({&slice, &want, std::move(runs)});
    }
  }
  return pieces;
}

/// The file, if it is byte for byte what was written.
Result<SafetensorsFile> open_verified(const std::string& path, const StoredFile& expected) {
  const Result<MappedFile> file = MappedFile::open(path);
  if (!file) return corrupt(file.error().message);
  if (file->size() != expected.bytes) {
    return corrupt(path + " has " + std::to_string(file->size()) + " bytes instead of " +
                   std::to_string(expected.bytes) + "; it is truncated or was replaced");
  }
  file->expect_sequential();
  if (sha256_hex(file->bytes()) != expected.sha256)
    return corrupt(path + ": the checksum is wrong; the file is damaged");
  return SafetensorsFile::open(path);
}

Status copy_piece(const SafetensorsFile& file, const Piece& piece) {
  const SafetensorsEntry* entry = file.find(piece.slice->key);
  const TensorType type = piece.wanted->stored->type;
  if (!entry || entry->type != type || element_count(*entry) != piece.slice->region.size()) {
    return corrupt(file.path() + ": tensor " + piece.slice->key + " is not what the manifest says");
  }
  const std::byte* from = file.bytes(*entry).data();
  auto* to = static_cast<std::byte*>(piece.wanted->staging.mutable_data_ptr());
  const int64_t size = element_size(type);
  for (const Run& run : piece.runs) {
    std::memcpy(to + run.b * size, from + run.a * size, static_cast<size_t>(run.count * size));
  }
  return {};
}

Status load_blocks(const std::string& checkpoint, std::vector<TensorBlock>& blocks) {
  const Result<Manifest> manifest = read_manifest(checkpoint);
  if (!manifest) return manifest.error();
  Result<std::vector<Wanted>> wanted = find_wanted(*manifest, blocks);
  if (!wanted) return wanted.error().within("checkpoint " + checkpoint);
  const std::map<size_t, std::vector<Piece>> pieces = plan_pieces(*wanted);
  for (Wanted& want : *wanted) {
    if (!want.complete())
      return corrupt("checkpoint " + checkpoint + ": parts of tensor " + want.block->name + " are missing");
  }
  for (const auto& [file_index, pieces_of_file] : pieces) {
    const StoredFile& stored = manifest->files[file_index];
    const Result<SafetensorsFile> file = open_verified(checkpoint + "/" + stored.name, stored);
    if (!file) return file.error();
    for (const Piece& piece : pieces_of_file) {
      if (Status status = copy_piece(*file, piece); !status) return status;
    }
  }
  for (Wanted& want : *wanted) {
    if (!want.staging.is_same(want.block->data)) want.block->data.copy_(want.staging);
  }
  return {};
}

}  // namespace

Result<CheckpointMeta> read_checkpoint_meta(const std::string& checkpoint) {
  Result<Manifest> manifest = read_manifest(checkpoint);
  if (!manifest) return manifest.error();
  return CheckpointMeta{manifest->step, manifest->consumed_samples, std::move(manifest->config),
                        std::move(manifest->extra)};
}

Status load_checkpoint(const std::string& checkpoint, std::vector<TensorBlock>& blocks, Communicator& world) {
  return agree(world, load_blocks(checkpoint, blocks));
}

}  // namespace mds::trainer
