// What an agent needs to start ranks: value structs that travel from the head in the `start` message.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "container/container.hpp"
#include "topology/result.hpp"

namespace mds::agent {

/// One rank process. It is bound to `cpus` and `memory_nodes` before it executes its first instruction.
struct RankSpec {
  int rank = 0;
  int local_rank = 0;
  std::vector<std::string> argv;               ///< argv[0] is looked up in PATH of `env` if it has no '/'
  std::map<std::string, std::string> env;      ///< the rank's environment: nothing is inherited from the agent
  std::string working_dir;                     ///< empty: the agent's
  std::vector<int> cpus;                       ///< OS cpu numbers; empty: not bound
  std::vector<int> memory_nodes;               ///< OS NUMA indices (MPOL_BIND); empty: not bound
  std::string log_path;                        ///< both output streams are appended here; empty: no file
};

/// The files of a run that are sent to its nodes first (agent/node_stage.hpp).
struct StageSpec {
  std::string folder;       ///< absolute, on the node: agent/stage_store.hpp; empty: nothing is staged
  std::string run;          ///< name of the run
  std::string sha256;       ///< of the list of files
  uint64_t bytes = 0;       ///< of that list
  bool keep = false;        ///< files stay in the store for later runs
  std::string programs{};   ///< folder, on the node, of what belongs to mdsagent; empty: beside it
  bool operator==(const StageSpec&) const = default;
};

/// All ranks of one node in one attempt.
struct NodeStart {
  uint32_t attempt = 0;
  /// What all ranks' environments have beside their own, which goes before it. Mostly the user's whole environment: it
  /// is not copied for each rank before it has reached the node.
  std::map<std::string, std::string> env{};
  std::vector<RankSpec> ranks;
  container::Container container{};            ///< that all of them run in; runtime none: on the host
  StageSpec stage{};                           ///< to be there before a rank starts
  bool mpi = false;                            ///< the ranks are MPI programs: agent/mpi_wire.hpp
  bool forward_output = true;                  ///< send output lines to the head as well
  uint32_t tail_lines = 20;                    ///< last lines of a rank's output that go with its exit report
  uint32_t heartbeat_ms = 1000;                ///< interval of the agent's heartbeat messages
};

nlohmann::json to_json(const NodeStart& start);
/// Every rank's `env` is whole then. Errors: bad_input naming the field.
Result<NodeStart> node_start_from_json(const nlohmann::json& json);

}  // namespace mds::agent
