// The part of NVML's stable C interface that is used here, declared after its public documentation
// (https://docs.nvidia.com/deploy/nvml-api) and bound at run time: nothing of ours links a driver library.
#pragma once

namespace mds::topology::nvml {

using Device = struct DeviceHandle*;

constexpr int kSuccess = 0;
constexpr int kInvalidArgument = 2;
constexpr int kDriverNotLoaded = 9;
constexpr unsigned kInitNoGpus = 1;  ///< NVML_INIT_FLAG_NO_GPUS: a machine whose GPUs are all gone is no error here

struct PciInfo {  // nvmlPciInfo_t
  char bus_id_legacy[16];
  unsigned domain, bus, device;
  unsigned pci_device_id;     ///< device << 16 | vendor
  unsigned pci_subsystem_id;
  char bus_id[32];
};

struct Memory {  // nvmlMemory_t
  unsigned long long total, free, used;
};

struct FieldValue {  // nvmlFieldValue_t
  unsigned field, scope;
  long long timestamp, latency_us;
  unsigned value_type;
  int result;
  union {
    double d;
    unsigned u;
    unsigned long long ull;
  } value;
};
enum Field : unsigned {
  kNvlinkCount = 91,           ///< NVML_FI_DEV_NVLINK_LINK_COUNT
  kC2cCount = 170,             ///< NVML_FI_DEV_C2C_LINK_COUNT
  kC2cStatus = 171,            ///< scope: the link; 1 active
  kC2cMbPerS = 172,            ///< NVML_FI_DEV_C2C_LINK_GET_MAX_BW
};

enum RemoteType { kRemoteGpu = 0, kRemoteIbmNpu = 1, kRemoteSwitch = 2 };  // nvmlIntNvLinkDeviceType_t

struct FabricInfo {  // nvmlGpuFabricInfo_v2_t
  unsigned version;
  unsigned char cluster_uuid[16];
  int status;
  unsigned clique;
  unsigned char state;
  unsigned health_mask;
};
constexpr unsigned kFabricInfoVersion = sizeof(FabricInfo) | 2u << 24;
constexpr unsigned char kFabricCompleted = 3;

struct Library {
  Library();
  bool loaded = false;         ///< the library is there, and all functions but the optional ones
  int (*init)(unsigned flags) = nullptr;
  int (*shutdown)() = nullptr;
  const char* (*error_string)(int) = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*handle)(unsigned, Device*) = nullptr;
  int (*uuid)(Device, char*, unsigned) = nullptr;
  int (*name)(Device, char*, unsigned) = nullptr;
  int (*pci)(Device, PciInfo*) = nullptr;
  int (*memory)(Device, Memory*) = nullptr;
  // Null where the driver is older than they are:
  int (*compute_capability)(Device, int* major, int* minor) = nullptr;
  int (*pcie_generation)(Device, unsigned*) = nullptr;
  int (*pcie_width)(Device, unsigned*) = nullptr;
  int (*pcie_generation_max)(Device, unsigned*) = nullptr;
  int (*pcie_width_max)(Device, unsigned*) = nullptr;
  int (*nvlink_state)(Device, unsigned link, int* active) = nullptr;
  int (*nvlink_remote)(Device, unsigned link, PciInfo*) = nullptr;
  int (*nvlink_remote_type)(Device, unsigned link, int* type) = nullptr;
  int (*fabric)(Device, FabricInfo*) = nullptr;
  int (*fields)(Device, int count, FieldValue*) = nullptr;
};

/// Loads the library in the first call (its time is the driver's, not discovery's) and never unloads it: it starts no
/// threads, and loading it again would cost as much again. Thread-safe.
const Library& library();

}  // namespace mds::topology::nvml
