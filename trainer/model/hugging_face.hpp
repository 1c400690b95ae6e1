// Weights from and to Hugging Face folders: where each of our logical tensors lies in the files of `transformers`.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "topology/result.hpp"
#include "trainer/config.hpp"
#include "trainer/model/parameter.hpp"
#include "trainer/model/parameter_set.hpp"

namespace mds::trainer {

/// A logical tensor's place: a whole Hugging Face tensor, or one third of a fused query-key-value tensor.
struct HuggingFacePlace {
  enum class Arrangement {
    plain,         ///< as ours
    transposed,    ///< [in, out] (GPT-2's Conv1D)
    side_by_side,  ///< [in, 3 x out] or [3 x out]: query, key, value (GPT-2's c_attn)
    interleaved,   ///< [heads x 3 x head_dim, ...]: query, key, value of each head in turn (BLOOM)
  };
  std::string name;
  std::vector<int64_t> shape;  ///< of the Hugging Face tensor
  Arrangement arrangement = Arrangement::plain;
  int third = 0;  ///< 0 query, 1 key, 2 value
};

/// Every logical tensor of a model once, in forward order.
std::vector<LogicalTensor> logical_tensors(const ModelConfig& model);

HuggingFacePlace hugging_face_place(const ModelConfig& model, const LogicalTensor& tensor);

/// The part of a Hugging Face tensor that is the logical one: a view, [rows, columns] or [rows], or for BLOOM's fused
/// tensors [heads, head_dim, ...], which reshapes to it.
at::Tensor hugging_face_view(const at::Tensor& whole, const HuggingFacePlace& place, int64_t heads);

/// Fills the bound values of this rank's parameters from model.safetensors (or its shards) in `folder`, converting the
/// dtype. Errors: bad_input (tensor missing or of another shape, named), corrupt.
Status load_hugging_face(const std::string& folder, const ModelConfig& model,
                         const std::vector<Parameter*>& parameters);

/// Gives a whole logical tensor, on the CPU.
using ReadLogical = std::function<Result<at::Tensor>(const LogicalTensor& tensor)>;

/// Writes config.json and model.safetensors into `folder` (made if missing), one tensor at a time, in `dtype`. A folder
/// that fails to be written holds no config.json. Errors: those of `read`, unavailable (disk full).
Status save_hugging_face(const std::string& folder, const ModelConfig& model, at::ScalarType dtype,
                         const ReadLogical& read);

}  // namespace mds::trainer
