// Secure channel: the messages of agent/messages.hpp over TCP and TLS 1.3, authenticated by the job's pre-shared key.
//
// Invariants
//   C1  Nothing that a peer sends is parsed as a frame before the TLS handshake has proven that it holds the key.
//   C2  Messages arrive whole, in order and once: job and sequence are checked, any fault ends the connection.
//   C3  No queue is unbounded: a peer that does not read is dropped when the send queue is full.
//   C4  on_closed is called exactly once for every started channel that was not aborted, and nothing follows it.
//   C5  What is sent as urgent overtakes what is queued, after at most 256 KiB of it; otherwise order is kept.
//
// There are no certificates, no session tickets and no early data. The PSK identity is the job id in hex.
// Threads: everything, callbacks included, runs on the one thread that runs the io_context; nothing here locks.
//
// The head:                                                      The agent:
//   auto listener = Listener::open(io, {.address = "127.0.0.1"},   Channel::connect(io, "127.0.0.1", port, credentials,
//       credentials, [&](std::shared_ptr<Channel> channel) {           {}, [&](Result<std::shared_ptr<Channel>> r) {
//         channels.push_back(channel);                                   if (!r) ...
//         channel->start(on_message, on_closed);                         (*r)->start(on_message, on_closed);
//       });                                                              (*r)->send(MessageType::hello, 0, {...});
//   (*listener)->port()                                                });
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>

#include "agent/credentials.hpp"
#include "agent/messages.hpp"
#include "topology/result.hpp"

namespace mds::agent {

enum class Priority { normal, urgent };

struct ChannelOptions {
  std::chrono::milliseconds handshake_timeout{10'000};  ///< for TCP connect (client) and the TLS handshake, each
  size_t send_queue_bytes_max = 128u << 20;             ///< encoded frames not yet handed to the kernel
  uint32_t frame_bytes_max = kFrameBytesMax;            ///< of one received body
};

/// Frames, before encryption.
struct Traffic {
  uint64_t received_messages = 0, received_bytes = 0, sent_messages = 0, sent_bytes = 0;

  void add(const Traffic& other) {
    received_messages += other.received_messages;
    received_bytes += other.received_bytes;
    sent_messages += other.sent_messages;
    sent_bytes += other.sent_bytes;
  }
};

/// One authenticated connection. Made by Channel::connect or by a Listener, owned by whoever received it; it also
/// keeps itself alive while it is started and open, so that a callback may drop the owner's last reference.
class Channel : public std::enable_shared_from_this<Channel> {
 public:
  using MessageHandler = std::function<void(Message)>;
  /// `status` is ok after this side's close(); otherwise it says why the connection ended: unavailable (peer gone or
  /// not reading), corrupt (a frame that breaks the protocol).
  using ClosedHandler = std::function<void(Status status)>;
  using ConnectHandler = std::function<void(Result<std::shared_ptr<Channel>>)>;

  /// Connects and authenticates; calls `handler` once, never from within this call. Errors: unavailable (no
  /// connection, time out), denied (nobody listens there, or handshake refused: wrong key or job), bad_input (address).
  static void connect(boost::asio::io_context& io, const std::string& address, uint16_t port,
                      const Credentials& credentials, const ChannelOptions& options, ConnectHandler handler);

  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  ~Channel();

  /// Begins to receive. Call once. The handlers may call anything of this channel.
  void start(MessageHandler on_message, ClosedHandler on_closed);

  /// Queues one message, numbered by this channel; allowed before start(). Errors: unavailable when the channel is
  /// closed or closing, or when the queue would exceed its bound: the channel then fails as a whole (C3); bad_input
  /// when the body is too long.
  Status send(MessageType type, uint32_t attempt, const nlohmann::json& body = nlohmann::json::object(),
              Priority priority = Priority::normal);

  /// Bytes queued and not yet taken by the kernel: what a sender of droppable messages looks at first.
  size_t queued_bytes() const;

  /// Sends what is queued, then ends the connection and waits for the peer to end its side (at most 2 s), so that
  /// nothing sent is lost; messages that still arrive are dropped. on_closed follows.
  void close();

  /// Ends the connection at once; what is queued is lost. No callback follows.
  void abort();

  const Traffic& traffic() const;      ///< so far
  bool is_open() const;                ///< until close(), abort() or a fault
  const std::string& peer() const;     ///< "127.0.0.1:40312"
  std::string local_address() const;   ///< numeric, of this end; empty when it is closed

 private:
  friend class Listener;
  friend struct Handshake;
  struct Impl;
  explicit Channel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct ListenerOptions {
  std::string address = "127.0.0.1";   ///< numeric address of the interface to bind; never a wildcard by default
  uint16_t port = 0;                   ///< 0: any free port
  /// Connections in their handshake. At that many, further ones wait in the kernel's backlog, and a handshake that
  /// takes longer than `crowded_timeout` is dropped, so that silent strangers do not keep agents out.
  size_t unauthenticated_max = 64;
  std::chrono::milliseconds crowded_timeout{1'000};
  ChannelOptions channel;
};

class Listener {
 public:
  using ChannelHandler = std::function<void(std::shared_ptr<Channel>)>;

  /// Binds and listens at once. `on_channel` gets each connection that authenticated; it must keep the channel, or the
  /// connection is closed. Errors: bad_input (address), unavailable (cannot bind).
  static Result<std::unique_ptr<Listener>> open(boost::asio::io_context& io, const ListenerOptions& options,
                                                const Credentials& credentials, ChannelHandler on_channel);

  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener();                         ///< close()

  uint16_t port() const;
  uint64_t refused_count() const;      ///< connections that failed to authenticate
  size_t unauthenticated_count() const;

  /// Accepts nothing more and drops unfinished handshakes. Accepted channels live on.
  void close();

 private:
  struct Impl;
  explicit Listener(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace mds::agent
