// A machine as people see it: NUMA nodes with what hangs on them. PCI bridges that join nothing are left out.
#pragma once

#include <string>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology::picture {

/// GPUs and NICs below a PCI switch, or below the CPU itself. All indices are into the vectors of the Machine.
struct DeviceNode {
  int pci = -1;  ///< the switch's upstream port; -1: the CPU
  std::vector<int> gpus;
  std::vector<std::vector<int>> nics;  ///< by adapter: ports and functions of one card together
  std::vector<DeviceNode> switches;    ///< with two branches at least
};

struct NumaView {
  int os_index = -1;  ///< -1: devices of which it is not known
  int package = 0;
  uint64_t memory_bytes = 0;
  std::vector<const Core*> cores;  ///< the machine's
  DeviceNode devices;
};

/// NUMA nodes by package, then OS index; also those that only cores or devices name, and last, if there are devices of
/// an unknown one, that. `machine` must outlive the result.
std::vector<NumaView> numa_views(const Machine& machine);

/// Nodes that are alike but for host, serial numbers and notes.
struct MachineKind {
  const Machine* machine = nullptr;  ///< the first of them
  std::vector<std::string> hosts;
};
std::vector<MachineKind> machine_kinds(const Cluster& cluster);

/// "32 GT/s x16", "16 GT/s", "x8"; "" where nothing is known.
std::string link_text(const PciLink& link);
/// "1024 GiB", "2 TiB", "79.6 GiB"; "" for 0.
std::string memory_text(uint64_t bytes);
/// "400 Gbit/s"; "" where unknown.
std::string rate_text(double gbps);

}  // namespace mds::topology::picture
