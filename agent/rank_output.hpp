// A rank's output: two streams of bytes become lines; lines go to the log file, into the tail and to the head.
//
// The agent always reads, so that a rank never waits for the head: lines that the head does not take in time are
// dropped from what is forwarded, and counted. The log file has them all.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "agent/unique_fd.hpp"

namespace mds::agent {

inline constexpr size_t kLineBytesMax = 64u << 10;          ///< a longer line is cut into lines of this length
inline constexpr size_t kTailLineBytesMax = 4u << 10;       ///< of a line in the tail
inline constexpr size_t kPendingOutputBytesMax = 1u << 20;  ///< of one rank, waiting to be forwarded

/// Cuts one stream into lines, without their '\n' (and a '\r' before it).
class LineSplitter {
 public:
  /// Calls `on_line` for every line that `bytes` completes.
  void feed(std::string_view bytes, const std::function<void(std::string_view)>& on_line);
  /// A last line without its end.
  void flush(const std::function<void(std::string_view)>& on_line);

 private:
  std::string partial_;
};

/// `text` with every byte that is not part of valid UTF-8 replaced by U+FFFD.
std::string to_utf8(std::string_view text);

class RankOutput {
 public:
  struct Options {
    std::string log_path;        ///< empty: no file
    uint32_t tail_lines = 20;
    bool forward = true;
  };
  struct Batch {
    std::vector<std::string> lines;
    uint64_t dropped = 0;        ///< lines lost since the last batch
  };

  /// Reads both descriptors from now on. `on_pending` is called when there is something to forward, once until the
  /// next take(). Errors of the log file are told to `on_fault`, once.
  RankOutput(boost::asio::any_io_executor executor, UniqueFd output, UniqueFd errors, const Options& options,
             std::function<void()> on_pending, std::function<void(const std::string&)> on_fault);
  ~RankOutput();  ///< reads no more

  /// Takes what is in the pipes now, ends partial lines. For a rank that has ended; never waits for others that hold
  /// the pipes open.
  void drain();

  /// What is to be forwarded, at most about `bytes_max` (one line at least).
  Batch take(size_t bytes_max);
  bool has_pending() const;

  /// The last lines, oldest first, valid UTF-8.
  std::vector<std::string> tail() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mds::agent
