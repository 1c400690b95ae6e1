#include "trainer/model/hugging_face_config.hpp"

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>

namespace mds::trainer {
namespace {

using Json = nlohmann::json;

/// Reads keys of one config.json and remembers the first problem, so that callers read straight through.
class Reader {
 public:
  Reader(const std::string& path, const Json& json) : path_(path), json_(json) {}

  /// The first of these names that is there and not null; GPT-2, BLOOM and LLaMA call the same thing differently.
  template <typename T>
  T get(std::initializer_list<const char*> names, std::optional<T> fallback = std::nullopt) {
    for (const char* name : names) {
      const auto found = json_.find(name);
      if (found == json_.end() || found->is_null()) continue;
      if (has_type<T>(*found)) return found->template get<T>();
      fail(std::string(name) + " has the wrong type");
      return T{};
    }
    if (!fallback) fail(std::string(*names.begin()) + " is missing");
    return fallback.value_or(T{});
  }

  int64_t size(std::initializer_list<const char*> names, std::optional<int64_t> fallback = std::nullopt) {
    const int64_t value = get<int64_t>(names, fallback);
    if (!problem_ && (value < 1 || value > (int64_t{1} << 31))) {
      fail(std::string(*names.begin()) + " = " + std::to_string(value) + " is out of range");
    }
    return value;
  }

  /// Requires that a key, if present, has the only value whose mathematics we implement.
  template <typename T>
  void only(const char* name, const T& value) {
    if (!json_.is_object()) return fail("is not an object");
    const auto found = json_.find(name);
    if (found == json_.end() || found->is_null() || *found == Json(value)) return;
    fail(std::string(name) + " = " + found->dump() + " is not supported (only " + Json(value).dump() + ")");
  }

  void fail(const std::string& what) {
    if (!problem_) problem_ = bad_input(path_ + ": " + what);
  }
  const std::optional<Error>& problem() const { return problem_; }
  const Json& json() const { return json_; }

 private:
  template <typename T>
  static bool has_type(const Json& value) {
    if constexpr (std::is_same_v<T, bool>)
      return value.is_boolean();
    else if constexpr (std::is_same_v<T, int64_t>)
      return value.is_number_integer();
    else if constexpr (std::is_same_v<T, double>)
      return value.is_number();
    else
      return value.is_string();
  }

