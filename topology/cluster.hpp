// Cluster: what machines there are, as value structs. Every topology source fills these; placement reads only these.
// Units: bytes, GB/s (1e9 bytes per second). OS indices are the kernel's (cpu numbers, NUMA node numbers).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "topology/fabric/fabric.hpp"
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

struct Package {
  int index = 0;
  std::string arch;            ///< "x86_64", "arm64", "ppc64le"; empty unknown
  std::string vendor;          ///< "GenuineIntel", "AuthenticAMD", ...
  int family = 0, model = 0;   ///< x86 family and model numbers, 0 unknown
  bool operator==(const Package&) const = default;
};

struct NumaNode {
  int os_index = 0;
  int package = 0;
  uint64_t memory_bytes = 0;   ///< 0 unknown (NCCL's recordings have none)
  bool operator==(const NumaNode&) const = default;
};

/// One direction of a PCI Express link, as recorded: nothing is corrected here, so that `doctor` can see it.
struct PciLink {
  double gtps = 0;             ///< per lane, in GT/s; 0 unknown
  int width = 0;               ///< lanes; 0 unknown
  bool operator==(const PciLink&) const = default;
};

/// A PCI function: bridge, switch port or endpoint. Together they form a tree.
struct PciDevice {
  std::string bus_id;          ///< "0000:3b:00.0", lower case
  int parent = -1;             ///< index into Machine::pci, below one's own; -1: hangs on NUMA node `numa` itself
  int numa = -1;               ///< OS index of the NUMA node of its root complex, -1 unknown
  uint32_t pci_class = 0;      ///< 0x030200, 0x060400, ...; 0 unknown
  std::string vendor{}, device{}, subsystem_vendor{}, subsystem_device{};  ///< "0x10de"; empty unknown
  PciLink link;                ///< towards the parent, as trained
  PciLink link_max;            ///< what both ends could; 0 unknown
  bool operator==(const PciDevice&) const = default;
};

struct Gpu {
  int index = 0;               ///< the driver's index (NVML order)
  std::string uuid;            ///< "GPU-..." ; empty where unknown
  std::string bus_id;          ///< "0000:3b:00.0", lower case
  std::string name;            ///< "NVIDIA H200"
  uint64_t memory_bytes = 0;
  int numa = -1;               ///< OS index of the nearest NUMA node, -1 unknown
  int pci = -1;                ///< index into Machine::pci, -1 unknown
  int sm = 0;                  ///< compute capability x 10 (80, 90, 100); 0 unknown or not NVIDIA's
  std::string gcn{};             ///< AMD's architecture, "gfx942"; empty otherwise
  bool gdr = true;             ///< NICs may read its memory (GPUDirect RDMA)
  std::string nvlink_domain{};   ///< "<ClusterUUID>.<clique>" where NVLink leaves the node (NVL72); empty otherwise
  bool operator==(const Gpu&) const = default;
};

struct Nic {
  std::string name;            ///< "mlx5_0" or "eth0"
  std::string bus_id;          ///< empty for virtual devices
  int numa = -1;
  double gbps = 0;             ///< link rate in Gbit/s, 0 unknown
  bool rdma = false;
  int pci = -1;                ///< index into Machine::pci, -1 unknown
  int port = 1;
  std::string guid{};            ///< of the adapter's node, "0x9a70500003ae6d94"; empty unknown
  std::string interface{};       ///< the kernel's interface of an RDMA device ("ib0"), for sockets; empty unknown
  bool gdr = false;            ///< it can read GPU memory
  bool active = true;          ///< its port is up; one that is down is shown and told of, but not for ranks to use
  bool operator==(const Nic&) const = default;
};

enum class LinkKind { nvlink, xgmi, c2c };
enum class LinkEnd { gpu, nvswitch, cpu };

/// The links of one kind from one GPU to one peer, in one direction. A link between two GPUs stands twice.
struct GpuLink {
  LinkKind kind = LinkKind::nvlink;
  int gpu = 0;                 ///< index into Machine::gpus
  LinkEnd end = LinkEnd::gpu;
  int peer = -1;               ///< end gpu: index into Machine::gpus; cpu: OS index of a NUMA node; nvswitch: -1
  std::string peer_bus_id;     ///< as recorded, also where it names no device that we know
  int count = 0;
  double gb_per_s_each = 0;    ///< of one link, one direction
  bool operator==(const GpuLink&) const = default;
};

struct Machine {
  std::string host;
  std::vector<Core> cores;     ///< only those that this process may use (affinity mask, cgroup)
  std::vector<Package> packages;
  std::vector<NumaNode> numa;  ///< only those that this process may allocate from, by OS index
  std::vector<PciDevice> pci;  ///< parents before children
  std::vector<Gpu> gpus;
  std::vector<Nic> nics;
  std::vector<GpuLink> links;
  std::vector<std::string> notes;  ///< what discovery left out and why
  bool operator==(const Machine&) const = default;
};

/// Nodes in the order in which they were given; node_order() (fabric/node_order.hpp) says in which they are filled.
/// On one real machine several virtual nodes may share the same host.
struct Cluster {
  std::vector<Machine> nodes;
  Fabric fabric{};
  bool operator==(const Cluster&) const = default;
};

/// `topo --json`, version 1: {"version", "nodes": [{"host", "packages", "cores", "numa", "pci", "gpus", "nics",
/// "links", "notes"}], "fabric"}; docs/topology.md has every field. The command adds the path of every GPU-GPU and
/// GPU-NIC pair ("paths", topology/paths.hpp), which reading skips.
nlohmann::json to_json(const Machine& machine);
nlohmann::json to_json(const Cluster& cluster);

/// Inverses of to_json; unknown keys are skipped, so that an older program reads a newer recording.
/// Errors: bad_input naming the field ("nodes[2].cores[0].cpus: ...").
Result<Machine> machine_from_json(const nlohmann::json& json);
Result<Cluster> cluster_from_json(const nlohmann::json& json);

}  // namespace mds::topology
