#include "topology/read/nvml.hpp"

#include <dlfcn.h>

namespace mds::topology::nvml {
namespace {

template <typename Function>
bool bind(void* library, const char* symbol, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, symbol));
  return function != nullptr;
}

}  // namespace

Library::Library() {
  void* const nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!nvml) return;
  loaded = bind(nvml, "nvmlInitWithFlags", init) && bind(nvml, "nvmlShutdown", shutdown) &&
           bind(nvml, "nvmlErrorString", error_string) && bind(nvml, "nvmlDeviceGetCount_v2", count) &&
           bind(nvml, "nvmlDeviceGetHandleByIndex_v2", handle) && bind(nvml, "nvmlDeviceGetUUID", uuid) &&
           bind(nvml, "nvmlDeviceGetName", name) && bind(nvml, "nvmlDeviceGetPciInfo_v3", pci) &&
           bind(nvml, "nvmlDeviceGetMemoryInfo", memory);
  bind(nvml, "nvmlDeviceGetCudaComputeCapability", compute_capability);
  bind(nvml, "nvmlDeviceGetCurrPcieLinkGeneration", pcie_generation);
  bind(nvml, "nvmlDeviceGetCurrPcieLinkWidth", pcie_width);
  bind(nvml, "nvmlDeviceGetMaxPcieLinkGeneration", pcie_generation_max);
  bind(nvml, "nvmlDeviceGetMaxPcieLinkWidth", pcie_width_max);
  bind(nvml, "nvmlDeviceGetNvLinkState", nvlink_state);
  bind(nvml, "nvmlDeviceGetNvLinkRemotePciInfo_v2", nvlink_remote);
  bind(nvml, "nvmlDeviceGetNvLinkRemoteDeviceType", nvlink_remote_type);
  bind(nvml, "nvmlDeviceGetGpuFabricInfoV", fabric);
  bind(nvml, "nvmlDeviceGetFieldValues", fields);
}

const Library& library() {
  static const Library instance;
  return instance;
}

}  // namespace mds::topology::nvml
