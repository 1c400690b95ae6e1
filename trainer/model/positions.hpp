// How attention learns where tokens are: rotary angles (LLaMA) or linear biases (BLOOM), made once per sequence length.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "trainer/config.hpp"
#include "trainer/model/parameter_set.hpp"

namespace mds::trainer {

/// Tables of one sequence length; tensors that the architecture does not use are undefined.
struct PositionTables {
  at::Tensor cos, sin;  ///< [seq, head_dim / 2] in the statistics dtype (Su et al., "RoFormer")
  at::Tensor alibi;     ///< [local heads, seq, seq]: slope(head) * (key - query) (Press et al., "ALiBi")
};

/// Slopes of ALiBi for any number of heads: 2^(-8 i / n) for the next lower power of two n, and for the heads beyond it
/// every other slope of 2 n heads.
std::vector<double> alibi_slopes(int64_t heads);

/// `heads`: the query heads of this tensor rank.
PositionTables make_position_tables(const ModelConfig& model, int64_t seq, Range heads, at::ScalarType compute_dtype,
                                    at::Device device);

}  // namespace mds::trainer
