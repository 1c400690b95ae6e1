// A stand-in for libnvidia-ml.so.1 with three GPUs. FAKE_NVML=no_driver|broken|lost_gpu makes it fail,
// FAKE_NVML=switch puts an NVSwitch without an address between the GPUs, as virtual machines see it, and makes them
// part of an NVL72. Otherwise GPU 0 and 1 have four NVLinks to each other, GPU 2 has two to GPU 0 and one down.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

bool mode(const char* name) {
  const char* set = std::getenv("FAKE_NVML");
  return set && std::string(set) == name;
}

int initialised = 0;

unsigned index_of(void* device) { return static_cast<unsigned>(reinterpret_cast<size_t>(device)) - 1; }

constexpr int kInvalidArgument = 2, kNotSupported = 3;

struct PciInfo {
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};

struct FieldValue {
  unsigned field, scope;
  long long timestamp, latency_us;
  unsigned value_type;
  int result;
  union {
    double d;
    unsigned u;
  } value;
};

struct FabricInfo {
  unsigned version;
  unsigned char uuid[16];
  int status;
  unsigned clique;
  unsigned char state;
  unsigned health;
};

/// The GPU at the other end of a link; -1 down, 9 the NVSwitch, -2 no such link.
int peer(unsigned gpu, unsigned link) {
  if (mode("switch")) return link < 18 ? 9 : -2;
  constexpr int kPeers[3][6] = {{1, 1, 1, 1, 2, 2}, {0, 0, 0, 0, -1, -1}, {0, 0, -1, -2, -2, -2}};
  return link < 6 ? kPeers[gpu][link] : -2;
}

}  // namespace

extern "C" {

int nvmlInitWithFlags(unsigned) {
  if (mode("no_driver")) return 9;
  if (mode("broken")) return 18;
  ++initialised;
  return 0;
}
int nvmlShutdown() { return --initialised < 0 ? 1 : 0; }
const char* nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "Driver/library version mismatch"; }
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 3;
  return initialised > 0 ? 0 : 1;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  if (mode("lost_gpu") && index == 1) return 15;
  *device = reinterpret_cast<void*>(size_t{index} + 1);
  return 0;
}
int nvmlDeviceGetUUID(void* device, char* text, unsigned size) {
  std::snprintf(text, size, "GPU-%08x-0000-0000-0000-000000000000", index_of(device) + 0xa0);
  return 0;
}
int nvmlDeviceGetName(void*, char* text, unsigned size) {
  std::snprintf(text, size, "NVIDIA Imaginary 1");
  return 0;
}
int nvmlDeviceGetPciInfo_v3(void* device, PciInfo* info) {
  std::snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", 0xfa + index_of(device));
  info->pci_device_id = 0x233510de;
  info->pci_subsystem_id = 0x18bf10de;
  return 0;
}
int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* memory) {
  if (index_of(device) == 2) return kNotSupported;
  memory[0] = 80ull << 30;
  memory[1] = memory[2] = 0;
  return 0;
}
int nvmlDeviceGetCudaComputeCapability(void*, int* major, int* minor) {
  *major = 9;
  *minor = 0;
  return 0;
}
int nvmlDeviceGetCurrPcieLinkGeneration(void* device, unsigned* generation) {
  *generation = index_of(device) == 0 ? 1 : 5;
  return 0;
}
int nvmlDeviceGetCurrPcieLinkWidth(void*, unsigned* width) {
  *width = 8;
  return 0;
}
int nvmlDeviceGetMaxPcieLinkGeneration(void*, unsigned* generation) {
  *generation = 5;
  return 0;
}
int nvmlDeviceGetMaxPcieLinkWidth(void*, unsigned* width) {
  *width = 16;
  return 0;
}
int nvmlDeviceGetNvLinkState(void* device, unsigned link, int* active) {
  const int end = peer(index_of(device), link);
  *active = end >= 0;
  return end == -2 ? kInvalidArgument : 0;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void* device, unsigned link, PciInfo* info) {
  const int end = peer(index_of(device), link);
  if (end == 9) std::snprintf(info->bus_id, sizeof info->bus_id, "FFFFFFFF:FF:FF.0");
  return end == 9 ? 0 : nvmlDeviceGetPciInfo_v3(reinterpret_cast<void*>(static_cast<size_t>(end) + 1), info);
}
int nvmlDeviceGetNvLinkRemoteDeviceType(void* device, unsigned link, int* type) {
  *type = peer(index_of(device), link) == 9 ? 2 : 0;
  return 0;
}
int nvmlDeviceGetGpuFabricInfoV(void*, FabricInfo* info) {
  if (info->version != (36u | 2u << 24)) return kInvalidArgument;
  info->state = 3;
  info->status = 0;
  info->clique = 7;
  for (unsigned char i = 0; i < 16; ++i) info->uuid[i] = mode("switch") ? i : 0;
  return 0;
}
int nvmlDeviceGetFieldValues(void* device, int count, FieldValue* values) {
  for (int i = 0; i < count; ++i) {
    FieldValue& field = values[i];
    field.result = 0;
    const bool grace = mode("switch") && index_of(device) == 0;  // GPU 0 alone has two C2C links, one of them up
    if (field.field == 170) {
      field.value.u = grace ? 2 : 0;
    } else if (field.field == 171) {
      field.value.u = field.scope == 1;
    } else if (field.field == 172) {
      field.value.u = 372000;
    } else {
      field.result = kNotSupported;
    }
  }
  return 0;
}
}
