// Discovery: the machine that this process runs on, as hwloc, NVML and /sys show it.
#pragma once

#include "topology/cluster.hpp"
#include "topology/result.hpp"

namespace mds::topology {

struct DiscoverOptions {
  bool gpus = true;            ///< ask NVML (absent is fine)
  bool links = true;           ///< of GPUs: two calls of NVML for each NVLink, 36 a GPU of an NVSwitch machine
};

/// Discovers this machine with hwloc, NVML (loaded at run time) and /sys; never starts a GPU context. Takes about a
/// millisecond without GPUs; tests/topology/read/discover_test.cpp holds it to 30. Heeds the calling thread's affinity
/// mask, the cpuset and CUDA_VISIBLE_DEVICES; `notes` say what that left out.
/// Thread-safe, but the first call of a process changes the environment for a moment (hwloc has no other way to keep
/// its plug-ins out): make it before threads start that read the environment. Errors: internal.
Result<Machine> discover_machine(const DiscoverOptions& options = {});

}  // namespace mds::topology
