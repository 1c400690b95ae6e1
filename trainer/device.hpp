// The seam to CUDA. Everything that needs CUDA's headers or libraries lives in the plug-in libmds_cuda.so, which is
// loaded only when the job asks for GPUs: on CPUs neither a driver nor 4 GB of libraries are needed or looked for.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include <c10/core/Device.h>

#include "topology/result.hpp"
#include "trainer/comm/communicator.hpp"

namespace mds::trainer {

namespace kernels {
struct KernelTable;
}

using NcclId = std::array<char, 128>;

struct DeviceMemory {
  uint64_t allocated_bytes = 0;       ///< by tensors, now
  uint64_t allocated_bytes_max = 0;   ///< by tensors, since the start
  uint64_t total_bytes = 0;           ///< of the device
};

/// What the plug-in offers. Functions throw c10::Error; all but `unique_id` need `select_device` first. The plug-in is
/// built with the program (same compiler, same LibTorch), so C++ types may cross.
struct CudaPlugin {
  uint32_t version = 0;               ///< kCudaPluginVersion of the plug-in's build
  void (*select_device)(int index) = nullptr;
  void (*unique_id)(NcclId& id) = nullptr;
  /// Collective over the group. The caller owns the result.
  Communicator* (*make_communicator)(const char* name, int rank, int size, const NcclId& id) = nullptr;
  void (*synchronize)() = nullptr;
  DeviceMemory (*memory)() = nullptr;
  /// Replaces the entries for which the plug-in has fused kernels. Before the first model is made.
  void (*register_kernels)(kernels::KernelTable& table) = nullptr;
};

inline constexpr uint32_t kCudaPluginVersion = 1;
inline constexpr char kCudaPluginSymbol[] = "mds_cuda_plugin";   ///< extern "C" const CudaPlugin* mds_cuda_plugin()

/// Where this rank computes.
struct ComputeDevice {
  c10::Device device{c10::kCPU};
  const CudaPlugin* cuda = nullptr;   ///< null on CPUs
};

/// On GPUs: loads the plug-in (beside the program or in ../lib), selects cuda:`local_rank`, registers its kernels.
/// Must come before anything else asks LibTorch for CUDA. Errors: infeasible (no plug-in, no driver, no such GPU).
Result<ComputeDevice> open_device(bool cuda, int local_rank, bool deterministic);

}  // namespace mds::trainer
