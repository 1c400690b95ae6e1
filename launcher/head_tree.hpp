// Head tree: the head's end of the tree of agents. Agents say hello; the first fan_out of them stay, the others are
// told whom to join (agent/parent_link.hpp, agent/child_relay.hpp). From then on a message goes to a node and comes
// from a node, whatever lies between.
//
// Invariants
//   H1  The head keeps at most fan_out connections to agents, besides those whose hello is being answered.
//   H2  Counted messages from and to a node arrive exactly once (agent/replay.hpp), or the node is lost.
//   H3  on_joined and on_lost alternate for a node; no message of a node comes outside of them.
//   H4  A node whose connection, or whose parent's, has ended is lost when it has not come back within kBackLimit
//       (the parent itself: kOwnBackLimit), or at once by give_up() or after its goodbye. Who has said hello again has
//       kBackLimit from then on to reach the place that it was given.
//   H5  Who cannot stay at the head is sent to a parent, to another one when that goes, and never below itself.
//
// Threads: the head's only.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "agent/credentials.hpp"
#include "agent/replay.hpp"
#include "agent/secure_channel.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

class HeadTree {
 public:
  static constexpr int kFanOut = 32;
  static constexpr std::chrono::milliseconds kBackLimit{5'000};  ///< an agent's own (ParentLink::kAgainLimit)
  static constexpr std::chrono::milliseconds kOwnBackLimit{1'000};

  struct Options {
    std::string address;  ///< to listen on
    int nodes = 1;
    int fan_out = kFanOut;
    std::chrono::milliseconds back_limit = kBackLimit;
  };
  struct Events {
    /// Is this hello to be taken? The node is valid. An error refuses the agent.
    std::function<Status(int node, const agent::Message& hello)> may_join;
    std::function<void(int node, const agent::Message& hello)> on_joined;
    std::function<void(int node, agent::Message)> on_message;
    std::function<void(int node, const std::string& why)> on_lost;
    /// A `control` message, of somebody who is no agent.
    std::function<void(const agent::Message&, std::function<void(const nlohmann::json&)> reply)> on_control;
    /// The body of a `start` that was lost on the way (they are too large to be kept).
    std::function<nlohmann::json(int node, uint32_t attempt)> start_body;
    std::function<void(const std::string&)> on_note;
  };
  static Result<std::unique_ptr<HeadTree>> open(boost::asio::io_context& io, const Options& options,
                                                const agent::Credentials& credentials, Events events);
  HeadTree(const HeadTree&) = delete;
  HeadTree& operator=(const HeadTree&) = delete;
  ~HeadTree();

  uint16_t port() const { return listener_->port(); }
  bool is_joined(int node) const { return places_[node].state == State::joined || places_[node].state == State::away; }
  std::vector<int> joined() const;

  /// Equal messages to many nodes, sent in one turn of the event loop, travel as one. A node that is away gets it when
  /// it is back, if it is a counted one. Errors: unavailable (not joined).
  Status send(int node, agent::MessageType type, uint32_t attempt, const nlohmann::json& body);

  /// The node's agent is known to be dead (its process has ended), or is not wanted any more: on_lost follows at once
  /// if it was joined.
  void give_up(int node, const std::string& why);

  /// Accepts nothing more.
  void close() { listener_->close(); }

  /// Of all connections so far: what the head itself has to handle.
  agent::Traffic traffic() const;
  int connections() const { return static_cast<int>(connections_.size()); }
  /// Nodes below `node`, itself included.
  bool is_below(int node, int ancestor) const;
  int parent(int node) const { return places_[node].parent; }

 private:
  /// absent: never heard of, or lost. joined: reachable by `via`. away: was joined, may come back.
  enum class State { absent, joined, away };
  struct Connection {
    std::shared_ptr<agent::Channel> channel;
    int node = -1;  ///< whose; -1: no agent of ours (yet)
    bool is_agent = false;  ///< has said hello
    bool carries = false;   ///< has been the way to a node
  };
  struct Place {
    State state = State::absent;
    Connection* via = nullptr;  ///< the first step to it
    int parent = -1;            ///< -1: the head
    int children = 0;           ///< joined ones
    int promised = 0;           ///< nodes that were told to join it
    int promised_to = -1;       ///< the node that this one was, or will be, told to join
    bool leaving = false;       ///< was told goodbye
    enum class Serving { no, asked, yes, cannot } serving = Serving::no;
    nlohmann::json address{};  ///< where it serves
    std::chrono::steady_clock::time_point away_until{};
    std::chrono::steady_clock::time_point wanted_until{};  ///< it has said hello again, and is on its way
    std::string why_away{};
    uint64_t received = 0;  ///< counted messages of its agent
    agent::Replay sent{};
  };
  /// An agent that has said hello at the head, where it cannot stay.
  struct Guest {
    Connection* connection = nullptr;
    int node = -1;
    agent::Message hello{};
  };
  struct Letter {
    agent::MessageType type{};
    uint32_t attempt = 0;
    nlohmann::json body;
    std::vector<int> nodes;
  };

  HeadTree(boost::asio::io_context& io, const Options& options, Events events);

  // From connections.
  void on_channel(std::shared_ptr<agent::Channel> channel);
  void on_message(Connection& connection, agent::Message message);
  void on_items(Connection& connection, const agent::Message& message);
  void on_node_message(int node, agent::Message message);
  void on_closed(Connection& connection, const std::string& why);
  void drop(Connection& connection, const std::string& why);

  // Hello: who joins whom.
  void on_hello(Connection& connection, int node, int parent, agent::Message hello);
  void house(Guest guest);
  void house_homeless();
  Connection* forget_guest(const Connection* connection, int node);
  void evict_guests(int parent);
  int find_parent(int node);
  bool leads_to(int from, int node) const;
  void promise(int node, int parent);
  void send_join(Connection& connection, int parent);
  void on_serving(int node, const nlohmann::json& body);
  void join(Connection& connection, int node, int parent, const agent::Message& hello);
  void welcome_back(int node, const nlohmann::json& hello);
  void set_route(Connection& connection, int node, int parent);

  void send_pulses();

  // Away and lost.
  void leave_parent(const Place& place);
  void go_away(int node, const std::string& why, std::chrono::milliseconds limit);
  void lose(int node, std::string why);  ///< by value: what it says may lie in the place that goes
  void watch_away();

  // Sending.
  void flush();
  void deliver(Letter& letter);
  void send_over(Connection& connection, bool is_direct, int node, agent::MessageType type, uint32_t attempt,
                 const nlohmann::json& body);
  void send_to(int node, agent::MessageType type, uint32_t attempt, const nlohmann::json& body);

  boost::asio::io_context& io_;
  const Options options_;
  Events events_;
  std::unique_ptr<agent::Listener> listener_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<Place> places_;
  agent::Traffic past_traffic_;  ///< of connections that have ended
  int direct_ = 0;               ///< nodes whose parent is the head
  std::deque<int> candidates_;   ///< joined nodes in the order of their joining: who has room is in front
  std::vector<Guest> waiting_;   ///< for the parent that they are promised to, which begins to serve
  std::deque<Guest> homeless_;   ///< for somebody to have room
  std::vector<Letter> outbox_;
  bool flush_posted_ = false;
  boost::asio::steady_timer pulse_timer_;
  boost::asio::steady_timer away_timer_;
  bool away_timer_runs_ = false;
};

}  // namespace mds::launcher
