// Back ends: how the agents of a run come up, one per node. They differ in nothing else.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>

#include "agent/bootstrap.hpp"
#include "launcher/job.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

/// Threads: everything, the callback included, runs on the io_context's one thread.
class AgentBackend {
 public:
  /// Called exactly once for every agent that start_agent() accepted, when its process has ended and was reaped; never
  /// from within a call of this class. `how` is for people: "exited with code 1".
  using EndedHandler = std::function<void(int node, const std::string& how)>;

  virtual ~AgentBackend() = default;

  /// Starts the agent of node `bootstrap.node`, which has none. Errors: unavailable.
  virtual Status start_agent(const agent::Bootstrap& bootstrap) = 0;

  /// Ends it and everything that descends from it by force. No effect where there is none.
  virtual void kill_agent(int node) = 0;
};

struct BackendOptions {
  std::string agent_program;   ///< absolute path of mdsagent
  std::string run_folder;      ///< agents' own output goes to <run_folder>/logs/node-NNNNN.log
};

/// `automatic` is local. Errors: bad_input for the back ends that do not exist yet.
Result<std::unique_ptr<AgentBackend>> make_backend(Backend kind, boost::asio::io_context& io,
                                                   const BackendOptions& options, AgentBackend::EndedHandler on_ended);

/// "<run_folder>/logs/node-00003.log"
std::string node_log_path(const std::string& run_folder, int node);

}  // namespace mds::launcher
