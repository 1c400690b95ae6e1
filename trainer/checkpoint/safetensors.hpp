// Safetensors files (https://huggingface.co/docs/safetensors): named tensors of one file, mapped for reading and
// streamed for writing. No LibTorch here; tensor_types.hpp joins the two.
//
//   8 bytes: header length n, little endian | n bytes: JSON {name: {dtype, shape, data_offsets}} | the tensors' bytes
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "topology/result.hpp"
#include "trainer/data/mapped_file.hpp"

namespace mds::trainer {

enum class TensorType { f64, f32, f16, bf16, i64, i32, u8 };

/// "F32" etc., as in the file.
const char* to_string(TensorType type);
int64_t element_size(TensorType type);

struct SafetensorsEntry {
  std::string name;
  TensorType type = TensorType::f32;
  std::vector<int64_t> shape;  ///< row-major; empty for a scalar
  uint64_t begin = 0;          ///< bytes, relative to the end of the header
  uint64_t end = 0;
};

/// Product of the shape. Requires a shape that SafetensorsFile or SafetensorsWriter accepted (no overflow).
int64_t element_count(const SafetensorsEntry& entry);

/// A validated file: every entry's type, shape and offsets fit the file, entries neither overlap nor leave holes.
class SafetensorsFile {
 public:
  /// Errors: bad_input (cannot be opened), corrupt (naming the file and the tensor).
  static Result<SafetensorsFile> open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  ///< in the order of their bytes
  /// Null if there is none. Valid for the file's life.
  const SafetensorsEntry* find(const std::string& name) const;
  /// The tensor's bytes, which may be unaligned for their type: copy, do not cast. Valid for the file's life.
  std::span<const std::byte> bytes(const SafetensorsEntry& entry) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  explicit SafetensorsFile(MappedFile file) : file_(std::move(file)) {}

  MappedFile file_;
  uint64_t data_begin_ = 0;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
};

/// The tensors of a Hugging Face folder: model.safetensors, or the shards that model.safetensors.index.json lists.
class SafetensorsFolder {
 public:
  struct Tensor {
    const SafetensorsEntry* entry;
    std::span<const std::byte> bytes;
  };

  /// Opens every shard. Errors: bad_input (no such file in the folder), corrupt (a shard is, or lacks a listed tensor).
  static Result<SafetensorsFolder> open(const std::string& folder);

  const std::string& path() const { return path_; }
  std::vector<std::string> names() const;  ///< sorted
  /// Errors: bad_input naming folder and tensor. Valid for the folder's life.
  Result<Tensor> find(const std::string& name) const;

 private:
  std::string path_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t> file_of_;
};

/// Writes one file in the order of `entries`, whose begin and end are computed here. Not thread-safe.
class SafetensorsWriter {
 public:
  /// Creates (or truncates) the file, reserves its space and writes the header. Errors: unavailable naming path and
  /// size (disk full), internal.
  static Result<SafetensorsWriter> create(const std::string& path, std::vector<SafetensorsEntry> entries,
                                          const std::map<std::string, std::string>& metadata = {});
  SafetensorsWriter(SafetensorsWriter&&) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) noexcept;
  ~SafetensorsWriter();

  /// The next bytes of the data section; chunks may cut tensors anywhere.
  Status append(std::span<const std::byte> bytes);

  struct Written {
    uint64_t bytes = 0;  ///< the file's size
    std::string sha256;  ///< of the whole file, hex
  };
  /// Requires that all bytes were appended. Flushes the file to disk and closes it.
  Result<Written> finish();

 private:
  struct State;
  explicit SafetensorsWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace mds::trainer
