// Machines: what the cost model needs to know of a cluster. The weakest device and link stand for all, because every
// step waits for them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "topology/cost/collective.hpp"
#include "topology/cost/device_class.hpp"
#include "topology/cost/work.hpp"
#include "topology/cluster.hpp"
#include "topology/rank_grid.hpp"

namespace mds::topology::cost {

struct Machines {
  bool gpu = false;
  bool rates_known = false;       ///< false: there is no step time, and no layout can be called the quickest
  DeviceClass device;
  uint64_t memory_bytes = 0;      ///< of one rank's device (GPU), or its share of the node's memory; 0 unknown
  uint64_t host_bytes = 0;        ///< of one rank's share of its node's memory; 0 unknown
  Links links;
  Links slow_links;               ///< within a node, where NVLink does not reach
  int nodes = 1;
  int ranks_per_node = 1;
  int domain = 1;                 ///< ranks that NVLink (xGMI) joins, at least 1; on CPUs those of a node
  std::string order = "tp-cp-dp-pp";
  std::vector<std::string> notes; ///< what was assumed because the recording does not say it
};

/// The first `nodes` nodes with `ranks_per_node` ranks each. Requires a node. `order` as in RankGrid::make.
Machines describe_machines(const Cluster& cluster, bool gpu, int nodes, int ranks_per_node, const std::string& order);

/// What joins the ranks of a group.
const Links& links_of(const Group& group, const Machines& machines);

/// The group of a rank along `axis`; `data` stands for all replicas (data and context).
Group group_along(Axis axis, const Layout& layout, const Machines& machines);

}  // namespace mds::topology::cost
