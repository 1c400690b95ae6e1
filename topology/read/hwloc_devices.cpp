// The reader's second half: which of the scanned devices are GPUs and NICs.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "topology/fabric/natural_order.hpp"
#include "topology/read/gpus_pci_ids.hpp"
#include "topology/read/hwloc_objects.hpp"
#include "topology/read/hwloc_tags.hpp"

namespace mds::topology::hwloc {
namespace {

constexpr int kIndexMax = 1 << 20;

/// Libraries that tell of GPUs, those with the driver's own numbering first.
constexpr std::array<std::string_view, 5> kBackends{"NVML", "RSMI", "CUDA", "LevelZero", "OpenCL"};

/// The place of the device's library in kBackends; their number if it is no GPU of such a library.
size_t backend_of(const OsDevice& os) {
  size_t at = static_cast<size_t>(std::find(kBackends.begin(), kBackends.end(), os.backend) - kBackends.begin());
  const std::string& kind = info(os.infos, "OpenCLDeviceType");
  if (os.backend == "OpenCL" && !kind.empty() && kind != "GPU") return kBackends.size();   // a CPU, too
  if (os.backend == "LevelZero" && os.name.find('.') != std::string::npos) return kBackends.size();  // a tile of a GPU
  return at;
}

/// 3 of "nvml3"; -1 where there is none.
int number_behind(const std::string& name) {
  const size_t digits = name.find_last_not_of("0123456789") + 1;
  int number = -1;
  std::from_chars(name.data() + digits, name.data() + name.size(), number);
  return number <= kIndexMax ? number : -1;
}

std::string first_info(const std::vector<const OsDevice*>& devices, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    for (const OsDevice* os : devices) {
      if (const std::string& value = info(os->infos, name); !value.empty()) return value;
    }
  }
  return "";
}

/// lspci's "GH100 [H200 SXM 141GB]" as "NVIDIA H200 SXM 141GB", for recordings without the GPU's own library.
std::string name_of_pci(const PciFunction& pci) {
  const std::string& device = info(pci.infos, "PCIDevice");
  const size_t open = device.find('['), close = device.rfind(']');
  if (device.empty()) return "";
  const bool bracket = open != std::string::npos && close != std::string::npos && open < close;
  const std::string product = bracket ? device.substr(open + 1, close - open - 1) : device;
  const char* const maker = pci.device.vendor == "0x10de" ? "NVIDIA " : pci.device.vendor == "0x1002" ? "AMD " : "";
  return maker + product;
}

struct Candidate {
  Gpu gpu;
  int order = -1;              ///< as written by us
  int number = -1;             ///< the driver's
};

/// `devices`: what the libraries tell of one GPU. `pci`: its function, nullptr if unknown.
Candidate describe(std::vector<const OsDevice*> devices, const PciFunction* pci) {
  std::stable_sort(devices.begin(), devices.end(),
                   [](const OsDevice* a, const OsDevice* b) { return backend_of(*a) < backend_of(*b); });
  Candidate candidate;
  Gpu& gpu = candidate.gpu;
  if (pci) {
    gpu.pci = pci->index;
    gpu.bus_id = pci->device.bus_id;
    gpu.numa = pci->device.numa;
    const GpuChip chip = gpu_chip(pci->device.vendor, pci->device.device);
    gpu.sm = chip.sm;
    gpu.gcn = chip.gcn;
    gpu.name = chip.product.empty() ? name_of_pci(*pci) : chip.product;
    gpu.memory_bytes = chip.memory_bytes;
  }
  if (const std::string name = first_info(devices, {"GPUModel"}); !name.empty()) gpu.name = name;
  gpu.uuid = first_info(devices, {"NVIDIAUUID", "AMDUUID", "LevelZeroUUID"});
  const uint64_t memory_bytes =
      memory_bytes_of(first_info(devices, {"CUDAGlobalMemorySize", "RSMIVRAMSize", "LevelZeroHBMSize",
                                           "LevelZeroDDRSize", "LevelZeroMemorySize", "OpenCLGlobalMemorySize"}));
  if (memory_bytes > 0) gpu.memory_bytes = memory_bytes;
  for (const OsDevice* os : devices) {
    if (backend_of(*os) <= 1 && candidate.number < 0) candidate.number = number_behind(os->name);
    if (!pci && gpu.numa < 0) gpu.numa = os->numa;
    gpu.index = std::max(candidate.number, 0);
    if (tags::read(os->infos, gpu)) candidate.order = tags::order(os->infos), candidate.number = gpu.index;
  }
  return candidate;
}

/// Libraries' devices that hang on no PCI function: all of the best library's, and what the others tell of the same.
std::vector<std::vector<const OsDevice*>> loose_devices(const Scan& scan) {
  std::array<std::vector<const OsDevice*>, kBackends.size()> of;
  for (const OsDevice& os : scan.os) {
    if (os.pci < 0 && tags::order(os.infos) < 0 && backend_of(os) < kBackends.size()) of[backend_of(os)].push_back(&os);
  }
  std::vector<std::vector<const OsDevice*>> gpus;
  for (const auto& devices : of) {
    if (gpus.empty()) gpus.resize(devices.size());
    for (size_t i = 0; i < devices.size() && devices.size() == gpus.size(); ++i) gpus[i].push_back(devices[i]);
  }
  return gpus;
}

/// A virtual machine may hide which PCI function a library's device is. Where all are alike, it does not matter.
bool alike(const std::vector<std::vector<const OsDevice*>>& gpus) {
  std::set<std::string> kinds;
  for (const auto& devices : gpus) {
    const Gpu gpu = describe(devices, nullptr).gpu;
    kinds.insert(gpu.name + "/" + std::to_string(gpu.memory_bytes) + "/" + gpu.uuid);
  }
  return kinds.size() == 1;
}

std::vector<size_t> functions_that_are_gpus(const Scan& scan,
                                            const std::map<int, std::vector<const OsDevice*>>& devices) {
  std::vector<size_t> found;
  const auto by_library = [&](size_t i) { return devices.count(static_cast<int>(i)) > 0; };
  for (size_t i = 0; i < scan.pci.size(); ++i) {
    const PciDevice& device = scan.pci[i].device;
    if (by_library(i) || is_gpu(device.pci_class, device.vendor)) found.push_back(i);
  }
  // A processor's own graphics beside real GPUs is none.
  const auto display_only = [&](size_t i) {
    const PciDevice& device = scan.pci[i].device;
    return is_display_adapter(device.pci_class) && device.vendor != "0x10de";
  };
  if (!std::all_of(found.begin(), found.end(), display_only)) std::erase_if(found, display_only);
  return found;
}

/// Machine::gpus is in the driver's order; where no library tells it, that is the order of the bus ids.
void sort_gpus(std::vector<Candidate>& gpus) {
  std::set<int> numbers, orders;
  for (const Candidate& gpu : gpus) numbers.insert(gpu.number), orders.insert(gpu.order);
  const bool numbered = numbers.size() == gpus.size() && (numbers.empty() || *numbers.begin() >= 0);
  const bool ordered = orders.size() == gpus.size() && (orders.empty() || *orders.begin() >= 0);
  std::stable_sort(gpus.begin(), gpus.end(), [&](const Candidate& a, const Candidate& b) {
    if (ordered) return a.order < b.order;
    return numbered ? a.number < b.number : a.gpu.bus_id < b.gpu.bus_id;
  });
  for (size_t i = 0; i < gpus.size(); ++i) {
    if (!ordered && !numbered) gpus[i].gpu.index = static_cast<int>(i);
  }
}

}  // namespace

