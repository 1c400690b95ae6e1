// Stacks of all ranks as one text: threads with equal stacks stand once, with the ranks that they belong to. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace mds::launcher {

/// `ranks` as agents send them: [{rank, processes: [{pid, name, error?, threads: [{tid, name, frames: [text]}]}]}].
/// Most ranks first. What is malformed is left out: it comes from another process.
std::string merged_stacks(const nlohmann::json& ranks);

}  // namespace mds::launcher
