// TensorBoard event files: a stream of TFRecords, each a protobuf Event; just what scalars need.
//
// Formats: TFRecord framing and masked CRC as in tensorflow/core/lib/io/record_writer.h and hash/crc32c.h; the messages
// as in tensorboard/compat/proto/event.proto and summary.proto (field numbers beside the code).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "topology/result.hpp"

namespace mds::launcher {

/// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78).
uint32_t crc32c(std::string_view bytes);
/// The rotation and offset that TFRecord applies, so that a CRC of data with CRCs in it is no weaker.
uint32_t masked_crc32c(std::string_view bytes);
/// length (8 bytes, little endian), its masked CRC (4), data, its masked CRC (4).
std::string tfrecord(std::string_view data);

using Scalars = std::vector<std::pair<std::string, double>>;   ///< tag, value (stored as float)

/// One file, appended by one writer. Not thread-safe.
class TensorboardFile {
 public:
  /// A new file in `folder`, named so that files sort by `attempt`. Its first records are the version and a session
  /// start at `step`: TensorBoard then drops what earlier files say about later steps. Errors: unavailable.
  static Result<std::unique_ptr<TensorboardFile>> create(const std::string& folder, const std::string& host,
                                                         uint32_t attempt, int64_t step, double wall_time);
  TensorboardFile(const TensorboardFile&) = delete;
  TensorboardFile& operator=(const TensorboardFile&) = delete;
  ~TensorboardFile();

  /// `wall_time` in seconds since 1970. Errors: unavailable.
  Status add(int64_t step, double wall_time, const Scalars& scalars);

 private:
  explicit TensorboardFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  Status append(const std::string& records);
  int fd_;
  std::string path_;
};

}  // namespace mds::launcher