  std::string path_;
  const Json& json_;
  std::optional<Error> problem_;
};

void read_gpt2(Reader& r, ModelConfig& m) {
  m.architecture = Architecture::gpt3;
  m.hidden_size = r.size({"n_embd", "hidden_size"});
  m.num_layers = r.size({"n_layer", "num_hidden_layers"});
  m.num_attention_heads = r.size({"n_head", "num_attention_heads"});
  m.num_key_value_heads = m.num_attention_heads;
  m.intermediate_size = r.size({"n_inner"}, 4 * m.hidden_size);
  m.max_position_embeddings = r.size({"n_positions", "max_position_embeddings"});
  m.norm_eps = r.get<double>({"layer_norm_epsilon"}, 1e-5);
  m.tie_word_embeddings = r.get<bool>({"tie_word_embeddings"}, true);
  r.only("activation_function", "gelu_new");
  r.only("scale_attn_weights", true);
  r.only("scale_attn_by_inverse_layer_idx", false);
}

void read_rope(Reader& r, ModelConfig& m) {
  m.rope_theta = r.get<double>({"rope_theta"}, 10000.0);
  for (const char* name : {"rope_parameters", "rope_scaling"}) {
    const auto found = r.json().find(name);
    if (found == r.json().end() || found->is_null()) continue;
    Reader rope(std::string(name), *found);
    rope.only("rope_type", "default");
    rope.only("type", "default");
    m.rope_theta = rope.get<double>({"rope_theta"}, m.rope_theta);
    if (rope.problem()) return r.fail(rope.problem()->message);
  }
}

void read_llama(Reader& r, ModelConfig& m) {
  m.architecture = Architecture::llama;
  m.hidden_size = r.size({"hidden_size"});
  m.num_layers = r.size({"num_hidden_layers"});
  m.num_attention_heads = r.size({"num_attention_heads"});
  m.num_key_value_heads = r.size({"num_key_value_heads"}, m.num_attention_heads);
  m.head_dim = r.size({"head_dim"}, m.hidden_size / std::max<int64_t>(1, m.num_attention_heads));
  m.intermediate_size = r.size({"intermediate_size"});
  m.max_position_embeddings = r.size({"max_position_embeddings"}, 2048);
  m.norm_eps = r.get<double>({"rms_norm_eps"}, 1e-6);
  m.tie_word_embeddings = r.get<bool>({"tie_word_embeddings"}, false);
  read_rope(r, m);
  r.only("hidden_act", "silu");
  r.only("attention_bias", false);
  r.only("mlp_bias", false);
}

void read_bloom(Reader& r, ModelConfig& m) {
  m.architecture = Architecture::bloom;
  m.hidden_size = r.size({"hidden_size", "n_embed"});
  m.num_layers = r.size({"n_layer", "num_hidden_layers"});
  m.num_attention_heads = r.size({"n_head", "num_attention_heads"});
  m.num_key_value_heads = m.num_attention_heads;
  m.intermediate_size = 4 * m.hidden_size;
  m.max_position_embeddings = r.size({"seq_length"}, 2048);
  m.norm_eps = r.get<double>({"layer_norm_epsilon"}, 1e-5);
  m.tie_word_embeddings = r.get<bool>({"tie_word_embeddings"}, true);
  r.only("apply_residual_connection_post_layernorm", false);
}

}  // namespace

Result<ModelConfig> read_hugging_face_config(const std::string& folder) {
  const std::string path = folder + "/config.json";
  std::ifstream file(path);
  if (!file) return bad_input(path + " cannot be read; name a folder that save_pretrained() wrote");
  const Json json = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return bad_input(path + " is not a JSON object");

  Reader reader(path, json);
  ModelConfig model;
  const std::string type = reader.get<std::string>({"model_type"});
  if (type == "gpt2") {
    read_gpt2(reader, model);
  } else if (type == "llama") {
    read_llama(reader, model);
  } else if (type == "bloom") {
    read_bloom(reader, model);
  } else {
    reader.fail("model_type \"" + type + "\" is not supported (only gpt2, llama, bloom)");
  }
  model.vocab_size = reader.size({"vocab_size"});
  model.init_std = reader.get<double>({"initializer_range"}, 0.02);
  if (reader.problem()) return *reader.problem();
  fill_derived(model);
  if (model.head_dim < 1) return bad_input(path + ": fewer hidden units than attention heads");
  model.from_pretrained = folder;
  return model;
}

Json hugging_face_config(const ModelConfig& m) {
  Json json{{"vocab_size", m.vocab_size},
            {"initializer_range", m.init_std},
            {"tie_word_embeddings", m.tie_word_embeddings},
            {"use_cache", true}};
  switch (m.architecture) {
    case Architecture::gpt3:
      json.update({{"model_type", "gpt2"},
                   {"architectures", {"GPT2LMHeadModel"}},
                   {"n_embd", m.hidden_size},
                   {"n_layer", m.num_layers},
                   {"n_head", m.num_attention_heads},
                   {"n_inner", m.intermediate_size},
                   {"n_positions", m.max_position_embeddings},
                   {"layer_norm_epsilon", m.norm_eps},
                   {"activation_function", "gelu_new"},
                   {"bos_token_id", nullptr},
                   {"eos_token_id", nullptr}});
      break;
    case Architecture::llama:
      // rope_theta stands in both places: transformers 4 reads the first, transformers 5 the second.
      json.update({{"model_type", "llama"},
                   {"architectures", {"LlamaForCausalLM"}},
                   {"hidden_size", m.hidden_size},
                   {"num_hidden_layers", m.num_layers},
                   {"num_attention_heads", m.num_attention_heads},
                   {"num_key_value_heads", m.num_key_value_heads},
                   {"head_dim", m.head_dim},
                   {"intermediate_size", m.intermediate_size},
                   {"max_position_embeddings", m.max_position_embeddings},
                   {"rms_norm_eps", m.norm_eps},
                   {"rope_theta", m.rope_theta},
                   {"hidden_act", "silu"},
                   {"rope_parameters", {{"rope_theta", m.rope_theta}, {"rope_type", "default"}}}});
      break;
    case Architecture::bloom:
      json.update({{"model_type", "bloom"},
                   {"architectures", {"BloomForCausalLM"}},
                   {"hidden_size", m.hidden_size},
                   {"n_layer", m.num_layers},
                   {"n_head", m.num_attention_heads},
                   {"layer_norm_epsilon", m.norm_eps},
                   {"seq_length", m.max_position_embeddings}});
      break;
  }
  return json;
}

}  // namespace mds::trainer
