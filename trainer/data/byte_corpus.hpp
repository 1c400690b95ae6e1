// ByteCorpus: text as tokens, a token a byte (vocabulary of 256). Documents are files, or lines of a jsonl file.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "topology/result.hpp"
#include "trainer/data/dataset.hpp"
#include "trainer/data/mapped_file.hpp"
#include "trainer/data/token_source.hpp"

namespace mds::trainer {

class ByteCorpus final : public TokenSource {
 public:
  /// A file, or all regular files of a folder (not of its subfolders), each once however many links lead to it, in the
  /// order of their names. Every file is cut by `shares` and the corpus holds the part of `split`: so validation text
  /// is never trained on and yet is of the same kind. Errors: bad_input.
  static Result<std::unique_ptr<ByteCorpus>> open_text(const std::string& path, const std::vector<double>& shares,
                                                       Split split);
  /// One {"text": "..."} object per line; blank lines are left out, other keys are ignored. Each text is a document and
  /// is ended by a byte 0, as real text has none. All lines; the caller splits by documents. Errors: bad_input with the
  /// line.
  static Result<std::unique_ptr<ByteCorpus>> open_jsonl(const std::string& path);

  const std::string& path() const override { return path_; }
  int64_t document_count() const override { return static_cast<int64_t>(documents_.size()); }
  int64_t length(int64_t document) const override {
    return static_cast<int64_t>(documents_[static_cast<size_t>(document)].size());
  }
  void copy(int64_t document, int64_t offset, int64_t count, int64_t* tokens) const override;

 private:
  explicit ByteCorpus(std::string path) : path_(std::move(path)) {}

  std::string path_;
  std::vector<MappedFile> files_;                      // text
  std::vector<std::byte> decoded_;                     // jsonl
  std::vector<std::span<const std::byte>> documents_;  // into one of the two
};

}  // namespace mds::trainer
