// Back ends: how the agents of a run come up, one per node. They differ in nothing else.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/bootstrap.hpp"
#include "launcher/job.hpp"
#include "launcher/node_networks.hpp"
#include "slurm/allocation.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

/// Threads: everything, the callback included, runs on the io_context's one thread.
class AgentBackend {
 public:
  /// Called exactly once for every agent that start_agent() accepted, when its process has ended and was reaped (where
  /// one program starts many agents: when its connection has ended and disconnected() was told), or when it could not
  /// be started after all; never from within a call of this class. `how` is for people: "exited with code 1".
  using EndedHandler = std::function<void(int node, const std::string& how)>;

  virtual ~AgentBackend() = default;

  /// Starts the agent of node `bootstrap.node`, which has none. Errors: unavailable.
  virtual Status start_agent(const agent::Bootstrap& bootstrap) = 0;

  /// Ends it and everything that descends from it by force. No effect where there is none.
  virtual void kill_agent(int node) = 0;

  /// Its agent has said hello.
  virtual void joined(int /*node*/) {}
  /// The connection of its agent, which had joined, has ended.
  virtual void disconnected(int /*node*/) {}
};

/// Where the agent's program is sent before it is started, for nodes that do not have it.
struct AgentCopy {
  std::string path{};    ///< on the nodes, to which a back end may add what tells its nodes apart; empty: not sent
  std::string sha256{};  ///< of the program, for Bootstrap::agent_sha256
};

struct BackendOptions {
  std::string agent_program;                   ///< absolute path of mdsagent
  std::string run_folder;                      ///< agents' own output goes to <run_folder>/logs/node-NNNNN.log
  std::vector<std::string> hosts{};            ///< of each node; none for local
  std::vector<slurm::Component> components{};  ///< of a Slurm job; by nodes as in `hosts`
  std::string ssh_config{};                    ///< file for ssh -F; empty: the user's own
  std::string mpirun{};                        ///< name or path of the MPI's start program; empty: "mpirun"
  AgentCopy agent_copy{};
  const NodeNetworks* networks = nullptr;      ///< of local nodes, if they have some; not owned
};

/// `automatic` is local. Errors: bad_input (ssh, srun or mpirun is missing, or of a version that cannot do it).
Result<std::unique_ptr<AgentBackend>> make_backend(Backend kind, boost::asio::io_context& io,
                                                   const BackendOptions& options, AgentBackend::EndedHandler on_ended);

/// As in the job file: "local", "ssh", ...
const char* to_string(Backend kind);

/// "<run_folder>/logs/node-00003.log"
std::string node_log_path(const std::string& run_folder, int node);

}  // namespace mds::launcher
