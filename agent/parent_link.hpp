// Parent link: an agent's way to the head, straight or through other agents, and how it is found again when it breaks.
//
// An agent says hello to the head. Where the head has connections enough, it answers `join` with another agent's
// address and the agent says hello there instead; who has few nodes never hears of that. When the connection ends, the
// agent goes to the head again (it may be told to join another one), both sides say what they have received, and what
// was lost on the way is sent once more (agent/replay.hpp).
//
// Invariants
//   P1  A counted message is delivered exactly once, whatever connections break, or on_lost is called.
//   P2  on_lost is called once at most: at once when nobody listens at the head's address (the head is dead), or when
//       no connection could be had within the limits below. Nothing follows it.
//   P3  An agent that is cut off is lost kSilenceLimit + kAgainLimit after it last heard of the head (its lease),
//       however many agents are between, which is before the head takes it for lost and starts its ranks elsewhere
//       (launcher/run.cpp, kSilenceMin). A head on the agent's own host cannot be cut off, and may be silent: it was
//       stopped, or its terminal was.
//
// Threads: the one that runs the io_context.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "agent/bootstrap.hpp"
#include "agent/messages.hpp"
#include "agent/secure_channel.hpp"

namespace mds::agent {

class ParentLink {
 public:
  static constexpr std::chrono::seconds kFirstLimit{60};   ///< for the first connection: the head may be crowded
  static constexpr std::chrono::seconds kAgainLimit{5};    ///< when a connection has broken
  static constexpr std::chrono::seconds kSilenceLimit{5};  ///< of a parent, before it is left
  /// The same on the head's own host, where nobody is cut off but thousands of processes may wait for a core. Less than
  /// the head's patience (launcher/run.cpp, kSilenceMin), which takes all below a stopped parent for silent.
  static constexpr std::chrono::seconds kStarvedLimit{12};

  struct Events {
    std::function<void()> on_first_connection;
    /// A `down` message: the one in it that is for this agent, if there is one.
    std::function<std::optional<Message>(const Message&)> unwrap;
    std::function<void(Message)> on_message;  ///< from the head
    std::function<void()> on_again;           ///< there was no way to the head, now there is one
    std::function<void()> on_pulse = [] {};   ///< the parent lives; silence() says what is known of the head
    /// on_first_connection has been called, or not.
    std::function<void(const Error&)> on_lost;
    std::function<void(const std::string&)> on_note;
  };

  ParentLink(boost::asio::io_context& io, const Bootstrap& bootstrap, Events events);
  ~ParentLink();

  /// Connects, then says hello with `hello`, which is asked for once.
  void start(std::function<nlohmann::json()> hello);

  /// Without a connection, counted messages wait for the next one and others are dropped.
  void send(MessageType type, uint32_t attempt, const nlohmann::json& body, Priority priority = Priority::normal);

  bool is_open() const;  ///< connected now
  /// For how long nothing was heard of the head; 0 where its silence means nothing.
  std::chrono::milliseconds silence() const;
  size_t queued_bytes() const;
  std::string local_address() const;  ///< of the interface that leads to the parent

  /// Sends what is queued, then ends; `done` follows.
  void close(std::function<void()> done);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mds::agent
