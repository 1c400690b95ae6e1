// LibTorch's scalar types and those of safetensors files.
#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/checkpoint/safetensors.hpp"

namespace mds::trainer {

at::ScalarType scalar_type(TensorType type);
/// Errors: internal, for a type that checkpoints do not hold.
Result<TensorType> tensor_type(at::ScalarType type);

/// A new CPU tensor with the entry's type and shape, holding a copy of `bytes` (SafetensorsFile::bytes).
at::Tensor copy_of(const SafetensorsEntry& entry, std::span<const std::byte> bytes);

}  // namespace mds::trainer
