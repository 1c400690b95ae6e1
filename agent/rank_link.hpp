// Rank link: the agent's end of a rank's control socket. Frames of agent/frame.hpp with job 0: who is at the other end
// is told by the socket itself.
#pragma once

#include <functional>
#include <memory>

#include <boost/asio/any_io_executor.hpp>

#include "agent/messages.hpp"
#include "agent/unique_fd.hpp"
#include "topology/result.hpp"

namespace mds::agent {

inline constexpr size_t kLinkQueueBytesMax = 32u << 20;

/// Runs on the executor's one thread. Callbacks come from the event loop and from drain().
class RankLink {
 public:
  /// An error of the handler is a fault of the rank.
  using MessageHandler = std::function<Status(const Message&)>;
  using FaultHandler = std::function<void(const Error&)>;

  /// Receives from now on. `on_fault` is called at most once, when the rank breaks the protocol or does not read; the
  /// link is closed then. A rank that merely closes its end is no fault.
  RankLink(boost::asio::any_io_executor executor, UniqueFd socket, MessageHandler on_message, FaultHandler on_fault);
  ~RankLink();

  /// Never blocks; after a fault it does nothing.
  void send(MessageType type, const nlohmann::json& body = nlohmann::json::object());

  /// Takes what the rank has sent so far: all of it, once the rank has ended.
  void drain();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mds::agent
