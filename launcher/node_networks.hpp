// Node networks (job.netns): every virtual node of the local back end in a network namespace of its own, so that what
// a run does when a node is cut off can be tried on one machine.
//
//   the launcher's namespace           node 0's                     node 1's
//   switch 10.88.0.1/16 (a bridge) --- eth0 10.88.0.2/16   and --- eth0 10.88.0.3/16   and so on
//   its ports: node0, node1, ...       lo                           lo
//
// The launcher leaves the host's network, too: nothing there is touched or needed, and two runs cannot meet. No
// namespace has a name. Processes and the descriptors held here keep them, so that all of it goes with the last of
// these, however the run ends; and a node keeps its network when its agent is replaced.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/unique_fd.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

/// Threads: the one that opens sockets and starts processes. A start runs in a thread of its own, which is waited for.
class NodeNetworks {
 public:
  static constexpr int kNodesMax = 512;                ///< a bridge has 1,024 ports at most
  static constexpr const char* kInterface = "eth0";    ///< in every node's namespace
  static constexpr const char* kHead = "10.88.0.1";

  /// Numeric; `node` below kNodesMax.
  static std::string address(int node);

  /// The calling thread is in a new namespace, the launcher's, from then on, also when that fails half way. Errors:
  /// unavailable (not allowed, or the kernel or iproute2 lacks something).
  static Result<std::unique_ptr<NodeNetworks>> make(int nodes);

  /// Runs `start` in the node's namespace; the processes that it starts stay there. Errors: those of `start`, or
  /// system_error.
  Status inside(int node, const std::function<Status()>& start) const;

 private:
  Status add_node(const std::string& ip, int node);

  std::vector<agent::UniqueFd> nodes_;  ///< by node
};

}  // namespace mds::launcher
