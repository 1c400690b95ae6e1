// libmds_cuda.so: everything of the trainer that needs CUDA, behind one table of functions (trainer/device.hpp).
#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include "trainer/cuda/nccl.hpp"
#include "trainer/cuda/ops_cuda.hpp"
#include "trainer/device.hpp"

namespace mds::trainer::cuda {
namespace {

void select_device(int index) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  TORCH_CHECK(error == cudaSuccess, "the CUDA driver reports: ", cudaGetErrorString(error));
  TORCH_CHECK(index < count, "this process sees ", count, " GPU(s) (CUDA_VISIBLE_DEVICES)");
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(index));
  // Initialises LibTorch's CUDA part, in PyTorch 2.5 and in 2.11.
  (void)at::globalContext().defaultGenerator(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index)));
}

Communicator* make_communicator(const char* name, int rank, int size, const NcclId& id) {
  return make_nccl_communicator(name, rank, size, id).release();
}

void synchronize() { c10::cuda::device_synchronize(); }

DeviceMemory memory() {
  size_t free_bytes = 0, total_bytes = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
  const auto& allocated = stats.allocated_bytes[0];   // the first is the sum of all pools
  return {static_cast<uint64_t>(allocated.current), static_cast<uint64_t>(allocated.peak), total_bytes};
}

constexpr CudaPlugin kPlugin = {kCudaPluginVersion, select_device, make_unique_id,  make_communicator,
                                synchronize,        memory,        register_kernels};

}  // namespace
}  // namespace mds::trainer::cuda

extern "C" __attribute__((visibility("default"))) const mds::trainer::CudaPlugin* mds_cuda_plugin() {
  return &mds::trainer::cuda::kPlugin;
}
