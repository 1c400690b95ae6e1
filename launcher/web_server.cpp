#include "launcher/web_server.hpp"

#include <fcntl.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <optional>
#include <utility>

namespace mds::launcher {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

/// One peer: a request, its reply, the next request. Keeps itself alive while it is read from or answered.
struct Peer : std::enable_shared_from_this<Peer> {
  Peer(tcp::socket socket, const WebServer::Handler& h, std::shared_ptr<int> c)
      : stream(std::move(socket)), handler(h), count(std::move(c)) {
    ++*count;
  }
  ~Peer() { --*count; }

  void read() {
    parser.emplace();
    parser->header_limit(WebServer::kHeaderBytesMax);
    parser->body_limit(0);
    stream.expires_after(std::chrono::seconds(WebServer::kSecondsMax));
    http::async_read(stream, buffer, *parser, [self = shared_from_this()](error_code error, size_t) {
      if (!error) self->answer();
    });
  }

  void answer() {
    const auto& request = parser->get();
    const bool reads = request.method() == http::verb::get || request.method() == http::verb::head;
    const std::string path(request.target().data(), request.target().size());
    WebReply made = reads ? handler(path) : WebReply{405, "text/plain", "only GET and HEAD\n"};
    reply = {static_cast<http::status>(made.status), request.version()};
    reply.set(http::field::content_type, made.type);
    reply.set(http::field::cache_control, "no-store");
    reply.set("X-Content-Type-Options", "nosniff");
    reply.set("Referrer-Policy", "no-referrer");  // the token is in the address
    reply.set("Content-Security-Policy",
              "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
              "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'");
    if (!reads) reply.set(http::field::allow, "GET, HEAD");
    reply.keep_alive(request.keep_alive());
    const size_t size = made.body.size();
    if (request.method() != http::verb::head) reply.body() = std::move(made.body);
    reply.content_length(size);
    stream.expires_after(std::chrono::seconds(WebServer::kSecondsMax));
    http::async_write(stream, reply, [self = shared_from_this()](error_code error, size_t) {
      if (!error && self->reply.keep_alive()) self->read();
    });
  }

  beast::tcp_stream stream;
  const WebServer::Handler handler;
  std::shared_ptr<int> count;
  beast::flat_buffer buffer{WebServer::kHeaderBytesMax * 2};
  std::optional<http::request_parser<http::empty_body>> parser;
  http::response<http::string_body> reply;
};

}  // namespace

struct WebServer::Listener : std::enable_shared_from_this<WebServer::Listener> {
  Listener(asio::io_context& io, Handler h) : acceptor(io), handler(std::move(h)) {}

  Status open(const std::string& address, uint16_t port) {
    error_code error;
    const tcp::endpoint place(asio::ip::make_address(address, error), port);
    if (!error) acceptor.open(place.protocol(), error);
    if (!error) fcntl(acceptor.native_handle(), F_SETFD, FD_CLOEXEC);
    if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(place, error);
    if (!error) acceptor.listen(kPeersMax, error);
    if (!error) return {};
    return unavailable("cannot listen on " + address + ":" + std::to_string(port) + ": " + error.message());
  }

  void accept() {
    acceptor.async_accept([self = shared_from_this()](error_code error, tcp::socket socket) {
      if (self->closed || error == asio::error::operation_aborted) return;
      if (!error && *self->peers < kPeersMax) {
        fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
        std::make_shared<Peer>(std::move(socket), self->handler, self->peers)->read();
      }
      self->accept();
    });
  }

  tcp::acceptor acceptor;
  Handler handler;
  std::shared_ptr<int> peers = std::make_shared<int>(0);
  bool closed = false;
};

WebServer::WebServer(std::shared_ptr<Listener> listener) : listener_(std::move(listener)) {}

WebServer::~WebServer() {
  listener_->closed = true;
  error_code ignored;
  listener_->acceptor.close(ignored);
}

Result<std::unique_ptr<WebServer>> WebServer::open(asio::io_context& io, const std::string& address, uint16_t port,
                                                   Handler handler) {
  auto listener = std::make_shared<Listener>(io, std::move(handler));
  if (Status s = listener->open(address, port); !s) return s.error();
  listener->accept();
  return std::unique_ptr<WebServer>(new WebServer(std::move(listener)));
}

}  // namespace mds::launcher
