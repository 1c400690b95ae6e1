// Frames: a message as bytes. A fixed header and a CBOR body, little-endian:
//
//   offset  size  field
//        0     4  magic "MDSF"
//        4     2  protocol version
//        6     2  type
//        8     4  length of the body in bytes
//       12     4  attempt
//       16     8  job
//       24     8  sequence
//       32     -  body: one CBOR map (RFC 8949) of definite lengths, without tags, nested at most kFrameDepthMax deep
//
// The decoder is made for hostile bytes: it allocates only for bytes that have arrived, checks the shape of the body
// before it builds anything from it, and never throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "agent/messages.hpp"
#include "topology/result.hpp"

namespace mds::agent {

inline constexpr size_t kFrameHeaderBytes = 32;
inline constexpr int kFrameDepthMax = 32;               ///< of nested arrays and maps
inline constexpr uint64_t kFrameItemsMax = 1u << 20;    ///< CBOR items in one body; one takes up to 100 bytes in memory

/// Appends the frame of `message` to `out`. Errors: bad_input when the body exceeds `body_bytes_max`, is no object, or
/// holds text that is not UTF-8.
Status encode_frame(const Message& message, uint32_t body_bytes_max, std::string& out);

/// Is it one CBOR map that encode_frame could have made? Reads nothing beyond `body`, uses constant memory.
bool is_well_formed_body(std::span<const uint8_t> body);

/// A body within a body, as inner agents pass them on: nullopt unless it is well-formed. nlohmann::json's own reader
/// throws at absurd lengths even where it was asked not to.
std::optional<nlohmann::json> decode_body(std::span<const uint8_t> body);

/// Takes a stream of bytes apart. Expects sequence 1, 2, 3, ... of one job.
class FrameDecoder {
 public:
  FrameDecoder(uint64_t job, uint32_t body_bytes_max) : job_(job), body_bytes_max_(body_bytes_max) {}

  /// Adds bytes as they came. Call next() until it has nothing more before feeding again.
  void feed(std::span<const uint8_t> bytes);

  /// The next whole message, or nullopt while bytes are missing. Errors: corrupt, naming the fault; the stream cannot
  /// be trusted from there on, and every later call returns the same error.
  Result<std::optional<Message>> next();

  /// Bytes of a frame that is not complete yet: at the end of a stream, non-zero means that it was cut.
  size_t buffered_bytes() const { return buffer_.size() - offset_; }

 private:
  Result<std::optional<Message>> fail(const std::string& what);

  uint64_t job_;
  uint32_t body_bytes_max_;
  uint64_t sequence_ = 0;        // of the last message
  std::string buffer_;
  size_t offset_ = 0;            // of the first byte in buffer_ that is not consumed
  std::optional<Error> error_;
};

}  // namespace mds::agent
