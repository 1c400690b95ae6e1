// A small HTTP/1.1 server (Boost.Beast) that only answers GET and HEAD, on one address. Who asks for too much, for too
// long or too often at a time is turned away; nothing is read from or written to files.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "topology/result.hpp"

namespace mds::launcher {

struct WebReply {
  unsigned status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
};

/// Threads: the one that runs the io_context; the handler is called from it and must not block.
class WebServer {
 public:
  using Handler = std::function<WebReply(const std::string& path)>;
  static constexpr int kPeersMax = 32;
  static constexpr uint32_t kHeaderBytesMax = 8u << 10;
  static constexpr int kSecondsMax = 15;  ///< for a request to come, and for its reply to go

  /// `address` is numeric. Errors: unavailable (with address and port).
  static Result<std::unique_ptr<WebServer>> open(boost::asio::io_context& io, const std::string& address,
                                                 uint16_t port, Handler handler);
  WebServer(const WebServer&) = delete;
  WebServer& operator=(const WebServer&) = delete;
  ~WebServer();  ///< accepts nobody any more

 private:
  struct Listener;
  explicit WebServer(std::shared_ptr<Listener> listener);
  std::shared_ptr<Listener> listener_;
};

}  // namespace mds::launcher
