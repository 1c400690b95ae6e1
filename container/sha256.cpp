#include "container/sha256.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace mds::container {

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }

void Sha256::add(const void* data, size_t size) { EVP_DigestUpdate(context_.get(), data, size); }

std::string Sha256::finish() {
  unsigned char raw[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_DigestFinal_ex(context_.get(), raw, &size);
  std::string text;
  for (unsigned i = 0; i < size; ++i) {
    text += "0123456789abcdef"[raw[i] >> 4];
    text += "0123456789abcdef"[raw[i] & 15];
  }
  return text;
}

std::string sha256_of(const std::string& text) {
  Sha256 digest;
  digest.add(text.data(), text.size());
  return digest.finish();
}

Result<FileDigest> digest_of_file(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  FileDigest found;
  Sha256 digest;
  std::vector<char> chunk(1 << 20);
  ssize_t n = -1;
  while (file >= 0 && ((n = read(file, chunk.data(), chunk.size())) > 0 || (n < 0 && errno == EINTR))) {
    if (n < 0) continue;
    digest.add(chunk.data(), static_cast<size_t>(n));
    found.bytes += static_cast<uint64_t>(n);
  }
  const int error = errno;
  if (file >= 0) close(file);
  if (n < 0) return bad_input("cannot read " + path + ": " + std::strerror(error));
  found.sha256 = digest.finish();
  return found;
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace mds::container
