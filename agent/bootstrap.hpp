// Bootstrap: all that an agent is told by whoever starts it, as one line of JSON on its standard input. It is the only
// way that the key takes, so that nothing secret shows in an argument list or an environment.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "agent/credentials.hpp"
#include "topology/result.hpp"

namespace mds::agent {

struct Bootstrap {
  std::string head_address;   ///< numeric address or host name
  uint16_t head_port = 0;
  Credentials credentials;
  int node = 0;               ///< index of the node that this agent serves
  std::string run_folder;     ///< absolute; the agent logs to <run_folder>/logs/node-NNNNN.log
  bool discover = false;      ///< send this machine's topology with `hello`
  bool discover_gpus = false; ///< its GPUs, too: their library takes tens of milliseconds

  /// Where one text is broadcast to many agents (srun, mpirun): the environment variable that has the agent's place
  /// among them, e.g. "SLURM_PROCID", and the nodes in the order of those places as ranges {first, last}. settle_node()
  /// turns that into `node`. Empty: `node` is meant.
  std::string node_from{};
  std::vector<std::pair<int, int>> nodes{};

  bool lifeline = false;      ///< standard input stays open: its end means that whoever started us wants us gone
  /// This program was copied to the node: its file must have this digest, and is removed once it runs. Empty: it is
  /// installed there.
  std::string agent_sha256{};
  bool signals_to_head = false;  ///< SIGTERM and SIGUSR1 come from the cluster's own software: the head decides
};

/// Does this machine see the run folder, or are the head's files not shared with it?
bool sees_run_folder(const Bootstrap& bootstrap);

inline constexpr size_t kBootstrapBytesMax = 64 << 10;

/// One line with its '\n', to be written to the agent's standard input: {"head_address", "head_port", "job" (hex),
/// "key" (hex), "node", "run_folder", "discover"} and those of the other fields that are set. As secret as the key.
std::string to_line(const Bootstrap& bootstrap);

/// Errors: bad_input naming the field, never its value.
Result<Bootstrap> bootstrap_from_line(const std::string& line);

/// Settles `node` from `place`, the value of the environment variable `node_from` (nullptr: not set). Does nothing
/// where node_from is empty. Errors: bad_input.
Status settle_node(Bootstrap& bootstrap, const char* place);

}  // namespace mds::agent
