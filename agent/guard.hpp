// Guard: the agent's parent, a process so small that it has no reason to die. If the agent dies by accident, the guard
// kills everything that descends from it; if the guard dies, the agent does so and leaves.
#pragma once

#include <functional>

#include "agent/process_tree.hpp"
#include "agent/unique_fd.hpp"

namespace mds::agent {

/// What the agent proper gets of its guard.
struct GuardLink {
  UniqueFd guard_pidfd;          ///< readable when the guard has died
  ProcessMark* mark = nullptr;   ///< in memory shared with the guard; lives as long as both
  UniqueFd door;                 ///< shared with the guard: agent/node_lock.hpp
  UniqueFd to_guard;             ///< kWatchLifeline, written here, makes the guard watch standard input
};

/// From then on the end of standard input ends the agent and everything below it, even an agent that hangs.
inline constexpr char kWatchLifeline = 'W';

/// Forks; runs `agent` in the child, whose result is its exit code, and guards it here. Both are child subreapers.
/// SIGTERM and SIGUSR1 are passed on. Returns in both processes the exit code for main: the agent's, or 128+n when
/// signal n has ended it. When the guard returns, nothing that descends from the agent is left.
int run_guarded(const std::function<int(GuardLink)>& agent);

}  // namespace mds::agent