PciLink pci_link_of(double gb_per_s) {
  struct Rate {
    double gtps, payload;  ///< GT/s a lane, and what the line code leaves of it
  };
  constexpr Rate kRates[] = {{2.5, 0.8},          {5, 0.8},           {8, 128.0 / 130},
                             {16, 128.0 / 130},   {32, 128.0 / 130},  {64, 242.0 / 256}};
  constexpr double kTolerance = 0.04;  // some libraries give whole GB/s
  if (!(gb_per_s > 0)) return {};
  PciLink best;
  double best_error = kTolerance;
  for (const int width : {16, 12, 8, 4, 2, 1}) {
    for (const Rate& rate : kRates) {
      const double error = std::abs(rate.gtps * rate.payload * width / 8 / gb_per_s - 1);
      if (error < best_error - 1e-3) best = {rate.gtps, width}, best_error = error;
    }
  }
  return best;
}

uint64_t memory_bytes_of(const std::string& text) {
  uint64_t size = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (failed != std::errc()) return 0;
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  const uint64_t scale = unit == "B"     ? 1
                         : unit == "MiB" ? uint64_t{1} << 20
                         : unit == "GiB" ? uint64_t{1} << 30
                                         : 1 << 10;  // hwloc's unit where it says none
  return size > UINT64_MAX / scale ? 0 : size * scale;
}

