// Why the ranks sit where they sit, in sentences for `plan --explain`.
#pragma once

#include <string>
#include <vector>

#include "topology/placement.hpp"

namespace mds::topology {

struct Seat;

/// "1 rank", "2 ranks".
std::string counted(size_t count, const std::string& noun);

/// "node 2" or "nodes 0-3, 5". Requires ascending numbers.
std::string node_list(const std::vector<int>& nodes);

/// What to say of the seats of one machine: GPUs, cores, memory, NICs.
std::vector<std::string> seat_reasons(const Machine& machine, DeviceKind device, const std::vector<Seat>& seats);

/// Which axes stay inside a node and which cross the network; a warning where tensor groups do.
std::vector<std::string> axis_reasons(const Cluster& cluster, const PlacementRequest& request,
                                      const std::vector<NodePlacement>& nodes);

}  // namespace mds::topology
