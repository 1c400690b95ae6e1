// SHA-256 of what passes through, as hexadecimal digits.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

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

/// Are these the 64 digits that finish() gives?
bool is_sha256(const std::string& text);

}  // namespace mds::container
