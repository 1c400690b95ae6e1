// A stand-in for libnvidia-ml.so.1 with three GPUs. FAKE_NVML=no_driver|broken|lost_gpu makes it fail.
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

struct PciInfo {
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};

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
  return 0;
}
int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* memory) {
  if (index_of(device) == 2) return 3;  // not supported
  memory[0] = 80ull << 30;
  memory[1] = memory[2] = 0;
  return 0;
}
}
