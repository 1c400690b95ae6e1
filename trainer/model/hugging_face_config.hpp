// The shape of a model as a Hugging Face folder's config.json tells it: model types gpt2, llama and bloom. No LibTorch,
// so that the launcher can plan a job that starts from such a folder.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "topology/result.hpp"
#include "trainer/config.hpp"

namespace mds::trainer {

/// Reads <folder>/config.json; from_pretrained is set to the folder. Errors: bad_input naming file and key, also for
/// variants whose mathematics is not ours (RoPE scaling, other activations, biases in LLaMA).
Result<ModelConfig> read_hugging_face_config(const std::string& folder);

/// A config.json that `transformers` loads.
nlohmann::json hugging_face_config(const ModelConfig& model);

}  // namespace mds::trainer
