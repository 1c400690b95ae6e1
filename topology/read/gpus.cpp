#include "topology/read/gpus.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>

#include "topology/paths.hpp"
#include "topology/read/nvml.hpp"
#include "topology/read/sysfs.hpp"

namespace mds::topology {
namespace {

using nvml::kSuccess;

std::string pci_id(unsigned id) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%04x", id & 0xffff);
  return text;
}

/// GT/s of a lane by generation of PCI Express, from the first on.
double gtps_of(unsigned generation) {
  constexpr double kRates[] = {0, 2.5, 5, 8, 16, 32, 64};
  return generation < std::size(kRates) ? kRates[generation] : 0;
}

/// A virtual machine hides it from /sys, but not from the driver.
PciLink pci_link(nvml::Device device, int (*generation)(nvml::Device, unsigned*),
                 int (*width)(nvml::Device, unsigned*)) {
  unsigned number = 0, lanes = 0;
  if (!generation || !width || generation(device, &number) != kSuccess || width(device, &lanes) != kSuccess) return {};
  return {gtps_of(number), static_cast<int>(std::min(lanes, 32u))};
}

PciDevice pci_function(nvml::Device device, const nvml::PciInfo& info) {
  const nvml::Library& nvml = nvml::library();
  PciDevice function;
  function.bus_id = sysfs::kernel_bus_id(info.bus_id);
  function.pci_class = 0x030200;
  function.vendor = pci_id(info.pci_device_id);
  function.device = pci_id(info.pci_device_id >> 16);
  function.subsystem_vendor = pci_id(info.pci_subsystem_id);
  function.subsystem_device = pci_id(info.pci_subsystem_id >> 16);
  function.link = pci_link(device, nvml.pcie_generation, nvml.pcie_width);
  function.link_max = pci_link(device, nvml.pcie_generation_max, nvml.pcie_width_max);
  return function;
}

/// "<ClusterUUID>.<clique>" where GPUs of several nodes share an NVLink fabric; on a single node the UUID is zero.
std::string nvlink_domain(nvml::Device device) {
  nvml::FabricInfo fabric{};
  fabric.version = nvml::kFabricInfoVersion;
  const nvml::Library& nvml = nvml::library();
  if (!nvml.fabric || nvml.fabric(device, &fabric) != kSuccess) return "";
  const unsigned char* const uuid = fabric.cluster_uuid;
  const bool zero = std::all_of(uuid, uuid + 16, [](unsigned char byte) { return byte == 0; });
  if (fabric.state != nvml::kFabricCompleted || fabric.status != kSuccess || zero) return "";
  std::string text;
  for (int i = 0; i < 16; ++i) {
    char byte[8];
    std::snprintf(byte, sizeof byte, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
    text += byte;
  }
  return text + "." + std::to_string(fabric.clique);
}

/// One GPU; an NVML code where it cannot be asked (fallen off the bus, no permission).
int describe(unsigned index, nvml::Device& device, Gpu& gpu, PciDevice& function) {
  const nvml::Library& nvml = nvml::library();
  char text[96] = {};  // NVML_DEVICE_NAME_V2_BUFFER_SIZE; a UUID needs 80 at most
  nvml::PciInfo pci{};
  nvml::Memory memory{};
  gpu.index = static_cast<int>(index);
  if (const int code = nvml.handle(index, &device)) return code;
  if (const int code = nvml.uuid(device, text, sizeof text)) return code;
  gpu.uuid = text;
  if (const int code = nvml.name(device, text, sizeof text)) return code;
  gpu.name = text;
  if (const int code = nvml.pci(device, &pci)) return code;
  function = pci_function(device, pci);
  gpu.bus_id = function.bus_id;
  // Where memory is the processor's own (GB10), NVML has no size of its own to tell: leave it unknown.
  if (nvml.memory(device, &memory) == kSuccess) gpu.memory_bytes = memory.total;
  int major = 0, minor = 0;
  if (nvml.compute_capability && nvml.compute_capability(device, &major, &minor) == kSuccess) {
    gpu.sm = std::max(0, 10 * major + minor);
  }
  gpu.nvlink_domain = nvlink_domain(device);
  return kSuccess;
}

std::optional<unsigned> field(nvml::Device device, nvml::Field name, unsigned scope = 0) {
  const nvml::Library& nvml = nvml::library();
  nvml::FieldValue value{};
  value.field = name;
  value.scope = scope;
  if (!nvml.fields || nvml.fields(device, 1, &value) != kSuccess || value.result != kSuccess) return std::nullopt;
  return value.value.u;
}

/// Active links of one GPU, counted by what is at their other end, in the order in which those are met.
class Links {
 public:
  Links(const FoundGpus& found, int gpu, nvml::Device device) : found_(found), gpu_(gpu), device_(device) {}

  std::vector<GpuLink> run() {
    constexpr unsigned kLinksMax = 18;  // NVML_NVLINK_MAX_LINKS, where the driver cannot count
    const nvml::Library& nvml = nvml::library();
    if (nvml.nvlink_state && nvml.nvlink_remote) {
      const unsigned count = std::min(field(device_, nvml::kNvlinkCount).value_or(kLinksMax), 64u);
      for (unsigned link = 0; link < count; ++link) {
        int active = 0;
        const int code = nvml.nvlink_state(device_, link, &active);
        if (code == nvml::kInvalidArgument) break;
        if (code == kSuccess && active) add_nvlink(link);
      }
    }
    add_c2c();
    return std::move(links_);
  }

 private:
  void add_nvlink(unsigned link) {
    const nvml::Library& nvml = nvml::library();
    nvml::PciInfo remote{};
    if (nvml.nvlink_remote(device_, link, &remote) != kSuccess) return;
    const std::string bus_id = sysfs::kernel_bus_id(std::string(remote.bus_id, strnlen(remote.bus_id, 32)));
    const auto [known, fresh] = at_.try_emplace(bus_id, links_.size());
    if (!fresh) {
      ++links_[known->second].count;
      return;
    }
    GpuLink found;
    found.gpu = gpu_;
    found.peer_bus_id = bus_id;
    found.count = 1;
    found.gb_per_s_each = nvlink_gb_per_s(found_.gpus[static_cast<size_t>(gpu_)].sm);
    int type = nvml::kRemoteSwitch;
    if (nvml.nvlink_remote_type && nvml.nvlink_remote_type(device_, link, &type) != kSuccess) {
      type = nvml::kRemoteSwitch;
    }
    const auto peer = std::find_if(found_.gpus.begin(), found_.gpus.end(),
                                   [&](const Gpu& gpu) { return gpu.bus_id == bus_id; });
    if (peer != found_.gpus.end()) {
      found.peer = static_cast<int>(peer - found_.gpus.begin());
    } else if (type == nvml::kRemoteIbmNpu) {
      found.end = LinkEnd::cpu;  // which one, /sys knows
    } else if (type == nvml::kRemoteSwitch) {
      found.end = LinkEnd::nvswitch;
    }
    links_.push_back(std::move(found));
  }

  /// Grace's own link to its GPU.
  void add_c2c() {
    GpuLink c2c{LinkKind::c2c, gpu_, LinkEnd::cpu, -1, "", 0, 0};
    const unsigned count = std::min(field(device_, nvml::kC2cCount).value_or(0), 64u);
    for (unsigned link = 0; link < count; ++link) {
      if (field(device_, nvml::kC2cStatus, link).value_or(0) != 1) continue;
      ++c2c.count;
      c2c.gb_per_s_each = field(device_, nvml::kC2cMbPerS, link).value_or(0) / 1000.0;
    }
    if (c2c.count > 0) links_.push_back(c2c);
  }

  const FoundGpus& found_;
  const int gpu_;
  nvml::Device device_;
  std::vector<GpuLink> links_;
  std::map<std::string, size_t> at_;
};

}  // namespace

FoundGpus discover_gpus(bool links, std::vector<std::string>& notes) {
  const nvml::Library& nvml = nvml::library();
  if (!nvml.loaded) return {};
  const auto failed = [&](const std::string& what, int code) {
    notes.push_back(what + ": " + nvml.error_string(code) + " (NVML)");
  };
  if (const int code = nvml.init(nvml::kInitNoGpus)) {
    if (code != nvml::kDriverNotLoaded) failed("GPUs are left out", code);
    return {};
  }
  FoundGpus found;
  std::vector<nvml::Device> devices;
  unsigned count = 0;
  if (const int code = nvml.count(&count)) failed("GPUs are left out", code);
  for (unsigned index = 0; index < count; ++index) {
    Gpu gpu;
    PciDevice function;
    nvml::Device device = nullptr;
    if (const int code = describe(index, device, gpu, function)) {
      failed("GPU " + std::to_string(index) + " is left out", code);
    } else {
      found.gpus.push_back(std::move(gpu));
      found.functions.push_back(std::move(function));
      devices.push_back(device);
    }
  }
  for (size_t i = 0; links && i < devices.size(); ++i) {
    for (GpuLink& link : Links(found, static_cast<int>(i), devices[i]).run()) found.links.push_back(std::move(link));
  }
  nvml.shutdown();
  return found;
}

FoundGpus visible_gpus(const FoundGpus& found, std::string_view visible, std::vector<std::string>& notes) {
  FoundGpus kept;
  std::map<int, int> place;  // old to new
  for (size_t begin = 0; begin < visible.size();) {
    const size_t end = std::min(visible.find(',', begin), visible.size());
    const std::string_view item = visible.substr(begin, end - begin);
    begin = end + 1;
    if (item.substr(0, 3) == "MIG") notes.push_back("MIG instances in CUDA_VISIBLE_DEVICES are not supported");
    int index = -1;
    const bool number = std::from_chars(item.data(), item.data() + item.size(), index).ptr == item.data() + item.size();
    const auto named = std::find_if(found.gpus.begin(), found.gpus.end(), [&](const Gpu& gpu) {
      return number ? gpu.index == index : item.size() > 4 && gpu.uuid.substr(0, item.size()) == item;
    });
    if (named == found.gpus.end()) break;
    const auto old = static_cast<size_t>(named - found.gpus.begin());
    place.emplace(static_cast<int>(old), static_cast<int>(kept.gpus.size()));
    kept.gpus.push_back(*named);
    kept.functions.push_back(found.functions[old]);
  }
  for (const GpuLink& link : found.links) {
    const bool to_gpu = link.end == LinkEnd::gpu;
    if (!place.count(link.gpu) || (to_gpu && !place.count(link.peer))) continue;
    kept.links.push_back(link);
    kept.links.back().gpu = place[link.gpu];
    if (to_gpu) kept.links.back().peer = place[link.peer];
  }
  std::stable_sort(kept.links.begin(), kept.links.end(),
                   [](const GpuLink& a, const GpuLink& b) { return a.gpu < b.gpu; });
  if (kept.gpus.size() < found.gpus.size()) {
    notes.push_back("CUDA_VISIBLE_DEVICES leaves " + std::to_string(kept.gpus.size()) + " of " +
                    std::to_string(found.gpus.size()) + " GPUs");
  }
  return kept;
}

}  // namespace mds::topology
