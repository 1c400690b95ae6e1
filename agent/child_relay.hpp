// Child relay: an inner agent of the tree. It listens when the head asks for that, takes in the agents that the head
// sends to it, and carries messages between them and the head without looking into them.
//
// Upwards, what children say within kGather travels as one `up` message. Downwards, a message for many nodes (`down`)
// goes once to each child that has some of them below. Heartbeats are kept and go with this agent's own, so that the
// head gets one for a whole subtree. A child speaks to its parent as it would to the head.
//
// Invariants
//   T1  Messages of one node keep their order, in both directions.
//   T2  Only output is ever dropped (when the parent does not read fast enough), and that is logged.
//   T3  The end of a child's connection is told to the head once, and nothing of that child follows it.
//
// Threads: the one that runs the io_context.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "agent/credentials.hpp"
#include "agent/messages.hpp"
#include "agent/secure_channel.hpp"

namespace mds::agent {

class ChildRelay {
 public:
  static constexpr std::chrono::milliseconds kGather{2};
  static constexpr std::chrono::seconds kPulse{1};
  static constexpr size_t kUpBytesMax = 4u << 20;           ///< of items in one `up`
  static constexpr size_t kOutputQueueBytesMax = 8u << 20;  ///< of the parent's queue, before output is dropped

  struct Events {
    std::function<void(MessageType, const nlohmann::json& body)> send_up;
    std::function<size_t()> queued_up;   ///< bytes that wait for the parent
    /// A child asks for a part of a staged file: answered here, not passed up. `reply` may be called later, or never.
    std::function<void(const nlohmann::json& ask, std::function<void(const nlohmann::json&)> reply)> on_stage_ask;
    std::function<void()> on_childless;  ///< the last child has gone
    std::function<void(const std::string&)> on_note;
    /// Since when nothing was heard of the head: pulses carry it on, so that a lease is as long for all below.
    std::function<std::chrono::milliseconds()> silence = [] { return std::chrono::milliseconds(0); };
  };

  ChildRelay(boost::asio::io_context& io, int node, const Credentials& credentials, Events events);
  ~ChildRelay();

  /// Answers `serve`: listens on `address` and tells the head by `serving`.
  void serve(const std::string& address);

  /// A `down` message: passes it on; returns the message in it when this node is among its receivers.
  std::optional<Message> pass_down(const Message& message);

  /// This agent's heartbeat with those of all agents below since the last one: adds to "ranks", and "silent": nodes
  /// whose heartbeat is overdue.
  void add_heartbeats(nlohmann::json& body);

  /// This agent has found the head again, which takes those below for lost with the old way: they say hello once more.
  void rejoin();

  /// The parent's pulse goes on at once: what it says of the head is not to get old on the way.
  void pulse();

  bool has_children() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mds::agent
