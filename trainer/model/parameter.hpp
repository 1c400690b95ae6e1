// Parameter: one physical tensor of one rank and the slices of the layout-free, logical tensors that it holds.
//
// A fused weight (QKV, gate+up) is one physical tensor stacked from several logical ones along dimension 0, so that
// one matrix product serves them all, while checkpoints, the optimizer's report and Hugging Face import and export
// see the logical tensors only. Logical names and shapes do not depend on the layout (TP, PP, DP, ZeRO).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace mds::trainer {

/// scaled_normal: std / sqrt(2 x num_layers), for what is added to the residual stream.
enum class Init { normal, scaled_normal, zeros, ones };

/// Rows [local_begin, local_begin + local_rows) of the physical tensor hold, of the logical tensor `name`, the block
/// that starts at `global_offset` and has the local extent in every dimension.
struct LogicalSlice {
  std::string name;  ///< e.g. "layers.3.attention.query.weight"
  std::vector<int64_t> global_shape;
  std::vector<int64_t> global_offset;  ///< per dimension
  int64_t local_begin = 0;             ///< first row in the physical tensor
  int64_t local_rows = 0;
  Init init = Init::normal;
};

struct Parameter {
  std::string name;                  ///< physical name, e.g. "layers.3.attention.qkv.weight"
  std::vector<int64_t> shape;        ///< local (physical) shape
  std::vector<LogicalSlice> slices;  ///< cover all rows in order; at least one
  bool weight_decay = true;          ///< false for biases and norms
  bool tensor_replicated = false;    ///< every tensor-parallel rank holds the same value (norms, row-parallel biases)
  bool sequence_partial = false;     ///< its gradient is a partial sum over tensor ranks when sequence_parallel is on
  bool shared_embedding = false;     ///< tied word embedding, also held by the other end of the pipeline
  int64_t padding_rows = 0;          ///< rows of zeros kept free behind the last one, in no slice; see with_padding()

  // Bound by the engine before the first use (views into its flat buffers).
  at::Tensor value;  ///< compute dtype
  at::Tensor grad;   ///< accumulation dtype (fp32, or float64 in tests); layers add into it
};

/// `view`, the parameter's value or grad, and the rows of zeros behind it: what products of whole tiles work on.
inline at::Tensor with_padding(const Parameter& parameter, const at::Tensor& view) {
  if (parameter.padding_rows == 0) return view;
  return view.as_strided({view.size(0) + parameter.padding_rows, view.size(1)}, view.strides());
}

}  // namespace mds::trainer
