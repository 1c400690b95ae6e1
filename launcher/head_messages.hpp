// What agents say, as the supervisor's events. Pure functions. Agents are authenticated, but a rank writes the body of
// its own progress and a broken agent must not take the head down: every field is checked.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/messages.hpp"
#include "launcher/rendezvous.hpp"
#include "launcher/supervisor.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

struct Hello {
  int node = 0;
  std::string host;
};

/// Errors: corrupt (not a hello, another protocol version, no node below `nodes`).
Result<Hello> hello_from_message(const agent::Message& message, int nodes);

/// The event that rank_started, rank_exited, start_failed, ranks_stopped and progress mean; `node` is where the message
/// came from. No event for a progress message that concerns nobody's budget. Errors: corrupt (field missing or wrong,
/// or a rank that is not on this node).
Result<std::optional<Event>> event_from_message(const agent::Message& message, int node,
                                                const std::vector<int>& node_of_rank);

/// Errors: corrupt.
Result<Contribution> contribution_from_message(const agent::Message& message);

struct Output {
  int rank = 0;
  std::vector<std::string> lines;
  uint64_t dropped = 0;          ///< lines that the agent could not send
};
/// Errors: corrupt.
Result<Output> output_from_message(const agent::Message& message);

}  // namespace mds::launcher
