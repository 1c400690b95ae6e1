#include "agent/rank_output.hpp"

#include <fcntl.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <boost/asio/posix/stream_descriptor.hpp>

#include "agent/utf8.hpp"

namespace mds::agent {

namespace asio = boost::asio;

namespace {

std::array<char, 64u << 10> chunk;   // of one read at a time: all ranks are read by one thread
constexpr int kReadsPerTurn = 4;     // then others have theirs
constexpr int kReadsPerDrain = 32;   // 2 MiB: more is from somebody who still writes

std::string_view without_carriage_return(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

}  // namespace

void LineSplitter::feed(std::string_view bytes, const std::function<void(std::string_view)>& on_line) {
  while (!bytes.empty()) {
    const size_t room = kLineBytesMax - partial_.size();
    const size_t end = bytes.substr(0, room + 1).find('\n');
    const std::string_view piece = bytes.substr(0, std::min(end, room));
    if (end == std::string_view::npos && bytes.size() <= room) {
      partial_.append(bytes);
      return;
    }
    if (partial_.empty()) {
      on_line(without_carriage_return(piece));
    } else {
      partial_.append(piece);
      on_line(without_carriage_return(partial_));
      partial_.clear();
    }
    bytes.remove_prefix(piece.size() + (end == std::string_view::npos ? 0 : 1));
  }
}

void LineSplitter::flush(const std::function<void(std::string_view)>& on_line) {
  if (partial_.empty()) return;
  on_line(without_carriage_return(partial_));
  partial_.clear();
}

std::string to_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) {
      out += "\xef\xbf\xbd";
      text.remove_prefix(1);
    } else {
      out += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return out;
}

struct RankOutput::Impl : std::enable_shared_from_this<RankOutput::Impl> {
  struct Stream {
    asio::posix::stream_descriptor pipe;
    LineSplitter splitter;
  };

  Impl(const asio::any_io_executor& executor, UniqueFd output, UniqueFd errors, const Options& o)
      : options(o),
        streams{Stream{{executor, output.release()}, {}}, Stream{{executor, errors.release()}, {}}} {}

  void wait(Stream& stream);
  bool read_some(Stream& stream, int reads_max);
  void on_line(std::string_view line);
  void write_log();

  Options options;
  std::array<Stream, 2> streams;
  UniqueFd log;
  std::string log_lines;  // of this turn
  std::deque<std::string> tail;
  std::deque<std::string> pending;
  size_t pending_bytes = 0;
  uint64_t dropped = 0;
  bool announced = false;
  bool closed = false;
  std::function<void()> on_pending;
  std::function<void(const std::string&)> on_fault;
};

void RankOutput::Impl::wait(Stream& stream) {
  if (closed || !stream.pipe.is_open()) return;
  stream.pipe.async_wait(asio::posix::stream_descriptor::wait_read,
                         [self = shared_from_this(), &stream](boost::system::error_code error) {
                           if (error || self->closed) return;
                           if (self->read_some(stream, kReadsPerTurn)) self->wait(stream);
                         });
}

// False at the stream's end.
bool RankOutput::Impl::read_some(Stream& stream, int reads_max) {
  if (!stream.pipe.is_open()) return false;
  const auto take_line = [this](std::string_view line) { on_line(line); };
  bool open = true;
  for (int i = 0; i < reads_max; ++i) {
    const ssize_t n = ::read(stream.pipe.native_handle(), chunk.data(), chunk.size());
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (n <= 0) {
      stream.splitter.flush(take_line);
      boost::system::error_code ignored;
      stream.pipe.close(ignored);
      open = false;
      break;
    }
    stream.splitter.feed({chunk.data(), static_cast<size_t>(n)}, take_line);
  }
  write_log();
  return open;
}

void RankOutput::Impl::on_line(std::string_view line) {
  if (log) log_lines.append(line).push_back('\n');
  tail.push_back(std::string(line.substr(0, kTailLineBytesMax)));
  if (tail.size() > options.tail_lines) tail.pop_front();
  if (!options.forward) return;
  if (pending_bytes + line.size() > kPendingOutputBytesMax) {
    ++dropped;
  } else {
    pending.push_back(to_utf8(line));
    pending_bytes += pending.back().size() + 1;
  }
  if (!std::exchange(announced, true)) on_pending();
}

void RankOutput::Impl::write_log() {
  std::string_view rest = log_lines;
  while (log && !rest.empty()) {
    const ssize_t n = ::write(log.get(), rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      on_fault(options.log_path + ": " + strerror(errno));
      log.reset();  // a full disk must not stop the rank: its lines still reach the head
      break;
    }
    rest.remove_prefix(static_cast<size_t>(n));
  }
  log_lines.clear();
}

RankOutput::RankOutput(asio::any_io_executor executor, UniqueFd output, UniqueFd errors, const Options& options,
                       std::function<void()> on_pending, std::function<void(const std::string&)> on_fault)
    : impl_(std::make_shared<Impl>(executor, std::move(output), std::move(errors), options)) {
  impl_->on_pending = std::move(on_pending);
  impl_->on_fault = std::move(on_fault);
  if (!options.log_path.empty()) {
    impl_->log.reset(open(options.log_path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644));
    if (!impl_->log) impl_->on_fault(options.log_path + ": " + strerror(errno));
  }
  for (Impl::Stream& stream : impl_->streams) impl_->wait(stream);
}

RankOutput::~RankOutput() {
  impl_->closed = true;
  boost::system::error_code ignored;
  for (Impl::Stream& stream : impl_->streams) {
    if (stream.pipe.is_open()) stream.pipe.close(ignored);
  }
}

void RankOutput::drain() {
  for (Impl::Stream& stream : impl_->streams) {
    impl_->read_some(stream, kReadsPerDrain);
    stream.splitter.flush([this](std::string_view line) { impl_->on_line(line); });
  }
  impl_->write_log();
}

RankOutput::Batch RankOutput::take(size_t bytes_max) {
  Batch batch;
  size_t bytes = 0;
  while (!impl_->pending.empty() && bytes < bytes_max) {
    bytes += impl_->pending.front().size() + 1;
    batch.lines.push_back(std::move(impl_->pending.front()));
    impl_->pending.pop_front();
  }
  impl_->pending_bytes -= bytes;
  batch.dropped = std::exchange(impl_->dropped, 0);
  impl_->announced = !impl_->pending.empty();
  return batch;
}

bool RankOutput::has_pending() const { return !impl_->pending.empty() || impl_->dropped > 0; }

std::vector<std::string> RankOutput::tail() const {
  std::vector<std::string> lines;
  for (const std::string& line : impl_->tail) lines.push_back(to_utf8(line));
  return lines;
}

}  // namespace mds::agent
