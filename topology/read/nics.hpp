// Network interfaces of this machine, read from /sys: RDMA devices and the kernel's interfaces.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

/// RDMA devices, those without an active port too (`active`), then kernel interfaces that are up and not an RDMA
/// device's own (`interface`), each in the order of their names. Interfaces without hardware (loopback, veth, docker0;
/// not bonds) and those behind USB (management chips) count only where there is nothing else, and loopback never.
/// `sys` is where sysfs is mounted. What is left out and could surprise goes into `notes`.
std::vector<Nic> discover_nics(const std::filesystem::path& sys, std::vector<std::string>& notes);

}  // namespace mds::topology
