// The agent proper as a program: bootstrap from standard input, log file, connection to the head, event loop.
#pragma once

#include "agent/guard.hpp"

namespace mds::agent {

/// Returns the exit code (agent/node_agent.hpp).
int run_agent_program(GuardLink guard);

}  // namespace mds::agent
