// Made-up machines without a fault, of many shapes, for tests of the doctor.
#pragma once

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>

#include "topology/cluster.hpp"

namespace mds::topology::tests {

/// How the GPUs of a made-up machine are joined.
enum class Joined { not_at_all, mesh, by_switches };

inline int between(std::mt19937& random, int least, int most) {
  return std::uniform_int_distribution<int>(least, most)(random);
}

inline std::string bus_id(int bus) {
  char text[16];
  std::snprintf(text, sizeof text, "0000:%02x:00.0", bus);
  return text;
}

/// A switch with a GPU and an adapter below it: four PCI devices more.
inline void add_branch(Machine& machine, int numa) {
  const int bus = 4 + static_cast<int>(machine.gpus.size()) * 4;
  const int root = static_cast<int>(machine.pci.size());
  const PciLink link{32, 16};
  machine.pci.push_back({bus_id(bus), -1, numa, 0x060400, "0x1000", "0xc030", "", "", link, {}});
  machine.pci.push_back({bus_id(bus + 1), root, numa, 0x060400, "0x1000", "0xc030", "", "", link, {}});
  machine.pci.push_back({bus_id(bus + 2), root + 1, numa, 0x030200, "0x10de", "0x2330", "", "", link, link});
  machine.pci.push_back({bus_id(bus + 3), root, numa, 0x020700, "0x15b3", "0x1021", "", "", link, link});

  Gpu gpu;
  gpu.index = static_cast<int>(machine.gpus.size());
  gpu.uuid = "GPU-" + std::to_string(gpu.index);
  gpu.bus_id = bus_id(bus + 2);
  gpu.name = "NVIDIA H100 80GB HBM3";
  gpu.memory_bytes = uint64_t{80} << 30;
  gpu.numa = numa;
  gpu.pci = root + 2;
  gpu.sm = 90;
  machine.gpus.push_back(gpu);

  Nic nic;
  nic.name = "mlx5_" + std::to_string(gpu.index);
  nic.bus_id = bus_id(bus + 3);
  nic.numa = numa;
  nic.gbps = 400;
  nic.rdma = nic.gdr = true;
  nic.pci = root + 3;
  nic.guid = "0x9a70500003ae6d0" + std::to_string(gpu.index % 10) + std::to_string(gpu.index / 10);
  machine.nics.push_back(nic);
}

inline void join(Machine& machine, Joined joined, int count) {
  const auto gpus = static_cast<int>(machine.gpus.size());
  for (int a = 0; a < gpus; ++a) {
    if (joined == Joined::by_switches) {
      machine.links.push_back({LinkKind::nvlink, a, LinkEnd::nvswitch, -1, "0000:f0:00.0", count, 20.6});
    }
    for (int b = 0; joined == Joined::mesh && b < gpus; ++b) {
      if (a == b) continue;
      const std::string peer = machine.gpus[static_cast<size_t>(b)].bus_id;
      machine.links.push_back({LinkKind::nvlink, a, LinkEnd::gpu, b, peer, count, 20.6});
    }
  }
}

/// 1-2 packages of 1-4 NUMA nodes; on each NUMA node PCI switches with a GPU and an RDMA adapter each. At least four
/// GPUs.
inline Machine clean_machine(std::mt19937& random, Joined joined) {
  Machine machine;
  machine.host = "made-up";
  const int packages = between(random, 1, 2), nodes = between(random, 1, 4), threads = between(random, 1, 2);
  const int cores = between(random, 4, 12), per_node = between(random, packages * nodes < 4 ? 4 : 1, 5) / 2;
  const uint64_t memory = uint64_t{64} << 30;
  int cpu = 0;
  for (int numa = 0; numa < packages * nodes; ++numa) {
    machine.numa.push_back({numa, numa / nodes, memory + static_cast<uint64_t>(between(random, 0, 1 << 28))});
    for (int i = 0; i < cores; ++i) {
      Core core{static_cast<int>(machine.cores.size()), numa / nodes, numa, {}};
      for (int thread = 0; thread < threads; ++thread) core.cpus.push_back(cpu++);
      machine.cores.push_back(core);
    }
    for (int i = 0; i < std::max(1, per_node); ++i) add_branch(machine, numa);
  }
  while (machine.gpus.size() < 4) add_branch(machine, 0);
  for (int package = 0; package < packages; ++package) {
    machine.packages.push_back({package, "x86_64", "GenuineIntel", 6, 143});
  }
  // GPUs with a switch-less board of their own are named so that nobody expects links of the others.
  if (joined == Joined::not_at_all) {
    for (Gpu& gpu : machine.gpus) gpu.name = "NVIDIA H100 NVL";
    for (PciDevice& device : machine.pci) {
      if (device.device == "0x2330") device.device = "0x2321";
    }
  }
  join(machine, joined, joined == Joined::mesh ? between(random, 1, 4) : 18);
  return machine;
}

}  // namespace mds::topology::tests
