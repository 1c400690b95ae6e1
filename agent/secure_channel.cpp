#include "agent/secure_channel.hpp"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <memory>
#include <utility>

#include <boost/asio/connect.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/write.hpp>

#include "agent/frame.hpp"
#include "agent/handshake.hpp"

namespace mds::agent {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::seconds kLinger{2};          // for the peer to end its side after close()
constexpr size_t kWriteBufferKept = 1u << 20;       // a larger one is given back after a burst
constexpr size_t kInputBytes = 16u << 10;           // one TLS record's plain text
constexpr size_t kTurnBytes = 256u << 10;           // of normal frames in one write: what an urgent one waits for
constexpr size_t kLengthOffset = 8, kSequenceOffset = 24;   // in a frame's header

template <typename T>
T read_little_endian(const std::string& bytes, size_t at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(static_cast<uint8_t>(bytes[at + i])) << (8 * i);
  return value;
}

size_t frame_bytes(const std::string& frames, size_t at) {
  return kFrameHeaderBytes + read_little_endian<uint32_t>(frames, at + kLengthOffset);
}

std::string name_of(const tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  return (endpoint.address().is_v6() ? "[" + address + "]" : address) + ":" + std::to_string(endpoint.port());
}

// A dead peer (power loss, cut cable) is noticed within about 30 s even when nothing is said. No child inherits the
// socket: it would keep the connection open after its owner has gone.
void set_options(tcp::socket& socket) {
  fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
  const auto set = [&](int level, int option, int value) {
    setsockopt(socket.native_handle(), level, option, &value, sizeof value);  // without one of these it works, too
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 30'000);
  // What the kernel has taken cannot be overtaken any more (C5): it takes no megabytes ahead.
  set(IPPROTO_TCP, TCP_NOTSENT_LOWAT, static_cast<int>(kTurnBytes));
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- handshake

Handshake::Handshake(tcp::socket socket, TlsRole role, std::shared_ptr<TlsContext> tls, const ChannelOptions& options,
                     Channel::ConnectHandler handler)
    : role_(role),
      tls_(std::move(tls)),
      options_(options),
      handler_(std::move(handler)),
      stream_(std::make_unique<TlsStream>(std::move(socket), tls_->context)),
      deadline_(stream_->get_executor()) {}

void Handshake::limit_time(const char* what) {
  deadline_.expires_after(options_.handshake_timeout);
  deadline_.async_wait([self = shared_from_this(), what](error_code error) {
    if (!error) self->cancel(std::string(what) + " timed out");
  });
}

void Handshake::cancel(const std::string& why) {
  if (!handler_ || !cancelled_.empty()) return;
  cancelled_ = why;
  error_code ignored;
  stream_->lowest_layer().close(ignored);
}

void Handshake::connect(const tcp::resolver::results_type& endpoints) {
  limit_time("connection");
  asio::async_connect(stream_->lowest_layer(), endpoints,
                      [self = shared_from_this()](error_code error, const tcp::endpoint&) {
                        if (!error && self->cancelled_.empty()) return self->begin();
                        if (error == asio::error::connection_refused && self->cancelled_.empty()) {
                          return self->finish(Error{ErrorCode::denied, error.message() + ": nobody listens there"});
                        }
                        self->finish(unavailable(self->cancelled_.empty() ? error.message() : self->cancelled_));
                      });
}

void Handshake::begin() {
  error_code error;
  const tcp::endpoint remote = stream_->lowest_layer().remote_endpoint(error);
  if (!error) peer_ = name_of(remote);  // a peer that is gone again shows in the handshake
  set_options(stream_->next_layer());
  limit_time("TLS handshake");
  const auto side = role_ == TlsRole::client ? asio::ssl::stream_base::client : asio::ssl::stream_base::server;
  stream_->async_handshake(side, [self = shared_from_this()](error_code e) { self->on_handshake(e); });
}

void Handshake::on_handshake(const error_code& error) {
  if (!cancelled_.empty()) return finish(unavailable(cancelled_));
  if (error.category() == asio::error::get_ssl_category()) {
    return finish(Error{ErrorCode::denied, "TLS handshake refused (wrong key or job?): " + error.message()});
  }
  if (error) return finish(unavailable("TLS handshake: " + error.message()));
  if (!is_psk_authenticated(stream_->native_handle())) {
    return finish(Error{ErrorCode::denied, "the peer has not proven the job's key"});
  }
  finish({});
}

// ------------------------------------------------------------------------------------------------------------ channel

struct Channel::Impl {
  enum class State { open, closing, closed };

  Impl(std::unique_ptr<TlsStream> s, std::shared_ptr<TlsContext> t, const ChannelOptions& o, std::string p)
      : tls(std::move(t)),
        stream(std::move(s)),
        options(o),
        peer(std::move(p)),
        linger(stream->get_executor()),
        decoder(tls->credentials.job, o.frame_bytes_max),
        input(std::make_unique_for_overwrite<uint8_t[]>(kInputBytes)) {}

  void read(const std::shared_ptr<Channel>& self);
  void on_read(const std::shared_ptr<Channel>& self, const error_code& error, size_t size);
  Status deliver();
  void forget_queued() {
    queue.clear();
    queue_begin = 0;
    urgent.clear();
  }
  void write(const std::shared_ptr<Channel>& self);
  void take_frames();
  void number_frames();
  void on_written(const std::shared_ptr<Channel>& self, const error_code& error);
  void end_sending(const std::shared_ptr<Channel>& self);
  void limit_linger(const std::shared_ptr<Channel>& self);
  void finish(const std::shared_ptr<Channel>& self, Status status);
  void report(const std::shared_ptr<Channel>& self);

  std::shared_ptr<TlsContext> tls;  // outlives the stream
  std::unique_ptr<TlsStream> stream;
  ChannelOptions options;
  std::string peer;
  asio::steady_timer linger;
  State state = State::open;
  bool started = false;
  bool reading = false;
  bool writing = false;
  FrameDecoder decoder;
  const std::unique_ptr<uint8_t[]> input;  // not cleared: short messages touch one page of it
  std::string queue;           // encoded frames not yet in `output`, without their sequence
  size_t queue_begin = 0;      // of the first frame in it that was not taken
  std::string urgent;          // as `queue`; goes first
  std::string output;          // being written
  uint64_t sequence = 0;       // of the last message in `output`
  Traffic traffic;
  MessageHandler on_message;
  ClosedHandler on_closed;
  Status status;               // why it ended
};

void Channel::Impl::read(const std::shared_ptr<Channel>& self) {
  reading = true;
  stream->async_read_some(asio::buffer(input.get(), kInputBytes),
                          [this, self](error_code e, size_t n) { on_read(self, e, n); });
}

void Channel::Impl::on_read(const std::shared_ptr<Channel>& self, const error_code& error, size_t size) {
  reading = false;
  if (state == State::closed) return;
  if (error && state == State::closing) return finish(self, {});
  if (error == asio::error::eof || error == asio::ssl::error::stream_truncated) {
    return finish(self, unavailable(decoder.buffered_bytes() > 0 ? "the peer closed the connection within a frame"
                                                                 : "the peer closed the connection"));
  }
  if (error) return finish(self, unavailable("the connection broke: " + error.message()));
  if (state == State::open) {
    traffic.received_bytes += size;
    decoder.feed({input.get(), size});
    if (Status fault = deliver(); !fault && state == State::open) return finish(self, fault);
  }
  if (state != State::closed) read(self);
}

Status Channel::Impl::deliver() {
  while (state == State::open) {
    auto message = decoder.next();
    if (!message) return message.error();
    if (!*message) break;
    ++traffic.received_messages;
    on_message(*std::move(*message));
  }
  return {};
}

void Channel::Impl::write(const std::shared_ptr<Channel>& self) {
  writing = true;
  take_frames();
  number_frames();
  asio::async_write(*stream, asio::buffer(output), [this, self](error_code e, size_t) { on_written(self, e); });
}

void Channel::Impl::take_frames() {
  output.clear();
  if (output.capacity() > kWriteBufferKept) output.shrink_to_fit();
  output.swap(urgent);
  if (output.empty() && queue_begin == 0 && queue.size() <= kTurnBytes) return output.swap(queue);
  size_t end = queue_begin;
  while (end < queue.size() && end - queue_begin < kTurnBytes) end += frame_bytes(queue, end);
  output.append(queue, queue_begin, end - queue_begin);
  queue_begin = end;
  if (queue_begin == queue.size() || queue_begin > queue.size() / 2) queue.erase(0, std::exchange(queue_begin, 0));
}

/// The order is known only now.
void Channel::Impl::number_frames() {
  traffic.sent_bytes += output.size();
  for (size_t at = 0; at < output.size(); at += frame_bytes(output, at)) {
    ++sequence;
    ++traffic.sent_messages;
    for (size_t i = 0; i < sizeof sequence; ++i) {
      output[at + kSequenceOffset + i] = static_cast<char>(sequence >> (8 * i));
    }
  }
}

void Channel::Impl::on_written(const std::shared_ptr<Channel>& self, const error_code& error) {
  writing = false;
  output.clear();
  if (state == State::closed) return;
  if (error) {
    // What the peer said before it went may still be in our socket: the reader finds the end, and the reason.
    status = unavailable("the connection broke: " + error.message());
    forget_queued();
    return reading ? limit_linger(self) : finish(self, status);
  }
  if (state == State::closing) limit_linger(self);
  if (!queue.empty() || !urgent.empty()) return write(self);
  if (state == State::closing) end_sending(self);
}

// Half close: the peer reads all that was sent, then ends its side. The protocol ends by `goodbye`, not by a TLS alert,
// so none is sent.
void Channel::Impl::end_sending(const std::shared_ptr<Channel>& self) {
  error_code error;
  stream->lowest_layer().shutdown(tcp::socket::shutdown_send, error);
  if (error) return finish(self, {});
  if (!reading) read(self);
}

void Channel::Impl::limit_linger(const std::shared_ptr<Channel>& self) {
  linger.expires_after(kLinger);
  linger.async_wait([this, self](error_code error) {
    if (!error) finish(self, state == State::closing ? Status() : status);
  });
}

// May be called from within on_message: the handlers go, and on_closed is called, from the event loop only.
void Channel::Impl::finish(const std::shared_ptr<Channel>& self, Status why) {
  if (state == State::closed) return;
  state = State::closed;
  status = std::move(why);
  forget_queued();
  linger.cancel();
  error_code ignored;
  stream->lowest_layer().close(ignored);
  if (started) report(self);
}

void Channel::Impl::report(const std::shared_ptr<Channel>& self) {
  asio::post(stream->get_executor(), [this, self] {
    const ClosedHandler handler = std::exchange(on_closed, nullptr);
    on_message = nullptr;
    if (handler) handler(status);
  });
}

void Handshake::finish(Status status) {
  deadline_.cancel();
  const auto handler = std::exchange(handler_, nullptr);
  if (!status) return handler(role_ == TlsRole::client ? status.error() : status.error().within(peer_));
  auto impl = std::make_unique<Channel::Impl>(std::move(stream_), tls_, options_, peer_);
  handler(std::shared_ptr<Channel>(new Channel(std::move(impl))));
}

Channel::Channel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Channel::~Channel() = default;

void Channel::connect(asio::io_context& io, const std::string& address, uint16_t port, const Credentials& credentials,
                      const ChannelOptions& options, ConnectHandler handler) {
  const std::string place = "head " + address + ":" + std::to_string(port);
  const auto fail = [&](const Error& error) {
    asio::post(io, [error = error.within(place), handler] { handler(error); });
  };
  auto tls = make_tls_context(TlsRole::client, credentials);
  if (!tls) return fail(tls.error());
  error_code error;
  tcp::resolver resolver(io);
  const auto endpoints = resolver.resolve(address, std::to_string(port), error);
  if (error) return fail(bad_input("no such address: " + error.message()));
  const auto named = [place, handler = std::move(handler)](Result<std::shared_ptr<Channel>> result) {
    handler(result ? std::move(result) : result.error().within(place));
  };
  std::make_shared<Handshake>(tcp::socket(io), TlsRole::client, *tls, options, named)->connect(endpoints);
}

void Channel::start(MessageHandler on_message, ClosedHandler on_closed) {
  impl_->started = true;
  impl_->on_message = std::move(on_message);
  impl_->on_closed = std::move(on_closed);
  if (impl_->state == Impl::State::closed) return impl_->report(shared_from_this());
  if (!impl_->reading) impl_->read(shared_from_this());
}

Status Channel::send(MessageType type, uint32_t attempt, const nlohmann::json& body, Priority priority) {
  Impl& impl = *impl_;
  if (impl.state != Impl::State::open) return unavailable("the connection is closed");
  const Message message{type, impl.tls->credentials.job, attempt, 0, body};
  std::string& queue = priority == Priority::urgent ? impl.urgent : impl.queue;
  if (Status status = encode_frame(message, kFrameBytesMax, queue); !status) return status;
  if (queued_bytes() > impl.options.send_queue_bytes_max) {
    const Error error = unavailable("the peer does not read: " + std::to_string(queued_bytes()) + " bytes wait");
    impl.finish(shared_from_this(), error);
    return error;
  }
  if (!impl.writing) impl.write(shared_from_this());
  return {};
}

size_t Channel::queued_bytes() const {
  return impl_->queue.size() - impl_->queue_begin + impl_->urgent.size() + impl_->output.size();
}

void Channel::close() {
  if (impl_->state != Impl::State::open) return;
  impl_->state = Impl::State::closing;
  impl_->limit_linger(shared_from_this());
  if (!impl_->writing) impl_->end_sending(shared_from_this());
}

void Channel::abort() {
  impl_->on_closed = nullptr;  // on_message may be running: it goes from the event loop
  impl_->finish(shared_from_this(), {});
}

const Traffic& Channel::traffic() const { return impl_->traffic; }
bool Channel::is_open() const { return impl_->state == Impl::State::open; }
const std::string& Channel::peer() const { return impl_->peer; }

std::string Channel::local_address() const {
  error_code error;
  const tcp::endpoint local = impl_->stream->lowest_layer().local_endpoint(error);
  return error ? "" : local.address().to_string();
}

}  // namespace mds::agent
