// NVIDIA GPUs of this machine, asked of NVML, which is loaded at run time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

struct FoundGpus {
  std::vector<Gpu> gpus;           ///< in the driver's order (of the PCI bus); `numa` and `pci` are left to /sys
  std::vector<PciDevice> functions;  ///< what the driver knows of each one's PCI function: ids and links
  std::vector<GpuLink> links;      ///< NVLink and C2C
};

/// No driver: none, and no note. A driver that fails: none, and a note. `links`: ask for NVLinks, two calls a link.
/// Never creates a CUDA context. Thread-safe.
FoundGpus discover_gpus(bool links, std::vector<std::string>& notes);

/// Keeps what CUDA_VISIBLE_DEVICES = `visible` names, in that order, as CUDA reads it: indices or beginnings of UUIDs,
/// and the first that names no GPU ends the list. Links to others are left out, and what remains is renumbered. MIG
/// instances are not supported: a note says so.
FoundGpus visible_gpus(const FoundGpus& found, std::string_view visible, std::vector<std::string>& notes);

}  // namespace mds::topology
