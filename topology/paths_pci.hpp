// The PCI tree as NCCL sees it: a switch is one node there, and neither root ports nor downstream ports exist.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

struct PciAddress {
  uint32_t domain = 0, bus = 0, device = 0, function = 0;
  bool operator==(const PciAddress&) const = default;
};

/// "0000:3b:00.0", also with 8 digits of domain (NVML) or none; either case. Nothing else.
std::optional<PciAddress> parse_bus_id(std::string_view text);

/// The kernel's way of writing: "00000000:3B:00.0" -> "0000:3b:00.0". What is no bus id is only put in lower case.
std::string normal_bus_id(std::string_view text);

/// For every device the index of the switch above it, -1 at the root complex. Recordings of the kernel's tree (hwloc)
/// list a root port and, for each switch, an upstream port with downstream ports below; NCCL's recordings only the
/// upstream port. The two are told apart by bus numbers: the bus right below a bridge has the next number, and in
/// NCCL's trees it is always the switch's inner bus, which is left out (bridges of domain ffff are made up for virtual
/// machines and stand for switches). Of the kernel's tree every second level is kept, as NCCL does when it walks up
/// /sys. O(devices).
std::vector<int> switch_parents(const std::vector<PciDevice>& pci);

/// Broadcom's Gen4 and Gen5 switches show themselves as two levels although they are one: NCCL joins them, and so do
/// the parents returned here (devices of the inner level point to the outer one, inner switches have no children).
std::vector<int> flatten_switches(const std::vector<PciDevice>& pci, std::vector<int> parents);

}  // namespace mds::topology
