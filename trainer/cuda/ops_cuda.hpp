// The CUDA entries of the kernel table (trainer/kernels/ops.hpp): tensors in, fused kernels underneath.
#pragma once

#include "trainer/kernels/ops.hpp"

namespace mds::trainer::cuda {

/// Replaces the entries that have a fused kernel for fp32 and bf16; other dtypes and entries keep their ATen twins.
void register_kernels(kernels::KernelTable& table);

}  // namespace mds::trainer::cuda
