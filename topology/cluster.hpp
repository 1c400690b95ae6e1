// Cluster: what machines there are, as value structs. Every topology source fills these; placement reads only these.
// Units: bytes, GB/s (1e9 bytes per second). OS indices are the kernel's (cpu numbers, NUMA node numbers).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "topology/result.hpp"

namespace mds::topology {

/// A physical core with its hardware threads.
struct Core {
  int index = 0;               ///< logical index on the node, 0-based
  int package = 0;
  int numa = 0;                ///< OS index of the nearest NUMA node
  std::vector<int> cpus;       ///< OS cpu numbers (hardware threads), ascending
  bool operator==(const Core&) const = default;
};

struct NumaNode {
  int os_index = 0;
  int package = 0;
  uint64_t memory_bytes = 0;
  bool operator==(const NumaNode&) const = default;
};

struct Gpu {
  int index = 0;               ///< the driver's index (NVML order)
  std::string uuid;            ///< "GPU-..." ; empty where unknown
  std::string bus_id;          ///< "0000:3b:00.0", lower case
  std::string name;            ///< "NVIDIA H200"
  uint64_t memory_bytes = 0;
  int numa = -1;               ///< OS index of the nearest NUMA node, -1 unknown
  bool operator==(const Gpu&) const = default;
};

struct Nic {
  std::string name;            ///< "mlx5_0" or "eth0"
  std::string bus_id;          ///< empty for virtual devices
  int numa = -1;
  double gbps = 0;             ///< link rate in Gbit/s, 0 unknown
  bool rdma = false;
  bool operator==(const Nic&) const = default;
};

struct Machine {
  std::string host;
  std::vector<Core> cores;     ///< only those that this process may use (affinity mask, cgroup)
  std::vector<NumaNode> numa;  ///< only those that this process may allocate from, by OS index
  std::vector<Gpu> gpus;
  std::vector<Nic> nics;
  std::vector<std::string> notes;  ///< what discovery left out and why
  bool operator==(const Machine&) const = default;
};

/// Nodes in placement order. On one real machine several virtual nodes may share the same host.
struct Cluster {
  std::vector<Machine> nodes;
  bool operator==(const Cluster&) const = default;
};

/// `topo --json`, version 1: {"version", "nodes": [{"host", "cores", "numa", "gpus", "nics", "notes"}]}.
nlohmann::json to_json(const Machine& machine);
nlohmann::json to_json(const Cluster& cluster);

/// Inverses of to_json; unknown keys are skipped, so that an older program reads a newer recording.
/// Errors: bad_input naming the field ("nodes[2].cores[0].cpus: ...").
Result<Machine> machine_from_json(const nlohmann::json& json);
Result<Cluster> cluster_from_json(const nlohmann::json& json);

/// Reads a recording: a file that `topo --json` wrote (or one Machine of it), or a folder of such files (*.json, in
/// the order of their names). Errors: bad_input naming file and field.
Result<Cluster> load_cluster(const std::string& path);

struct DiscoverOptions {
  bool gpus = true;            ///< ask NVML (absent is fine)
};

/// Discovers this machine with hwloc, NVML (loaded at run time) and /sys; never starts a GPU context. Takes well under
/// a millisecond without GPUs. Heeds the calling thread's affinity mask, the cpuset and CUDA_VISIBLE_DEVICES.
/// Thread-safe, but the first call of a process changes the environment for a moment (hwloc has no other way to keep
/// its plug-ins out): make it before threads start that read the environment. Errors: internal.
Result<Machine> discover_machine(const DiscoverOptions& options = {});

}  // namespace mds::topology
