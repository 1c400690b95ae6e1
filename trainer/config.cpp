// TrainerConfig as JSON. One list of fields per struct serves reading and writing, so that neither can forget one.
#include "trainer/config.hpp"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <type_traits>
#include <utility>

namespace mds::trainer {
namespace {

using Json = nlohmann::json;

/// Spellings of an enumeration, indexed by its value.
template <typename Enum>
struct Spelling;
template <>
struct Spelling<Architecture> {
  static constexpr const char* names[] = {"gpt3", "llama", "bloom"};
};
template <>
struct Spelling<Precision> {
  static constexpr const char* names[] = {"fp32", "bf16", "fp16", "fp8"};
};
template <>
struct Spelling<Recompute> {
  static constexpr const char* names[] = {"none", "selective", "full"};
};
template <>
struct Spelling<Schedule> {
  static constexpr const char* names[] = {"gpipe", "1f1b", "interleaved", "zero-bubble"};
};
template <>
struct Spelling<Offload> {
  static constexpr const char* names[] = {"none", "cpu", "nvme"};
};
template <>
struct Spelling<DataFormat> {
  static constexpr const char* names[] = {"text", "megatron", "jsonl", "random"};
};

template <typename Enum>
const char* spell(Enum value) {
  return Spelling<Enum>::names[static_cast<int>(value)];
}

// The fields of each struct. `Visitor` is called with (name, field) in the order of the header.

template <typename Visitor>
void fields(Visitor&& visit, ModelConfig& c) {
  visit("architecture", c.architecture);
  visit("hidden_size", c.hidden_size);
  visit("num_layers", c.num_layers);
  visit("num_attention_heads", c.num_attention_heads);
  visit("num_key_value_heads", c.num_key_value_heads);
  visit("head_dim", c.head_dim);
  visit("intermediate_size", c.intermediate_size);
  visit("vocab_size", c.vocab_size);
  visit("max_position_embeddings", c.max_position_embeddings);
  visit("norm_eps", c.norm_eps);
  visit("rope_theta", c.rope_theta);
  visit("tie_word_embeddings", c.tie_word_embeddings);
  visit("init_std", c.init_std);
  visit("from_pretrained", c.from_pretrained);
}

template <typename Visitor>
void fields(Visitor&& visit, ParallelConfig& c) {
  visit("tensor", c.tensor);
  visit("context", c.context);
  visit("data", c.data);
  visit("pipeline", c.pipeline);
  visit("sequence_parallel", c.sequence_parallel);
  visit("schedule", c.schedule);
  visit("virtual_stages", c.virtual_stages);
  visit("order", c.order);
}

template <typename Visitor>
void fields(Visitor&& visit, DataSource& c) {
  visit("path", c.path);
  visit("weight", c.weight);
}

template <typename Visitor>
void fields(Visitor&& visit, DataConfig& c) {
  visit("format", c.format);
  visit("sources", c.sources);
  visit("tokenizer", c.tokenizer);
  visit("split", c.split);
  visit("seed", c.seed);
}

template <typename Visitor>
void fields(Visitor&& visit, TrainingConfig& c) {
  visit("steps", c.steps);
  visit("seq_len", c.seq_len);
  visit("global_batch_size", c.global_batch_size);
  visit("micro_batch_size", c.micro_batch_size);
  visit("precision", c.precision);
  visit("grad_clip", c.grad_clip);
  visit("seed", c.seed);
  visit("eval_interval", c.eval_interval);
  visit("eval_batches", c.eval_batches);
  visit("recompute", c.recompute);
  visit("deterministic", c.deterministic);
}

template <typename Visitor>
void fields(Visitor&& visit, OptimizerConfig& c) {
  visit("name", c.name);
  visit("lr", c.lr);
  visit("beta1", c.beta1);
  visit("beta2", c.beta2);
  visit("eps", c.eps);
  visit("weight_decay", c.weight_decay);
}

template <typename Visitor>
void fields(Visitor&& visit, LrScheduleConfig& c) {
  visit("warmup_steps", c.warmup_steps);
  visit("decay", c.decay);
  visit("min_lr", c.min_lr);
}

template <typename Visitor>
void fields(Visitor&& visit, ZeroConfig& c) {
  visit("stage", c.stage);
  visit("offload_optimizer", c.offload_optimizer);
  visit("offload_parameters", c.offload_parameters);
  visit("nvme_path", c.nvme_path);
}

template <typename Visitor>
void fields(Visitor&& visit, CheckpointConfig& c) {
  visit("interval", c.interval);
  visit("keep", c.keep);
  visit("folder", c.folder);
  visit("load", c.load);
  visit("at_end", c.at_end);
  visit("save_hf", c.save_hf);
}

template <typename Visitor>
void fields(Visitor&& visit, TrainerConfig& c) {
  visit("cuda", c.cuda);
  visit("model", c.model);
  visit("parallel", c.parallel);
  visit("data", c.data);
  visit("training", c.training);
  visit("optimizer", c.optimizer);
  visit("lr_schedule", c.lr_schedule);
  visit("zero", c.zero);
  visit("checkpoint", c.checkpoint);
}

template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};

/// A value struct of ours, i.e. one with a list of fields.
template <typename T>
concept Section = std::is_class_v<T> && !std::is_same_v<T, std::string> && !IsVector<T>::value;

template <typename T>
Json written(T value) {
  if constexpr (std::is_enum_v<T>) {
    return spell(value);
  } else if constexpr (IsVector<T>::value) {
    Json list = Json::array();
    for (const auto& element : value) list.push_back(written(element));
    return list;
  } else if constexpr (Section<T>) {
    Json object = Json::object();
    fields([&](const char* name, auto& field) { object[name] = written(field); }, value);
    return object;
  } else {
    return value;
  }
}

/// Reads a document and keeps the first problem; after one, nothing more is read.
class Reader {
 public:
  std::optional<Error> error;

