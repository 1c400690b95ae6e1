// One screen of `mdslaunch top`: the status of a run for a terminal of some size. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace mds::launcher {

/// At most `rows` lines of at most `columns` columns. Ranks stand in the order of how much they want to be looked at:
/// those that do not run first, then those behind, then those not heard of for longest. What does not fit is counted.
std::vector<std::string> top_frame(const nlohmann::json& status, int columns, int rows);

}  // namespace mds::launcher
