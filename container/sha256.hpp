// SHA-256 of what passes through, of a text or of a file, as hexadecimal digits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "topology/result.hpp"

struct evp_md_ctx_st;

namespace mds::container {

class Sha256 {
 public:
  Sha256();
  void add(const void* data, size_t size);
  /// 64 lower-case digits. Call once, last.
  std::string finish();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

/// Of a short text.
std::string sha256_of(const std::string& text);

struct FileDigest {
  std::string sha256;
  uint64_t bytes = 0;  ///< that were read
};

/// Reads the whole file. Errors: bad_input (path and reason).
Result<FileDigest> digest_of_file(const std::string& path);

/// Are these the 64 digits that finish() gives?
bool is_sha256(const std::string& text);

}  // namespace mds::container
