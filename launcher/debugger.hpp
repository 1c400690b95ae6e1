// Debugger: gdb on a rank, whether that is on this machine or another's, live or about to begin.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <functional>
#include <string>
#include <vector>

#include "agent/rank_spec.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

/// The rank of `mdslaunch debug`.
struct DebugRank {
  int rank = 0;
  std::string terminal;  ///< its output goes there; empty: to its log alone, as ever
};

/// Makes that rank stop itself before its program begins, until a debugger lets it go on (`sh` is the only program that
/// is sure to be there in every container), and mdstrain's others wait for it as long as it takes.
void debug_ranks(const DebugRank& debug, std::vector<agent::RankSpec>& ranks);

/// The argument list that puts gdb on a live rank, seen from `own_host`; `options` are gdb's. `status` is the run's
/// (launcher/run_status.hpp). Pure. Errors: bad_input (no such rank, it does not run; with what it does instead).
Result<std::vector<std::string>> attach_words(const nlohmann::json& status, int rank, const std::string& own_host,
                                              const std::vector<std::string>& options);

/// Why gdb may not be able to attach to processes of the same user here, with the remedy; empty: nothing known.
std::string attach_obstacle();

/// Runs a program in this terminal and gives its exit code (128 + n: ended by signal n). Ctrl-C is the program's alone.
/// Calls `meanwhile` at once and then every `interval_ms`. Errors: bad_input (no such program).
Result<int> run_in_foreground(const std::vector<std::string>& words, int interval_ms,
                              const std::function<void()>& meanwhile);

}  // namespace mds::launcher
