// NVIDIA GPUs of this machine, asked of NVML, which is loaded at run time: nothing of ours links a driver library.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

/// All GPUs in the driver's order (of the PCI bus). No driver: none, and no note. A driver that fails: none, and a
/// note. Never creates a CUDA context. Thread-safe.
std::vector<Gpu> discover_gpus(std::vector<std::string>& notes);

/// Keeps what CUDA_VISIBLE_DEVICES = `visible` names, in that order, as CUDA reads it: indices or beginnings of UUIDs,
/// and the first that names no GPU ends the list. MIG instances are not supported: a note says so.
std::vector<Gpu> visible_gpus(const std::vector<Gpu>& gpus, std::string_view visible, std::vector<std::string>& notes);

}  // namespace mds::topology