std::vector<int> add_gpus(Scan& scan) {
  std::map<int, std::vector<const OsDevice*>> devices;
  for (const OsDevice& os : scan.os) {
    if (os.pci >= 0 && backend_of(os) < kBackends.size()) devices[os.pci].push_back(&os);
  }
  const auto functions = functions_that_are_gpus(scan, devices);
  const auto loose = loose_devices(scan);
  const bool match_loose = !loose.empty() && devices.empty() && loose.size() == functions.size() && alike(loose);
  std::vector<Candidate> gpus;
  for (size_t i = 0; i < functions.size(); ++i) {
    const size_t pci = functions[i];
    const auto& told = devices[static_cast<int>(pci)];
    // We write one device a GPU, even where two share a function.
    if (!told.empty() && tags::order(told.front()->infos) >= 0) {
      for (const OsDevice* os : told) gpus.push_back(describe({os}, &scan.pci[pci]));
    } else {
      gpus.push_back(describe(match_loose ? loose[i] : told, &scan.pci[pci]));
    }
  }
  for (const auto& only : loose) {
    if (functions.empty()) gpus.push_back(describe(only, nullptr));  // PCI functions were filtered out
  }
  for (const OsDevice& os : scan.os) {  // ours, whose PCI function is unknown
    if (os.pci < 0 && tags::order(os.infos) >= 0 && backend_of(os) < kBackends.size()) {
      gpus.push_back(describe({&os}, nullptr));
    }
  }
  sort_gpus(gpus);
  std::vector<int> gpu_of_pci(scan.pci.size(), -1);
  for (size_t i = 0; i < gpus.size(); ++i) {
    if (gpus[i].gpu.pci >= 0) gpu_of_pci[static_cast<size_t>(gpus[i].gpu.pci)] = static_cast<int>(i);
    scan.machine.gpus.push_back(std::move(gpus[i].gpu));
  }
  return gpu_of_pci;
}

namespace {

/// "b8e9:2403:00ba:a4c8" as "0xb8e9240300baa4c8"; empty where it is all zeros.
std::string guid_of(const std::string& text) {
  std::string guid = "0x";
  for (const char c : text) {
    if (c != ':') guid.push_back(c);
  }
  constexpr size_t kDigitsMax = 32;  // 16 of a node or port, 32 of a GID
  const bool is_one = guid.size() <= 2 + kDigitsMax && guid.find_first_not_of("0123456789abcdefABCDEF", 2) == guid.npos;
  return !is_one || guid.find_first_not_of("0x") == std::string::npos ? "" : guid;
}

/// The first port that is up (InfiniBand's state 4, ACTIVE); no state told: 1. Nothing: all are down.
std::optional<int> active_port(const OsDevice& os) {
  bool told = false;
  for (const auto& [name, value] : os.infos) {
    if (!name.starts_with("Port") || !name.ends_with("State")) continue;
    told = true;
    if (value == "4") return std::clamp(std::atoi(name.c_str() + 4), 1, kIndexMax);
  }
  return told ? std::nullopt : std::optional<int>(1);
}

Nic rdma_nic(const OsDevice& os, const std::vector<const OsDevice*>& interfaces) {
  Nic nic;
  nic.name = os.name;
  nic.rdma = nic.gdr = true;
  const auto port = active_port(os);
  nic.active = port.has_value();
  nic.port = port.value_or(1);
  nic.guid = guid_of(info(os.infos, "NodeGUID"));
  for (const OsDevice* interface : interfaces) {
    if (interface->pci != os.pci) continue;
    const bool same_port = info(interface->infos, "Port") == std::to_string(nic.port);
    if (nic.interface.empty() || same_port) nic.interface = interface->name;
    if (same_port) break;
  }
  return nic;
}

struct FoundNic {
  Nic nic;
  int order = -1;
};

}  // namespace

