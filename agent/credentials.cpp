#include "agent/credentials.hpp"

#include <openssl/crypto.h>
#include <sys/random.h>

#include <cerrno>

namespace mds::agent {
namespace {

constexpr char kDigits[] = "0123456789abcdef";

int digit_value(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  return -1;
}

// The kernel's generator, as OpenSSL seeds its own from it: setting that one up here would hold up the agents' start.
Status fill_randomly(void* bytes, size_t size) {
  ssize_t n = 0;
  while ((n = getrandom(bytes, size, 0)) < 0 && errno == EINTR) {
  }
  if (n < 0) return system_error("getrandom", errno);
  return n == static_cast<ssize_t>(size) ? Status() : internal("getrandom gave too few bytes");  // not below 256 bytes
}

}  // namespace

JobKey::~JobKey() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

Result<JobKey> JobKey::random() {
  JobKey key;
  if (Status s = fill_randomly(key.bytes_.data(), key.bytes_.size()); !s) return s.error();
  return key;
}

Result<JobKey> JobKey::from_hex(std::string_view text) {
  JobKey key;
  bool good = text.size() == 2 * key.bytes_.size();
  for (size_t i = 0; good && i < key.bytes_.size(); ++i) {
    const int high = digit_value(text[2 * i]), low = digit_value(text[2 * i + 1]);
    good = high >= 0 && low >= 0;
    key.bytes_[i] = static_cast<uint8_t>(high << 4 | low);
  }
  if (!good) return bad_input("a key of 64 lower-case hexadecimal digits is expected");
  return key;
}

std::string JobKey::hex() const {
  std::string text;
  text.reserve(2 * bytes_.size());
  for (const uint8_t byte : bytes_) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

Result<Credentials> make_credentials() {
  auto key = JobKey::random();
  if (!key) return key.error();
  Credentials credentials{0, *key};
  if (Status s = fill_randomly(&credentials.job, sizeof credentials.job); !s) return s.error();
  return credentials;
}

std::string job_to_hex(uint64_t job) {
  std::string text(16, '0');
  for (int i = 15; i >= 0; --i, job >>= 4) text[i] = kDigits[job & 15];
  return text;
}

Result<uint64_t> job_from_hex(std::string_view text) {
  uint64_t job = 0;
  bool good = text.size() == 16;
  for (size_t i = 0; good && i < text.size(); ++i) {
    const int value = digit_value(text[i]);
    good = value >= 0;
    job = job << 4 | static_cast<uint64_t>(value & 15);
  }
  if (!good) return bad_input("a job id of 16 lower-case hexadecimal digits is expected");
  return job;
}

}  // namespace mds::agent
