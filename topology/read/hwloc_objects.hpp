// The objects of an hwloc XML file that a Machine is made of, before GPUs, NICs and links are recognised among them.
// Internal to the hwloc reader (read/hwloc_*.cpp).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "topology/cluster.hpp"
#include "topology/result.hpp"

namespace mds::topology::hwloc {

/// What an operating system's device is, one bit each: hwloc 3's mask; the enumeration of 1.x and 2.x is translated.
enum OsKind : unsigned { kStorage = 1, kMemory = 2, kGpu = 4, kCoprocessor = 8, kNetwork = 16, kOpenFabrics = 32 };

using Infos = std::vector<std::pair<std::string, std::string>>;
/// The first value of that name; empty where there is none.
const std::string& info(const Infos& infos, std::string_view name);

struct OsDevice {
  std::string name;            ///< "nvml0", "mlx5_0"
  std::string backend;         ///< "NVML", "CUDA", "RSMI", "LevelZero", "OpenCL", ...; empty for the kernel's own
  unsigned kinds = 0;          ///< OsKind bits
  uint64_t gp_index = 0;       ///< hwloc's unique id, 0 in 1.x
  int pci = -1;                ///< index into Scan::pci, -1: hangs on no PCI function
  int numa = -1;
  Infos infos;
};

struct PciFunction {
  PciDevice device;            ///< parent: index into Scan::pci
  int index = -1;              ///< its own in Scan::pci
  uint64_t gp_index = 0;
  Infos infos;
};

/// A row or column of a distance matrix.
struct MatrixObject {
  enum class Kind { none, os, pci, cpu } kind = Kind::none;
  int index = -1;              ///< into Scan::os or Scan::pci; cpu: OS index of a NUMA node
};
struct Matrix {
  std::string name;            ///< "NVLinkBandwidth", "XGMIBandwidth", "XGMIHops"
  std::vector<MatrixObject> objects;
  std::vector<uint64_t> values;  ///< row-major
};

struct Scan {
  Machine machine;             ///< host, packages, cores, numa and notes are filled
  std::vector<PciFunction> pci;  ///< all of them, parents before children
  std::vector<OsDevice> os;
  std::vector<Matrix> matrices;
};

/// Errors: bad_input with place.
Result<Scan> scan_xml(std::string_view text, const std::string& host);

/// hwloc tells only GB/s of a PCI link; the generation and width (16 lanes at most) whose product that is. The widest
/// such link is taken: an x16 Gen3 and an x8 Gen4 link are told the same.
PciLink pci_link_of(double gb_per_s);

/// "146593728" (KiB up to 2.x), "16671616KiB" (3.x); 0 where it is no number.
uint64_t memory_bytes_of(const std::string& text);

// What follows fills the machine from the rest of the scan, in this order; they return the machine's index of each
// Scan::pci entry's GPU, -1 where it has none.
std::vector<int> add_gpus(Scan& scan);
void add_nics(Scan& scan);
void add_links(Scan& scan, const std::vector<int>& gpu_of_pci);
/// Keeps the PCI functions that lead to GPUs, NICs and NVSwitches.
void add_pci(Scan& scan);

}  // namespace mds::topology::hwloc
