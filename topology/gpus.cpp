#include "topology/gpus.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <charconv>

#include "topology/sysfs.hpp"

namespace mds::topology {
namespace {

// The part of NVML's stable C interface that is used here, declared after its public documentation
// (https://docs.nvidia.com/deploy/nvml-api).
using NvmlDevice = struct NvmlDeviceHandle*;
struct NvmlPciInfo {  // nvmlPciInfo_t
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};
struct NvmlMemory {  // nvmlMemory_t
  unsigned long long total, free, used;
};
constexpr int kSuccess = 0;
constexpr int kDriverNotLoaded = 9;
constexpr unsigned kInitNoGpus = 1;    // NVML_INIT_FLAG_NO_GPUS: a machine whose GPUs are all gone is no error here

struct Nvml {
  int (*init)(unsigned flags) = nullptr;
  int (*shutdown)() = nullptr;
  const char* (*error_string)(int) = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*handle)(unsigned, NvmlDevice*) = nullptr;
  int (*uuid)(NvmlDevice, char*, unsigned) = nullptr;
  int (*name)(NvmlDevice, char*, unsigned) = nullptr;
  int (*pci)(NvmlDevice, NvmlPciInfo*) = nullptr;
  int (*memory)(NvmlDevice, NvmlMemory*) = nullptr;
  bool loaded = false;

  Nvml() {
    // Never closed: the driver's library starts no threads, but loading it again would cost as much again.
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    loaded = bind(library, "nvmlInitWithFlags", init) && bind(library, "nvmlShutdown", shutdown) &&
             bind(library, "nvmlErrorString", error_string) && bind(library, "nvmlDeviceGetCount_v2", count) &&
             bind(library, "nvmlDeviceGetHandleByIndex_v2", handle) && bind(library, "nvmlDeviceGetUUID", uuid) &&
             bind(library, "nvmlDeviceGetName", name) && bind(library, "nvmlDeviceGetPciInfo_v3", pci) &&
             bind(library, "nvmlDeviceGetMemoryInfo", memory);
  }

 private:
  template <typename Function>
  static bool bind(void* library, const char* symbol, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, symbol));
    return function != nullptr;
  }
};

const Nvml& nvml() {
  static const Nvml instance;
  return instance;
}

/// One GPU; an NVML code where it cannot be asked (fallen off the bus, no permission).
int describe(unsigned index, Gpu& gpu) {
  NvmlDevice device = nullptr;
  char text[96] = {};  // NVML_DEVICE_NAME_V2_BUFFER_SIZE; a UUID needs 80 at most
  NvmlPciInfo pci{};
  NvmlMemory memory{};
  gpu.index = static_cast<int>(index);
  if (const int code = nvml().handle(index, &device)) return code;
  if (const int code = nvml().uuid(device, text, sizeof text)) return code;
  gpu.uuid = text;
  if (const int code = nvml().name(device, text, sizeof text)) return code;
  gpu.name = text;
  if (const int code = nvml().pci(device, &pci)) return code;
  gpu.bus_id = sysfs::kernel_bus_id(pci.bus_id);
  gpu.numa = sysfs::pci_place("/sys/bus/pci/devices/" + gpu.bus_id).numa;
  // Where memory is the processor's own (GB10), NVML has no size of its own to tell: leave it unknown.
  if (nvml().memory(device, &memory) == kSuccess) gpu.memory_bytes = memory.total;
  return kSuccess;
}

}  // namespace

std::vector<Gpu> discover_gpus(std::vector<std::string>& notes) {
  if (!nvml().loaded) return {};
  const auto failed = [&](const std::string& what, int code) {
    notes.push_back(what + ": " + nvml().error_string(code) + " (NVML)");
  };
  if (const int code = nvml().init(kInitNoGpus)) {
    if (code != kDriverNotLoaded) failed("GPUs are left out", code);
    return {};
  }
  std::vector<Gpu> gpus;
  unsigned count = 0;
  if (const int code = nvml().count(&count)) failed("GPUs are left out", code);
  for (unsigned index = 0; index < count; ++index) {
    Gpu gpu;
    if (const int code = describe(index, gpu)) {
      failed("GPU " + std::to_string(index) + " is left out", code);
    } else {
      gpus.push_back(std::move(gpu));
    }
  }
  nvml().shutdown();
  return gpus;
}

std::vector<Gpu> visible_gpus(const std::vector<Gpu>& gpus, std::string_view visible, std::vector<std::string>& notes) {
  std::vector<Gpu> kept;
  for (size_t begin = 0; begin < visible.size();) {
    const size_t end = std::min(visible.find(',', begin), visible.size());
    const std::string_view item = visible.substr(begin, end - begin);
    begin = end + 1;
    if (item.substr(0, 3) == "MIG") notes.push_back("MIG instances in CUDA_VISIBLE_DEVICES are not supported");
    int index = -1;
    const bool number = std::from_chars(item.data(), item.data() + item.size(), index).ptr == item.data() + item.size();
    const auto found = std::find_if(gpus.begin(), gpus.end(), [&](const Gpu& gpu) {
      return number ? gpu.index == index : item.size() > 4 && gpu.uuid.substr(0, item.size()) == item;
    });
    if (found == gpus.end()) break;
    kept.push_back(*found);
  }
  if (kept.size() < gpus.size()) {
    notes.push_back("CUDA_VISIBLE_DEVICES leaves " + std::to_string(kept.size()) + " of " +
                    std::to_string(gpus.size()) + " GPUs");
  }
  return kept;
}

}  // namespace mds::topology
