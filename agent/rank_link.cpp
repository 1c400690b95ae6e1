#include "agent/rank_link.hpp"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <boost/asio/posix/stream_descriptor.hpp>

#include "agent/frame.hpp"

namespace mds::agent {

namespace asio = boost::asio;
using boost::system::error_code;

struct RankLink::Impl : std::enable_shared_from_this<RankLink::Impl> {
  Impl(const asio::any_io_executor& executor, int fd, MessageHandler m, FaultHandler f)
      : socket(executor, fd), decoder(0, kRankFrameBytesMax), on_message(std::move(m)), on_fault(std::move(f)) {}

  void wait_readable();
  bool read_all();
  void wait_writable();
  bool write_all();
  void fail(const Error& error);
  void close();

  asio::posix::stream_descriptor socket;
  FrameDecoder decoder;
  MessageHandler on_message;
  FaultHandler on_fault;
  std::string queue;
  size_t queue_sent = 0;  // bytes of `queue` that the kernel has
  uint64_t sequence = 0;
  bool waiting_writable = false;
};

void RankLink::Impl::wait_readable() {
  socket.async_wait(asio::posix::stream_descriptor::wait_read, [self = shared_from_this()](error_code error) {
    if (!error && self->read_all()) self->wait_readable();
  });
}

// False when the link has ended. Reads what is there, at most a full frame's worth in one turn.
bool RankLink::Impl::read_all() {
  static std::array<uint8_t, 16 << 10> chunk;  // all ranks are read by one thread
  for (size_t total = 0; socket.is_open() && total < kRankFrameBytesMax;) {
    const ssize_t n = recv(socket.native_handle(), chunk.data(), chunk.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return true;
    if (n <= 0) {
      close();
      return false;
    }
    total += static_cast<size_t>(n);
    decoder.feed({chunk.data(), static_cast<size_t>(n)});
    while (socket.is_open()) {
      auto message = decoder.next();
      if (!message) {
        fail(message.error());
        return false;
      }
      if (!*message) break;
      if (Status handled = on_message(**message); !handled) {
        fail(handled.error());
        return false;
      }
    }
  }
  return socket.is_open();
}

void RankLink::Impl::wait_writable() {
  if (std::exchange(waiting_writable, true)) return;
  socket.async_wait(asio::posix::stream_descriptor::wait_write, [self = shared_from_this()](error_code error) {
    self->waiting_writable = false;
    if (!error && !self->write_all()) self->wait_writable();
  });
}

// True when nothing is left to write, or nobody to write to.
bool RankLink::Impl::write_all() {
  while (socket.is_open() && queue_sent < queue.size()) {
    const ssize_t n = ::send(socket.native_handle(), queue.data() + queue_sent, queue.size() - queue_sent,
                             MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return false;
    if (n < 0) break;  // the rank is gone: its exit is reported by its pidfd
    queue_sent += static_cast<size_t>(n);
  }
  queue.clear();
  queue_sent = 0;
  return true;
}

void RankLink::Impl::fail(const Error& error) {
  close();
  if (const auto handler = std::exchange(on_fault, nullptr)) handler(error);
}

void RankLink::Impl::close() {
  error_code ignored;
  if (socket.is_open()) socket.close(ignored);
}

RankLink::RankLink(asio::any_io_executor executor, UniqueFd socket, MessageHandler on_message, FaultHandler on_fault)
    : impl_(std::make_shared<Impl>(executor, socket.release(), std::move(on_message), std::move(on_fault))) {
  impl_->wait_readable();
}

RankLink::~RankLink() {
  impl_->on_fault = nullptr;
  impl_->close();
}

void RankLink::send(MessageType type, const nlohmann::json& body) {
  if (!impl_->socket.is_open()) return;
  const Message message{type, 0, 0, impl_->sequence + 1, body};
  if (Status fits = encode_frame(message, kRankFrameBytesMax, impl_->queue); !fits) return impl_->fail(fits.error());
  ++impl_->sequence;
  if (impl_->queue.size() - impl_->queue_sent > kLinkQueueBytesMax) {
    return impl_->fail(unavailable("the rank does not read its control socket"));
  }
  if (!impl_->waiting_writable && !impl_->write_all()) impl_->wait_writable();
}

void RankLink::drain() {
  // A rank that has ended sends no more, so this ends; one that its children write for is cut after a frame's worth.
  impl_->read_all();
}

}  // namespace mds::agent
