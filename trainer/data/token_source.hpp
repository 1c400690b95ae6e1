// TokenSource: documents of token ids, wherever they come from. Two implementations: IndexedDataset (Megatron's
// .bin/.idx) and ByteCorpus (text files and jsonl, a token a byte).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "topology/result.hpp"

namespace mds::trainer {

/// Immutable and thread-safe once opened.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  /// Where the tokens come from, for messages.
  virtual const std::string& path() const = 0;
  virtual int64_t document_count() const = 0;
  /// Tokens of a document; may be 0. Requires 0 <= document < document_count().
  virtual int64_t length(int64_t document) const = 0;
  /// Writes tokens [offset, offset + count) of a document, which must lie within its length.
  virtual void copy(int64_t document, int64_t offset, int64_t count, int64_t* tokens) const = 0;
};

/// Cuts `size` items into train, validation and test by `shares` (one to three, normalised): boundaries b with part i
/// in [b[i], b[i + 1]). The rounding is Megatron's (get_train_valid_test_split_). Requires shares that check() accepts.
std::array<int64_t, 4> split_boundaries(const std::vector<double>& shares, int64_t size);

}  // namespace mds::trainer
