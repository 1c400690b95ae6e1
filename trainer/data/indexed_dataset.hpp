// Megatron-LM's indexed data sets ("mmap" format): <prefix>.idx says where each document lies in <prefix>.bin.
//
//   .idx, little endian, packed: "MMIDIDX\0\0" | u64 version = 1 | u8 type code | u64 documents n | u64 boundaries m
//         | i32 lengths[n], in tokens | i64 byte offsets[n] into .bin | i64 boundaries[m]
//   .bin: the tokens, back to back
// Layout: megatron/data/indexed_dataset.py (MMapIndexedDataset). A "document" here is what Megatron calls a sequence
// there; its GPT data set counts in these, too, and leaves the boundaries aside.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "topology/result.hpp"
#include "trainer/data/mapped_file.hpp"
#include "trainer/data/token_source.hpp"

namespace mds::trainer {

/// Type codes of the .idx header. Its codes for floating point (6, 7) hold no tokens and are refused.
enum class TokenType : uint8_t { u8 = 1, i8 = 2, i16 = 3, i32 = 4, i64 = 5, u16 = 8 };

class IndexedDataset final : public TokenSource {
 public:
  /// `prefix` may end in .bin or .idx. Checks every length and offset against the files' sizes, so that nothing can
  /// fail later. Errors: bad_input (cannot be opened), corrupt; the file is named.
  static Result<std::unique_ptr<IndexedDataset>> open(std::string prefix);

  const std::string& path() const override { return prefix_; }
  int64_t document_count() const override { return count_; }
  int64_t length(int64_t document) const override;
  void copy(int64_t document, int64_t offset, int64_t count, int64_t* tokens) const override;
  TokenType type() const { return type_; }

 private:
  IndexedDataset(std::string prefix, MappedFile index, MappedFile data)
      : prefix_(std::move(prefix)), index_(std::move(index)), data_(std::move(data)) {}
  Status read_header();
  Status check_documents() const;
  int64_t byte_offset(int64_t document) const;

  std::string prefix_;
  MappedFile index_, data_;
  TokenType type_ = TokenType::u8;
  int64_t count_ = 0;
  int64_t boundary_count_ = 0;
};

/// Writes a data set, document by document, byte for byte as Megatron's own builder does.
class IndexedDatasetWriter {
 public:
  /// Creates <prefix>.bin; <prefix>.idx follows in finish(). Errors: internal naming the file.
  static Result<IndexedDatasetWriter> create(const std::string& prefix, TokenType type);
  IndexedDatasetWriter(IndexedDatasetWriter&&) noexcept;
  ~IndexedDatasetWriter();

  /// Errors: bad_input if a token does not fit the type, internal if the file cannot be written.
  Status add(std::span<const int64_t> document);
  Status finish();

 private:
  struct State;
  explicit IndexedDatasetWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace mds::trainer
