// Machines as data: what a synthetic machine is made of. The one place to add another.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

/// The regular part of a machine.
struct MachineShape {
  int packages = 1;
  int cores = 4;                      ///< a package
  int numa = 1;                       ///< nodes a package
  int threads = 1;                    ///< a core
  uint64_t memory_bytes = 64 * kGiB;  ///< a NUMA node
};

struct GpuModel {
  std::string name;  ///< as the driver gives it
  uint64_t memory_bytes = 0;
  int sm = 0;
  std::string gcn;
  PciLink link;  ///< of the GPUs, and of everything else on the machine's PCI tree
};

/// GPUs and NICs (name, bus id) below one PCI switch.
struct PciSlot {
  int numa = 0;
  std::string bridge;  ///< bus id of the switch; empty: they hang on the CPU itself
  std::vector<std::string> gpus;
  std::vector<std::pair<std::string, std::string>> nics;
};

/// The links between GPUs.
struct LinkModel {
  enum class Shape { none, nvswitch, matrix };
  Shape shape = Shape::none;
  LinkKind kind = LinkKind::nvlink;
  double gb_per_s_each = 0;  ///< one link, one direction
  /// nvswitch: bus ids of the switches and how many links of a GPU lead to each.
  std::vector<std::pair<std::string, int>> switches;
  /// matrix: links between each pair of GPUs, row-major.
  std::vector<int> counts;
  int c2c_count = 0;  ///< links from each GPU to the CPU of its NUMA node
  double c2c_gb_per_s_each = 0;
};

struct MachineModel {
  std::string name;
  MachineShape shape;
  Package package;  ///< its index is not used
  GpuModel gpu;
  double nic_gbps = 0;
  std::vector<PciSlot> slots;
  LinkModel links;
  int domain_nodes = 0;  ///< nodes of one NVLink domain; 0: NVLink does not leave the node
};

/// All known machines. Made at the first call; thread-safe.
const std::vector<MachineModel>& machine_models();

/// One node of it, without a host name.
Machine machine_of(const MachineModel& model);
/// Cores, packages and NUMA nodes alone.
Machine machine_of(const MachineShape& shape, const Package& package);

/// Equal links from every GPU to every other.
std::vector<int> full_mesh(int gpus, int links);

}  // namespace mds::topology
