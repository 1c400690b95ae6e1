#include <fcntl.h>

#include <list>

#include "agent/handshake.hpp"
#include "agent/secure_channel.hpp"

namespace mds::agent {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

struct Listener::Impl : std::enable_shared_from_this<Listener::Impl> {
  struct Pending {
    std::shared_ptr<Handshake> handshake;
    Clock::time_point since;
  };

  Impl(asio::io_context& i, const ListenerOptions& o, std::shared_ptr<TlsContext> t, ChannelHandler h)
      : io(i), options(o), tls(std::move(t)), on_channel(std::move(h)), acceptor(i), pause(i) {}

  Status open();
  void accept();
  void admit(tcp::socket socket);
  void wait_until_less_crowded();
  void resume_at(Clock::time_point when, std::function<void()> then);
  void close();

  asio::io_context& io;
  ListenerOptions options;
  std::shared_ptr<TlsContext> tls;
  ChannelHandler on_channel;
  tcp::acceptor acceptor;
  asio::steady_timer pause;
  std::list<Pending> pending;  // oldest first
  uint64_t refused = 0;
  bool accepting = false;
  bool closed = false;
};

Status Listener::Impl::open() {
  error_code error;
  const auto address = asio::ip::make_address(options.address, error);
  const std::string place = "listening on " + options.address + " port " + std::to_string(options.port);
  if (error) return bad_input(place + ": a numeric address is expected");
  const tcp::endpoint endpoint(address, options.port);
  acceptor.open(endpoint.protocol(), error);
  if (!error) fcntl(acceptor.native_handle(), F_SETFD, FD_CLOEXEC);  // a child that inherits it would keep the port
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return unavailable(place + ": " + error.message());
  return {};
}

void Listener::Impl::accept() {
  if (closed || accepting) return;
  if (pending.size() >= options.unauthenticated_max) return wait_until_less_crowded();
  accepting = true;
  acceptor.async_accept([self = shared_from_this()](error_code error, tcp::socket socket) {
    self->accepting = false;
    if (self->closed) return;
    if (!error) {
      self->admit(std::move(socket));
      return self->accept();
    }
    // Out of file descriptors or the like: connections wait in the backlog until some are free.
    self->resume_at(Clock::now() + std::chrono::milliseconds(50), [self] { self->accept(); });
  });
}

void Listener::Impl::admit(tcp::socket socket) {
  const auto place = pending.insert(pending.end(), Pending{nullptr, Clock::now()});
  place->handshake = std::make_shared<Handshake>(
      std::move(socket), TlsRole::server, tls, options.channel,
      // Weak: `pending` owns the handshake, and the handshake this handler.
      [weak = weak_from_this(), place](Result<std::shared_ptr<Channel>> result) {
        const auto self = weak.lock();
        if (!self) return;
        self->pending.erase(place);
        if (!result) ++self->refused;
        if (result && !self->closed) self->on_channel(*std::move(result));
        self->accept();
      });
  place->handshake->begin();
}

void Listener::Impl::wait_until_less_crowded() {
  resume_at(pending.front().since + options.crowded_timeout, [self = shared_from_this()] {
    if (self->pending.size() < self->options.unauthenticated_max) return self->accept();
    const auto oldest = self->pending.front().handshake;
    oldest->cancel("TLS handshake took too long while others waited");
  });
}

void Listener::Impl::resume_at(Clock::time_point when, std::function<void()> then) {
  pause.expires_at(when);
  pause.async_wait([then = std::move(then)](error_code error) {
    if (!error) then();
  });
}

void Listener::Impl::close() {
  closed = true;
  error_code ignored;
  acceptor.close(ignored);
  pause.cancel();
  for (const Pending& one : pending) one.handshake->cancel("the listener is closed");
}

Listener::Listener(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Listener::~Listener() { close(); }

Result<std::unique_ptr<Listener>> Listener::open(asio::io_context& io, const ListenerOptions& options,
                                                 const Credentials& credentials, ChannelHandler on_channel) {
  auto tls = make_tls_context(TlsRole::server, credentials);
  if (!tls) return tls.error();
  auto impl = std::make_shared<Impl>(io, options, *tls, std::move(on_channel));
  if (Status status = impl->open(); !status) return status.error();
  impl->accept();
  return std::unique_ptr<Listener>(new Listener(std::move(impl)));
}

uint16_t Listener::port() const {
  error_code ignored;
  return impl_->acceptor.local_endpoint(ignored).port();
}
uint64_t Listener::refused_count() const { return impl_->refused; }
size_t Listener::unauthenticated_count() const { return impl_->pending.size(); }
void Listener::close() { impl_->close(); }

}  // namespace mds::agent