  template <Section T>
  void read(const Json& json, const std::string& where, T& section) {
    if (!json.is_object()) return fail(where, "an object", json);
    std::set<std::string> unread;
    for (const auto& [key, value] : json.items()) unread.insert(key);
    fields(
        [&](const char* name, auto& field) {
          unread.erase(name);
          const auto found = json.find(name);
          if (!error && found != json.end()) read(*found, where.empty() ? name : where + "." + name, field);
        },
        section);
    if (!error && !unread.empty()) {
      error = bad_input("unknown field " + (where.empty() ? "" : where + ".") + *unread.begin());
    }
  }

  template <typename T>
  void read(const Json& json, const std::string& where, std::vector<T>& list) {
    if (!json.is_array()) return fail(where, "a list", json);
    list.clear();
    for (const Json& element : json) {
      T value{};
      read(element, where + "[" + std::to_string(list.size()) + "]", value);
      if (error) return;
      list.push_back(std::move(value));
    }
  }

  template <typename Enum>
  requires std::is_enum_v<Enum>
  void read(const Json& json, const std::string& where, Enum& value) {
    std::string known;
    for (int i = 0; const char* name : Spelling<Enum>::names) {
      if (json.is_string() && json.get_ref<const std::string&>() == name) {
        value = static_cast<Enum>(i);
        return;
      }
      known += (i++ == 0 ? "one of " : ", ") + std::string(name);
    }
    fail(where, known, json);
  }

  template <typename Integer>
  requires std::is_integral_v<Integer>
  void read(const Json& json, const std::string& where, Integer& value) {
    if (json.is_number_unsigned() && std::in_range<Integer>(json.get<uint64_t>())) {
      value = static_cast<Integer>(json.get<uint64_t>());
    } else if (json.type() == Json::value_t::number_integer && std::in_range<Integer>(json.get<int64_t>())) {
      value = static_cast<Integer>(json.get<int64_t>());
    } else {
      using Limits = std::numeric_limits<Integer>;
      fail(where, "an integer from " + std::to_string(Limits::min()) + " to " + std::to_string(Limits::max()), json);
    }
  }

  void read(const Json& json, const std::string& where, bool& value) {
    if (!json.is_boolean()) return fail(where, "true or false", json);
    value = json.get<bool>();
  }

  void read(const Json& json, const std::string& where, double& value) {
    if (!json.is_number() || !std::isfinite(json.get<double>())) return fail(where, "a number", json);
    value = json.get<double>();
  }

  void read(const Json& json, const std::string& where, std::string& value) {
    if (!json.is_string()) return fail(where, "a string", json);
    value = json.get<std::string>();
  }

 private:
  void fail(const std::string& where, const std::string& expected, const Json& json) {
    constexpr size_t kShownMax = 60;  // a hostile document must not become the message
    std::string shown = json.dump(-1, ' ', true, Json::error_handler_t::replace);
    if (shown.size() > kShownMax) shown = shown.substr(0, kShownMax) + "...";
    error =
        bad_input((where.empty() ? "the trainer configuration" : where) + " must be " + expected + ", not " + shown);
  }
};

}  // namespace

Json to_json(const TrainerConfig& config) { return written(config); }

Result<TrainerConfig> trainer_config_from_json(const Json& json) {
  Reader reader;
  TrainerConfig config;
  reader.read(json, "", config);
  if (reader.error) return *reader.error;
  return config;
}

const char* to_string(Architecture v) { return spell(v); }
const char* to_string(Precision v) { return spell(v); }
const char* to_string(Recompute v) { return spell(v); }
const char* to_string(Schedule v) { return spell(v); }
const char* to_string(Offload v) { return spell(v); }
const char* to_string(DataFormat v) { return spell(v); }

}  // namespace mds::trainer
