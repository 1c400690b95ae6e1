#include "trainer/device.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include <ATen/Context.h>
#include <c10/util/Exception.h>

#include "trainer/kernels/ops.hpp"

namespace mds::trainer {
namespace {

Result<const CudaPlugin*> load_plugin() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  const std::vector<std::filesystem::path> candidates = {program / "libmds_cuda.so", program / "../lib/libmds_cuda.so",
                                                         program / "../lib/mds/libmds_cuda.so"};
  for (const auto& path : candidates) {
    if (!std::filesystem::exists(path, error)) continue;
    // Global: LibTorch's CUDA libraries register themselves with the LibTorch that this program already has.
    void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (!library) return infeasible(std::string("the CUDA plug-in cannot be loaded: ") + ::dlerror());
    const auto factory = reinterpret_cast<const CudaPlugin* (*)()>(::dlsym(library, kCudaPluginSymbol));
    const CudaPlugin* plugin = factory ? factory() : nullptr;
    if (!plugin || plugin->version != kCudaPluginVersion) {
      return infeasible(path.string() + " belongs to another build of mdstrain; build and install them together");
    }
    return plugin;
  }
  return infeasible("the job asks for GPUs, but libmds_cuda.so is neither in " + program.string() + " nor in " +
                    (program / "../lib").lexically_normal().string() +
                    "; build with -DMDS_CUDA=ON (needs nvcc and NCCL), or set job.devices = \"cpu\"");
}

}  // namespace

Result<ComputeDevice> open_device(bool cuda, int local_rank, bool deterministic) {
  if (!cuda) return ComputeDevice{};
  // cuBLAS sums in a fixed order only with a workspace of its own for each stream; it reads this when it starts.
  if (deterministic) ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  auto plugin = load_plugin();
  if (!plugin) return plugin.error();
  try {
    (*plugin)->select_device(local_rank);
    // Strict: under warn_only the backward passes of fused attention stay as they are, with sums in any order.
    if (deterministic) at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
    (*plugin)->register_kernels(kernels::table(c10::kCUDA));
  } catch (const c10::Error& error) {
    return infeasible("GPU " + std::to_string(local_rank) + " of this node cannot be used: " +
                      error.what_without_backtrace());
  }
  return ComputeDevice{c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(local_rank)), *plugin};
}

}  // namespace mds::trainer
