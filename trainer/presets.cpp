// Published model shapes and the exact size of each architecture.
#include <algorithm>
#include <array>
#include <string_view>

#include "trainer/config.hpp"

namespace mds::trainer {
namespace {

struct Shape {
  std::string_view name;
  int64_t hidden, layers, heads, key_value_heads, intermediate;
};

constexpr int64_t kGpt2Vocabulary = 50257;
constexpr int64_t kBloomVocabulary = 250880;
constexpr int64_t kLlama2Vocabulary = 32000;
constexpr int64_t kLlama3Vocabulary = 128256;

// Brown et al. 2020, table 2.1. Two rows of that table cannot be built as printed: 1.3B has 24 heads of 128 in a width
// of 2048 (here 16), and 13B has a width of 5140 with 40 heads of 128 (here 5120).
constexpr std::array kGpt3{
    Shape{"gpt3-125m", 768, 12, 12, 12, 3072},   Shape{"gpt3-350m", 1024, 24, 16, 16, 4096},
    Shape{"gpt3-760m", 1536, 24, 16, 16, 6144},  Shape{"gpt3-1.3b", 2048, 24, 16, 16, 8192},
    Shape{"gpt3-2.7b", 2560, 32, 32, 32, 10240}, Shape{"gpt3-6.7b", 4096, 32, 32, 32, 16384},
    Shape{"gpt3-13b", 5120, 40, 40, 40, 20480},  Shape{"gpt3-175b", 12288, 96, 96, 96, 49152},
};

// Llama 3 8B and 70B, Llama 3.1 405B, Llama 3.2 1B and 3B. Meta ties the embeddings of 1B and 3B; ours are untied, so
// that the shapes differ in depth and width alone. The context is that of the main pre-training phase.
constexpr std::array kLlama3{
    Shape{"llama-1b", 2048, 16, 32, 8, 8192},       Shape{"llama-3b", 3072, 28, 24, 8, 8192},
    Shape{"llama-8b", 4096, 32, 32, 8, 14336},      Shape{"llama-70b", 8192, 80, 64, 8, 28672},
    Shape{"llama-405b", 16384, 126, 128, 8, 53248},
};

// Touvron et al. 2023, "Llama 2".
constexpr std::array kLlama2{
    Shape{"llama2-7b", 4096, 32, 32, 32, 11008},
    Shape{"llama2-13b", 5120, 40, 40, 40, 13824},
    Shape{"llama2-70b", 8192, 80, 64, 8, 28672},
};

// Le Scao et al. 2022, table 5, and the bigscience/bloom-* model cards.
constexpr std::array kBloom{
    Shape{"bloom-560m", 1024, 24, 16, 16, 4096}, Shape{"bloom-1b1", 1536, 24, 16, 16, 6144},
    Shape{"bloom-1b7", 2048, 24, 16, 16, 8192},  Shape{"bloom-3b", 2560, 30, 32, 32, 10240},
    Shape{"bloom-7b1", 4096, 30, 32, 32, 16384}, Shape{"bloom-176b", 14336, 70, 112, 112, 57344},
};

/// What all shapes of one family share.
ModelConfig family(Architecture architecture, int64_t vocabulary, int64_t positions, double rope_theta) {
  ModelConfig model;
  model.architecture = architecture;
  model.vocab_size = vocabulary;
  model.max_position_embeddings = positions;
  model.rope_theta = rope_theta;
  model.tie_word_embeddings = architecture != Architecture::llama;
  return model;
}

std::vector<std::pair<std::string, ModelConfig>> all_presets() {
  std::vector<std::pair<std::string, ModelConfig>> presets;
  const auto add = [&](const auto& shapes, ModelConfig model) {
    for (const Shape& shape : shapes) {
      model.hidden_size = shape.hidden;
      model.num_layers = shape.layers;
      model.num_attention_heads = shape.heads;
      model.num_key_value_heads = shape.key_value_heads;
      model.head_dim = shape.hidden / shape.heads;
      model.intermediate_size = shape.intermediate;
      presets.emplace_back(shape.name, model);
    }
  };
  add(kGpt3, family(Architecture::gpt3, kGpt2Vocabulary, 2048, 10000));
  add(kLlama3, family(Architecture::llama, kLlama3Vocabulary, 8192, 500000));
  add(kLlama2, family(Architecture::llama, kLlama2Vocabulary, 4096, 10000));
  add(kBloom, family(Architecture::bloom, kBloomVocabulary, 2048, 10000));
  return presets;
}

}  // namespace

Result<ModelConfig> model_preset(const std::string& name) {
  std::string known;
  for (auto& [preset, model] : all_presets()) {
    if (preset == name) return std::move(model);
    known += (known.empty() ? "" : ", ") + preset;
  }
  return bad_input("unknown model preset \"" + name + "\"; the presets are " + known);
}

std::vector<std::string> model_preset_names() {
  std::vector<std::string> names;
  for (const auto& [preset, model] : all_presets()) names.push_back(preset);
  return names;
}

void fill_derived(ModelConfig& model) {
  constexpr int64_t kWidthMax = int64_t{1} << 40;  // what is beyond is refused by check()
  if (model.num_key_value_heads == 0) model.num_key_value_heads = model.num_attention_heads;
  if (model.head_dim == 0 && model.num_attention_heads > 0) {
    model.head_dim = model.hidden_size / model.num_attention_heads;
  }
  if (model.intermediate_size == 0 && model.architecture != Architecture::llama && model.hidden_size < kWidthMax &&
      model.hidden_size > 0) {
    model.intermediate_size = 4 * model.hidden_size;
  }
}

int64_t parameter_count(const ModelConfig& given) {
  ModelConfig model = given;
  fill_derived(model);
  const int64_t hidden = model.hidden_size;
  const int64_t query = model.num_attention_heads * model.head_dim;
  const int64_t key_value = 2 * model.num_key_value_heads * model.head_dim;
  const int64_t embedding = model.vocab_size * hidden;
  const int64_t head = model.tie_word_embeddings ? 0 : embedding;

  const int64_t attention = hidden * (query + key_value) + query * hidden;
  if (model.architecture == Architecture::llama) {
    const int64_t mlp = 3 * hidden * model.intermediate_size;
    return embedding + model.num_layers * (attention + mlp + 2 * hidden) + hidden + head;
  }
  // GPT-3 and BLOOM have biases everywhere, and norms of weight and bias.
  const int64_t attention_biases = query + key_value + hidden;
  const int64_t mlp = 2 * hidden * model.intermediate_size + model.intermediate_size + hidden;
  const int64_t norm = 2 * hidden;
  const int64_t layers = model.num_layers * (attention + attention_biases + mlp + 2 * norm);
  const bool learned_positions = model.architecture == Architecture::gpt3;
  const int64_t first = learned_positions ? model.max_position_embeddings * hidden : norm;  // BLOOM: embedding norm
  return embedding + first + layers + norm + head;
}

}  // namespace mds::trainer
