#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <set>
#include <system_error>

#include "trainer/checkpoint/agreement.hpp"
#include "trainer/checkpoint/block_region.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/checkpoint_folder.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/checkpoint/tensor_types.hpp"

namespace mds::trainer {
namespace {

constexpr const char* kShared = ": checkpoints need a folder that all nodes share; set job.output_dir to one";

std::string file_name(int rank) {
  char name[40];
  std::snprintf(name, sizeof name, "rank-%05d.safetensors", rank);
  return name;
}

/// A name for the block in its file: the logical name, numbered if the rank holds several parts of that tensor.
std::string unused_key(const std::string& name, const std::set<std::string>& used) {
  std::string key = name;
  for (int i = 1; used.contains(key); ++i) key = name + "#" + std::to_string(i);
  return key;
}

/// Writes this rank's blocks to one file; returns the manifest's part about it.
Result<Manifest> write_blocks(const std::string& partial, const std::vector<TensorBlock>& blocks, int rank) {
  Manifest part;
  std::vector<SafetensorsEntry> entries;
  std::set<std::string> used;
  for (const TensorBlock& block : blocks) {
    const Result<Region> region = region_of(block);
    if (!region) return region.error();
    const Result<TensorType> type = tensor_type(block.data.scalar_type());
    if (!type) return type.error().within(block.name);
    const std::string key = *used.insert(unused_key(block.name, used)).first;
    const bool whole_box = region->size() == product(region->extent);
    entries.push_back({key, *type, whole_box ? region->extent : std::vector<int64_t>{region->size()}, 0, 0});
    StoredTensor& tensor =
        part.tensors.try_emplace(block.name, StoredTensor{*type, block.global_shape, {}}).first->second;
    if (tensor.type != *type || tensor.shape != block.global_shape) {
      return internal("the blocks of tensor " + block.name + " differ in type or global shape");
    }
    tensor.slices.push_back({0, key, *region});
  }

  if (!std::filesystem::is_directory(partial)) return bad_input("this node does not see " + partial + kShared);
  const std::string name = file_name(rank);
  Result<SafetensorsWriter> writer = SafetensorsWriter::create(partial + "/" + name, std::move(entries));
  if (!writer) return writer.error();
  for (const TensorBlock& block : blocks) {
    const at::Tensor data = block.data.to(at::kCPU).contiguous();
    const std::span bytes(static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes());
    if (Status status = writer->append(bytes); !status) return status.error();
  }
  Result<SafetensorsWriter::Written> written = writer->finish();
  if (!written) return written.error();
  part.files.push_back({name, written->bytes, written->sha256});
  return part;
}

/// Rank 0, when every rank has written its file.
Status commit(const CheckpointFolder& folder, const CheckpointMeta& meta, const std::vector<std::string>& parts) {
  Manifest manifest;
  manifest.step = meta.step;
  manifest.consumed_samples = meta.consumed_samples;
  manifest.config = meta.config;
  manifest.extra = meta.extra;
  for (const std::string& text : parts) {
    Result<Manifest> part = parse_manifest("a rank's part of the manifest", std::as_bytes(std::span(text)));
    if (!part) return part.error();
    if (Status status = manifest.add(*std::move(part)); !status) return status;
  }
  if (Status status = manifest.finish(); !status) return status;
  for (const StoredFile& file : manifest.files) {
    const std::string path = folder.partial_path(meta.step) + "/" + file.name;
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0 && static_cast<uint64_t>(status.st_size) == file.bytes) continue;
    return bad_input("rank 0 does not see " + path + kShared);
  }
  return folder.commit(meta.step, to_text(manifest));
}

}  // namespace

Status save_checkpoint(const std::string& path, const CheckpointMeta& meta, const std::vector<TensorBlock>& blocks,
                       int keep, Communicator& world) {
  const CheckpointFolder folder(path);
  const bool first = world.rank() == 0;
  Status status = agree(world, first ? folder.prepare(meta.step) : Status{});
  if (!status) return status;

  Result<Manifest> part = write_blocks(folder.partial_path(meta.step), blocks, world.rank());
  status = agree(world, part ? Status{} : Status{part.error()});
  if (status) {
    const std::vector<std::string> parts = gather_texts(world, to_text(*part));
    status = agree(world, first ? commit(folder, meta, parts) : Status{});
  }
  if (!first) return status;
  if (status) {
    folder.remove_older(keep, meta.step);
  } else {
    folder.discard(meta.step);
  }
  return status;
}

}  // namespace mds::trainer
