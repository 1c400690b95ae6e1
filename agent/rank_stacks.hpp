// Rank stacks: the native stacks of processes, read by the program mdsstack (agent/stack_reader.cpp).
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "topology/result.hpp"

namespace mds::agent {

/// Calls `handler` once, from the event loop, with mdsstack's array or why there is none; after 15 s at the latest.
/// The child process is left to the caller's reaping of children (RankGroup does it).
void read_stacks(boost::asio::io_context& io, const std::vector<pid_t>& pids,
                 std::function<void(Result<nlohmann::json>)> handler);

}  // namespace mds::agent
