#include "trainer/checkpoint/tensor_types.hpp"

#include <ATen/ops/empty.h>

#include <cstring>

namespace mds::trainer {

at::ScalarType scalar_type(TensorType type) {
  switch (type) {
    case TensorType::f64:
      return at::kDouble;
    case TensorType::f32:
      return at::kFloat;
    case TensorType::f16:
      return at::kHalf;
    case TensorType::bf16:
      return at::kBFloat16;
    case TensorType::i64:
      return at::kLong;
    case TensorType::i32:
      return at::kInt;
    case TensorType::u8:
      return at::kByte;
  }
  return at::kByte;
}

Result<TensorType> tensor_type(at::ScalarType type) {
  for (const TensorType t : {TensorType::f64, TensorType::f32, TensorType::f16, TensorType::bf16, TensorType::i64,
                             TensorType::i32, TensorType::u8}) {
    if (scalar_type(t) == type) return t;
  }
  return internal(std::string("tensors of type ") + c10::toString(type) + " cannot be saved");
}

at::Tensor copy_of(const SafetensorsEntry& entry, std::span<const std::byte> bytes) {
  at::Tensor tensor = at::empty(entry.shape, at::TensorOptions().dtype(scalar_type(entry.type)).device(at::kCPU));
  if (!bytes.empty()) std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

}  // namespace mds::trainer
