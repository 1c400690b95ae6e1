// A connection on its way to a Channel: TCP connect (client), TLS handshake, time limits. Internal.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/secure_channel.hpp"
#include "agent/tls_psk.hpp"

namespace mds::agent {

using TlsStream = boost::asio::ssl::stream<boost::asio::ip::tcp::socket>;

struct Handshake : std::enable_shared_from_this<Handshake> {
  Handshake(boost::asio::ip::tcp::socket socket, TlsRole role, std::shared_ptr<TlsContext> tls,
            const ChannelOptions& options, Channel::ConnectHandler handler);

  /// The socket is connected: begins the TLS handshake. `handler` is called once, never from within.
  void begin();
  /// Connects first, to the first endpoint that answers.
  void connect(const boost::asio::ip::tcp::resolver::results_type& endpoints);
  /// The handler hears `why`, unless it has been called.
  void cancel(const std::string& why);

 private:
  void limit_time(const char* what);
  void on_handshake(const boost::system::error_code& error);
  void finish(Status status);

  TlsRole role_;
  std::shared_ptr<TlsContext> tls_;
  ChannelOptions options_;
  Channel::ConnectHandler handler_;
  std::unique_ptr<TlsStream> stream_;
  boost::asio::steady_timer deadline_;
  std::string peer_;
  std::string cancelled_;  // why; empty: it was not
};

}  // namespace mds::agent
