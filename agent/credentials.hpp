// Credentials of a job: its id and its pre-shared key. Whoever holds them may act as its head or as one of its agents.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "topology/result.hpp"

namespace mds::agent {

/// A 256-bit key made for one job. Every copy is wiped when it goes.
class JobKey {
 public:
  JobKey() = default;  ///< all zero; not usable before it is assigned
  JobKey(const JobKey&) = default;
  JobKey& operator=(const JobKey&) = default;
  ~JobKey();

  /// From the operating system's generator. Errors: internal.
  static Result<JobKey> random();
  /// 64 lower-case hexadecimal digits. Errors: bad_input (the text is not repeated in the message).
  static Result<JobKey> from_hex(std::string_view text);

  /// For the bootstrap line only: the result is as secret as the key.
  std::string hex() const;
  const std::array<uint8_t, 32>& bytes() const { return bytes_; }
  bool operator==(const JobKey&) const = default;  ///< takes no constant time: for keys that this process holds

 private:
  std::array<uint8_t, 32> bytes_{};
};

struct Credentials {
  uint64_t job = 0;  ///< random id of the job, carried by every message; not secret
  JobKey key;
  bool operator==(const Credentials&) const = default;
};

/// A new random job id and key. Errors: internal.
Result<Credentials> make_credentials();

/// 16 lower-case hexadecimal digits: the job's name in bootstrap lines and in the TLS handshake.
std::string job_to_hex(uint64_t job);
/// Errors: bad_input.
Result<uint64_t> job_from_hex(std::string_view text);

}  // namespace mds::agent
