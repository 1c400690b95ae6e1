// FlatBuffers: all parameters of one rank in one buffer, all gradients in another of the same layout.
//
//   | parameter 0 |pad| parameter 1 |pad| ... |padding|      each parameter starts at a multiple of kAlignment
//                                                            elements, behind the padding_rows of the one before
//   |    shard 0     |     shard 1     |     shard 2  |      shards of equal size, one per data-parallel rank
//
// Gathers, reductions and the optimizer work on the buffers; layers see views. A shard boundary may cut a parameter
// anywhere (at a multiple of kAlignment), which is why checkpoints speak of ranges of logical slices. Padding is zero
// and stays so: its gradient is zero.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/model/parameter.hpp"

namespace mds::trainer {

struct FlatOptions {
  at::ScalarType compute_dtype = at::kFloat;
  c10::Device device{c10::kCPU};
  int shards = 1;                         ///< data-parallel ranks
};

/// Elements [begin, end) of the flat buffers.
struct FlatRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  FlatRange intersect(const FlatRange& other) const;   ///< may be empty: end == begin
};

struct PlacedParameter {
  Parameter* parameter = nullptr;
  FlatRange range;
};

class FlatBuffers {
 public:
  static constexpr int64_t kAlignment = 64;   ///< elements: whole cache lines also in bf16

  /// Allocates both buffers and binds every parameter's value and grad to views. Parameters outlive this.
  FlatBuffers(const std::vector<Parameter*>& parameters, const FlatOptions& options);

  const std::vector<PlacedParameter>& parameters() const { return placed_; }
  int64_t size() const { return size_; }                   ///< elements, padding included
  FlatRange whole() const { return {0, size_}; }
  FlatRange shard(int index) const;

  at::Tensor& values() { return values_; }                 ///< 1-D, compute dtype
  at::Tensor& grads() { return grads_; }                   ///< 1-D, master dtype
  static at::Tensor slice(const at::Tensor& flat, const FlatRange& range);

  /// fp32, or float64 where that is the compute dtype (tests).
  at::ScalarType master_dtype() const { return grads_.scalar_type(); }

  /// Binds the parameters' values to `flat` (of size(), any dtype) instead of values().
  void bind_values(const at::Tensor& flat);

 private:
  std::vector<PlacedParameter> placed_;
  int64_t size_ = 0;
  int shards_ = 1;
  at::Tensor values_, grads_;
};

}  // namespace mds::trainer
