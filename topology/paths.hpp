// Paths inside a machine: how good the way from one GPU to another, or to a NIC, is. After NCCL's search (class and
// bandwidth of graph/paths.cc, constants of graph/topo.h), so that what we print is what NCCL will use.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

/// NCCL's path classes in NCCL's order, best first.
enum class PathClass { loc, nvl, nvb, c2c, pix, pxb, p2c, pxn, phb, sys, net, dis };
const char* to_string(PathClass path);  ///< "LOC", "NVL", ...

struct Path {
  PathClass kind = PathClass::dis;
  double gb_per_s = 0;  ///< of the narrowest link on the way, one direction
  int hops = 0;         ///< links on the way
  bool operator==(const Path&) const = default;
};

/// All pairs of one machine; row-major by index into Machine::gpus and Machine::nics.
struct Paths {
  size_t gpus = 0, nics = 0;
  std::vector<Path> gpu_gpu;  ///< [gpus x gpus]
  std::vector<Path> gpu_nic;  ///< [gpus x nics]
  const Path& between_gpus(size_t a, size_t b) const { return gpu_gpu[a * gpus + b]; }
  const Path& to_nic(size_t gpu, size_t nic) const { return gpu_nic[gpu * nics + nic]; }
};

/// As NCCL 2.29 computes them, for the direction GPU -> peer (sending): the widest of the shortest ways; at most one
/// GPU in between (NVB); PXN where a NIC is reached better over an NVLink peer than over the host; over the host where
/// GPUs cannot talk directly or a NIC cannot read GPU memory. Hops count links as NCCL's log does: GPU, switches, CPU,
/// NIC and its port ("NET") are nodes, a NIC's port costs a hop of its own, all NVSwitches together are one node.
/// Facts: PCI GB/s = width x {2.5:15, 5:30, 8:60, 16:120, 32:240, 64:480} / 80, unknown speed as 60, width 0 as 16;
/// sockets AMD 16, ARM 6, POWER9 32, Intel 6/10/22/40 by model; NIC Gbit/s / 8 (unknown: does not limit). Where the PCI
/// tree is unknown, two devices of one NUMA node meet at its host bridge (PHB) and others across sockets (SYS).
/// Cost: O((gpus + nics) x devices) a machine; a DGX takes well under 0.1 ms. Never fails: what is contradictory (links
/// to nowhere, links that only one end knows) is as if it were not there. Requires what readers guarantee: at most
/// kGpusMax GPUs, kNicsMax NICs and kNumaMax NUMA nodes (read/read_machine.hpp).
Paths find_paths(const Machine& machine);

/// GB/s of one link of an NVIDIA GPU of this compute capability (sm60 18, sm70/80 20, sm86 12, sm90 20.6, sm100 40.1).
double nvlink_gb_per_s(int sm);
/// GB/s of one xGMI link by AMD's architecture: gfx90a 36, gfx94x and gfx950 48, others 24 (RCCL's graph/topo.h).
double xgmi_gb_per_s(std::string_view gcn);
double pci_gb_per_s(const PciLink& link);
/// Between the sockets (NUMA nodes) of a machine with this CPU; 5000, NCCL's "no limit", where it is unknown.
double socket_gb_per_s(const Package& package);

/// {"gpu_gpu": [{"from", "to", "class", "gb_per_s", "hops"}], "gpu_nic": [...]}: "from" and "to" are GPU
/// indices (Gpu::index) and NIC names; GPU pairs in both directions, without a GPU to itself.
nlohmann::json to_json(const Paths& paths, const Machine& machine);

}  // namespace mds::topology