void add_nics(Scan& scan) {
  std::vector<const OsDevice*> rdma, interfaces, elsewhere;
  for (const OsDevice& os : scan.os) {
    const bool fabric = os.kinds & kOpenFabrics;
    if (!fabric && !(os.kinds & kNetwork)) continue;
    const bool adapter = os.pci >= 0 && is_network(scan.pci[static_cast<size_t>(os.pci)].device.pci_class);
    const bool ours = tags::order(os.infos) >= 0;
    // On no PCI function, or on one that is no network adapter: a management chip's USB interface, for one.
    (fabric ? rdma : adapter || ours ? interfaces : elsewhere).push_back(&os);
  }
  std::vector<FoundNic> found;
  const auto add = [&](const OsDevice& os, Nic nic) {
    nic.pci = os.pci;
    nic.numa = os.numa;
    if (os.pci >= 0) nic.bus_id = scan.pci[static_cast<size_t>(os.pci)].device.bus_id;
    tags::read(os.infos, nic);
    found.push_back({std::move(nic), tags::order(os.infos)});
  };
  std::set<int> rdma_functions;
  for (const OsDevice* os : rdma) {
    add(*os, rdma_nic(*os, interfaces));
    if (os->pci >= 0) rdma_functions.insert(os->pci);
  }
  for (const OsDevice* os : interfaces) {
    if (rdma_functions.count(os->pci) && tags::order(os->infos) < 0) continue;
    Nic nic;
    nic.name = os->name;
    // HPE Slingshot does RDMA through its network device.
    nic.rdma = nic.gdr = os->pci >= 0 && scan.pci[static_cast<size_t>(os->pci)].device.vendor == "0x17db";
    add(*os, nic);
  }
  if (found.empty()) {
    for (const OsDevice* os : elsewhere) {
      if (os->pci < 0 && os->name != "lo") add(*os, Nic{os->name, ""});
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const FoundNic& a, const FoundNic& b) {
    if (a.order != b.order) return a.order < b.order;
    if (a.nic.rdma != b.nic.rdma) return a.nic.rdma;
    return natural_less(a.nic.name, b.nic.name);
  });
  for (FoundNic& nic : found) scan.machine.nics.push_back(std::move(nic.nic));
}

void add_pci(Scan& scan) {
  std::vector<bool> kept(scan.pci.size());
  for (const Gpu& gpu : scan.machine.gpus) {
    if (gpu.pci >= 0) kept[static_cast<size_t>(gpu.pci)] = true;
  }
  for (const Nic& nic : scan.machine.nics) {
    if (nic.pci >= 0) kept[static_cast<size_t>(nic.pci)] = true;
  }
  std::vector<std::pair<int, size_t>> order;
  for (size_t i = scan.pci.size(); i-- > 0;) {
    const PciFunction& pci = scan.pci[i];
    const int ours = tags::order(pci.infos);
    if (ours >= 0 || is_nvswitch(pci.device.pci_class, pci.device.vendor)) kept[i] = true;
    if (kept[i] && pci.device.parent >= 0) kept[static_cast<size_t>(pci.device.parent)] = true;
    if (kept[i]) order.emplace_back(ours, i);
  }
  std::sort(order.begin(), order.end());
  std::vector<int> index(scan.pci.size(), -1);
  for (const auto& [ours, i] : order) {
    index[i] = static_cast<int>(scan.machine.pci.size());
    PciDevice device = scan.pci[i].device;
    // A parent behind its child can only be a file that imitates ours: then the child hangs on the NUMA node itself.
    if (device.parent >= 0) device.parent = index[static_cast<size_t>(device.parent)];
    scan.machine.pci.push_back(std::move(device));
  }
  for (Gpu& gpu : scan.machine.gpus) gpu.pci = gpu.pci < 0 ? -1 : index[static_cast<size_t>(gpu.pci)];
  for (Nic& nic : scan.machine.nics) nic.pci = nic.pci < 0 ? -1 : index[static_cast<size_t>(nic.pci)];
}

}  // namespace mds::topology::hwloc
