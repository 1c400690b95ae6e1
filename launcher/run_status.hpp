// What a run does now, for the commands that show it: asked of its head, or read from its files when that is gone.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launcher/control.hpp"
#include "launcher/run_folder.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

/// HeadStatus::to_json() and {run, folder, in_progress}; of a run that has ended {outcome, exit_code, verdict} of its
/// report, too. `problem` is left empty, or says why the head of a run in progress did not answer; the event log speaks
/// for it then. Blocks. Errors: bad_input (no event log), corrupt.
Result<nlohmann::json> status_of_run(const RunFolder& folder, std::string& problem);
/// The same, over a connection that is kept. Errors: unavailable.
Result<nlohmann::json> live_status(const RunFolder& folder, ControlClient& client);

/// For people. Nodes and ranks that do the same stand in one line: thousands of them are read at a glance, and the odd
/// one shows. Pure.
std::vector<std::string> status_lines(const nlohmann::json& status);
/// The first of them: run, state, facts.
std::vector<std::string> status_head(const nlohmann::json& status);

}  // namespace mds::launcher
