// Node agent: what the head says becomes ranks that run and stop; what ranks do becomes messages to the head.
//
// Invariants
//   A1  Without a head there are no ranks: when the way to it is lost for good (agent/parent_link.hpp), all are killed
//       and the agent leaves.
//   A2  A message of an earlier attempt changes nothing; it is counted.
//   A3  The agent leaves only after its RankGroup has said that nothing is left.
//
// Threads: the one that runs the io_context.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>

#include "agent/bootstrap.hpp"
#include "agent/process_tree.hpp"

namespace spdlog {
class logger;
}

namespace mds::agent {

/// Exit codes of mdsagent.
inline constexpr int kExitGoodbye = 0;
inline constexpr int kExitHeadLost = 1;        ///< also: the head broke the protocol
inline constexpr int kExitBadBootstrap = 2;
inline constexpr int kExitNoHead = 4;          ///< no connection, or it was refused
inline constexpr int kExitTerminated = 128 + 15;

class NodeAgent {
 public:
  /// `mark` and `logger` outlive this. `on_leave` is called once with the exit code, when nothing is left to do.
  NodeAgent(boost::asio::io_context& io, const Bootstrap& bootstrap, ProcessMark& mark, spdlog::logger& logger,
            std::function<void(int exit_code)> on_leave);
  ~NodeAgent();

  /// Connects, says hello and begins to obey.
  void start();

  /// Stops the ranks (TERM, KILL after 5 s) and leaves with kExitTerminated.
  void terminate();
  /// Tells the head of a signal that the cluster's own software sent.
  void notice(int signal);
  /// The guard has died: kills the ranks and leaves with kExitHeadLost.
  void lose_guard();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mds::agent
