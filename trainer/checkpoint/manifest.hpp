// The manifest of a checkpoint: which file holds which part of which logical tensor, with checksums. No LibTorch here.
//
//   {"body": {"format": "mds-checkpoint", "version": 1, "step", "consumed_samples", "config", "extra",
//             "files": [{"name", "bytes", "sha256"}],
//             "tensors": {name: {"type", "shape", "slices": [{"file", "key", "offset", "extent", "flat"}]}}},
//    "sha256": of the body's text}
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "topology/result.hpp"
#include "trainer/checkpoint/region.hpp"
#include "trainer/checkpoint/safetensors.hpp"

namespace mds::trainer {

struct StoredFile {
  std::string name;  ///< in the checkpoint's folder
  uint64_t bytes = 0;
  std::string sha256;  ///< of the whole file
};

struct StoredSlice {
  size_t file = 0;  ///< index into Manifest::files
  std::string key;  ///< the tensor's name in that file
  Region region;
};

struct StoredTensor {
  TensorType type = TensorType::f32;
  std::vector<int64_t> shape;
  std::vector<StoredSlice> slices;
};

struct Manifest {
  int64_t step = 0;
  int64_t consumed_samples = 0;
  nlohmann::json config, extra;
  std::vector<StoredFile> files;
  std::map<std::string, StoredTensor> tensors;

  /// Adds what one rank has written: its files and slices, whose numbers are moved up. Errors: internal if a tensor's
  /// type or shape is not the one that other ranks gave.
  Status add(Manifest part);
  /// Drops slices that several ranks have written alike. Errors: internal if the slices of a tensor do not make up the
  /// whole of it.
  Status finish();
};

std::string to_text(const Manifest& manifest);
/// Errors: corrupt, "<path> ...": no JSON, another format or version, a wrong checksum, regions outside of their
/// tensor.
Result<Manifest> parse_manifest(const std::string& path, std::span<const std::byte> text);
Result<Manifest> read_manifest(const std::string& checkpoint);

}  // namespace mds::trainer
