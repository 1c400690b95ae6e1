// Bootstrap: all that an agent is told by whoever starts it, as one line of JSON on its standard input. It is the only
// way that the key takes, so that nothing secret shows in an argument list or an environment.
#pragma once

#include <cstdint>
#include <string>

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
};

inline constexpr size_t kBootstrapBytesMax = 64 << 10;

/// One line with its '\n', to be written to the agent's standard input: {"head_address", "head_port", "job" (hex),
/// "key" (hex), "node", "run_folder", "discover"}. As secret as the key.
std::string to_line(const Bootstrap& bootstrap);

/// Errors: bad_input naming the field, never its value.
Result<Bootstrap> bootstrap_from_line(const std::string& line);

}  // namespace mds::agent
