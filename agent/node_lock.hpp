// Node lock: on a node there is at most one agent (with its ranks) for a given node of a given job. Where one srun or
// mpirun has started many agents, the head cannot see one agent's process end; so the agent that takes the place of
// another asks the other's guard to end everything, and waits until that is done, before it says hello.
//
// The lock is a datagram socket with an abstract name, shared by guard and agent proper. The kernel frees the name when
// the last of the two has ended, and the guard ends only when nothing of the agent is left. Others on the machine can
// see the name, but the guard listens to its own user only.
#pragma once

#include <chrono>
#include <string>

#include "agent/unique_fd.hpp"
#include "topology/result.hpp"

namespace mds::agent {

/// The socket, without a name: made before guard and agent part. Not valid when the system has none left.
UniqueFd make_door();

/// Gives `door` the name. While another has it, asks that one to leave, for at most `patience`. Errors: unavailable.
Status take_node_lock(int door, const std::string& name, std::chrono::milliseconds patience);

/// Reads what waits at `door` (never blocks): has a process of our user (or root) asked for our end?
bool is_asked_to_leave(int door);

}  // namespace mds::agent
