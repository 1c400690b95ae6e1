#include "trainer/model/positions.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "trainer/kernels/attention.hpp"
#include "trainer/kernels/ops.hpp"

namespace mds::trainer {
namespace {

void make_rotary(const ModelConfig& model, int64_t seq, const at::TensorOptions& result, PositionTables& tables) {
  const auto wide = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor exponent = at::arange(0, model.head_dim, 2, wide).div_(static_cast<double>(model.head_dim));
  const at::Tensor frequency = at::pow(model.rope_theta, exponent.neg_());
  const at::Tensor angle = at::outer(at::arange(seq, wide), frequency);
  tables.cos = angle.cos().to(result);
  tables.sin = angle.sin().to(result);
}

// The softmax does not notice a constant per query, so key - query serves as well as BLOOM's key position, and is exact
// in bf16 near the diagonal, where it matters.
at::Tensor make_alibi(const ModelConfig& model, int64_t seq, Range heads, const at::TensorOptions& result) {
  const std::vector<double> slopes = alibi_slopes(model.num_attention_heads);
  const auto wide = result.dtype(kernels::statistics_dtype(c10::typeMetaToScalarType(result.dtype())));
  const at::Tensor position = at::arange(seq, wide);
  const at::Tensor distance = position.unsqueeze(0) - position.unsqueeze(1);
  const int64_t aligned = (seq + 7) / 8 * 8;  // fused attention on GPUs wants rows at 16-byte boundaries
  at::Tensor alibi = at::empty({heads.size(), seq, aligned}, result).narrow(2, 0, seq);
  for (int64_t i = 0; i < heads.size(); ++i) alibi[i].copy_(distance * slopes[heads.begin + i]);
  return alibi;
}

}  // namespace

std::vector<double> alibi_slopes(int64_t heads) {
  const auto lower = static_cast<int64_t>(std::pow(2, std::floor(std::log2(static_cast<double>(heads)))));
  std::vector<double> slopes;
  for (int64_t i = 1; i <= lower; ++i) slopes.push_back(std::exp2(-8.0 * i / lower));
  for (int64_t i = 1; static_cast<int64_t>(slopes.size()) < heads; i += 2) {
    slopes.push_back(std::exp2(-4.0 * i / lower));
  }
  return slopes;
}

PositionTables make_position_tables(const ModelConfig& model, int64_t seq, Range heads, at::ScalarType compute_dtype,
                                    at::Device device) {
  PositionTables tables;
  const auto options = at::TensorOptions().device(device);
  if (model.architecture == Architecture::llama) {
    make_rotary(model, seq, options.dtype(kernels::statistics_dtype(compute_dtype)), tables);
  } else if (model.architecture == Architecture::bloom) {
    const at::ScalarType dtype = kernels::attention_bias_dtype(compute_dtype, device.type());
    tables.alibi = make_alibi(model, seq, heads, options.dtype(dtype));
  }
  return tables;
}

}  // namespace mds::trainer
