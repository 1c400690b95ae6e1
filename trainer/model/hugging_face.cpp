#include "trainer/model/hugging_face.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <sstream>

#include "trainer/checkpoint/safetensors.hpp"
#include "trainer/checkpoint/tensor_types.hpp"
#include "trainer/comm/cpu.hpp"
#include "trainer/model/hugging_face_config.hpp"
#include "trainer/model/model.hpp"

namespace mds::trainer {
namespace {

using Arrangement = HuggingFacePlace::Arrangement;

/// Ours and theirs of the tensors of one architecture. `parts` maps the tail of our name to theirs.
struct Names {
  const char* layer;                         ///< prefix of layer i: layer + i + "."
  std::map<std::string, const char*> outer;  ///< outside of layers
  std::map<std::string, const char*> parts;  ///< within a layer, without .weight or .bias
  Arrangement linear;                        ///< of matrices in layers
  Arrangement fused;                         ///< of query, key and value
};

const Names& names_of(Architecture architecture) {
  static const Names gpt2{"transformer.h.",
                          {{"embedding.word", "transformer.wte"},
                           {"embedding.position", "transformer.wpe"},
                           {"final_norm", "transformer.ln_f"},
                           {"head", "lm_head"}},
                          {{"attention_norm", "ln_1"},
                           {"attention.query", "attn.c_attn"},
                           {"attention.key", "attn.c_attn"},
                           {"attention.value", "attn.c_attn"},
                           {"attention.output", "attn.c_proj"},
                           {"mlp_norm", "ln_2"},
                           {"mlp.up", "mlp.c_fc"},
                           {"mlp.down", "mlp.c_proj"}},
                          Arrangement::transposed,
                          Arrangement::side_by_side};
  static const Names llama{
      "model.layers.",
      {{"embedding.word", "model.embed_tokens"}, {"final_norm", "model.norm"}, {"head", "lm_head"}},
      {{"attention_norm", "input_layernorm"},
       {"attention.query", "self_attn.q_proj"},
       {"attention.key", "self_attn.k_proj"},
       {"attention.value", "self_attn.v_proj"},
       {"attention.output", "self_attn.o_proj"},
       {"mlp_norm", "post_attention_layernorm"},
       {"mlp.gate", "mlp.gate_proj"},
       {"mlp.up", "mlp.up_proj"},
       {"mlp.down", "mlp.down_proj"}},
      Arrangement::plain,
      Arrangement::plain};
  static const Names bloom{"transformer.h.",
                           {{"embedding.word", "transformer.word_embeddings"},
                            {"embedding.norm", "transformer.word_embeddings_layernorm"},
                            {"final_norm", "transformer.ln_f"},
                            {"head", "lm_head"}},
                           {{"attention_norm", "input_layernorm"},
                            {"attention.query", "self_attention.query_key_value"},
                            {"attention.key", "self_attention.query_key_value"},
                            {"attention.value", "self_attention.query_key_value"},
                            {"attention.output", "self_attention.dense"},
                            {"mlp_norm", "post_attention_layernorm"},
                            {"mlp.up", "mlp.dense_h_to_4h"},
                            {"mlp.down", "mlp.dense_4h_to_h"}},
                           Arrangement::plain,
                           Arrangement::interleaved};
  return architecture == Architecture::llama ? llama : architecture == Architecture::gpt3 ? gpt2 : bloom;
}

/// Index of query, key, value; -1 for anything else.
int third_of(const std::string& part) {
  return part == "attention.query" ? 0 : part == "attention.key" ? 1 : part == "attention.value" ? 2 : -1;
}

/// The logical tensor that a slice is a part of.
LogicalTensor logical_of(const LogicalSlice& s) {
  return {s.name, s.global_shape[0], s.global_shape.size() > 1 ? s.global_shape[1] : 0, s.init};
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::ostringstream text;
  for (size_t i = 0; i < shape.size(); ++i) text << (i ? " x " : "") << shape[i];
  return text.str();
}

/// Published GPT-2 and BLOOM files leave out "transformer." (they were saved from the model without its head).
Result<SafetensorsFolder::Tensor> find_tensor(const SafetensorsFolder& folder, const HuggingFacePlace& place) {
  auto found = folder.find(place.name);
  const std::string prefix = "transformer.";
  if (!found && place.name.rfind(prefix, 0) == 0) {
    auto bare = folder.find(place.name.substr(prefix.size()));
    if (bare) found = std::move(bare);
  }
  if (!found) return found;
  if (found->entry->shape != place.shape) {
    return bad_input(folder.path() + ": " + found->entry->name + " is " + shape_text(found->entry->shape) +
                     ", but config.json makes it " + shape_text(place.shape));
  }
  return found;
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

/// One tensor of the file to write and the logical ones that it is made of.
struct Target {
  HuggingFacePlace place;
  std::vector<LogicalTensor> sources;
};

std::vector<Target> targets_of(const ModelConfig& model) {
  std::vector<Target> targets;
  for (const LogicalTensor& tensor : logical_tensors(model)) {
    const HuggingFacePlace place = hugging_face_place(model, tensor);
    Target* same = nullptr;
    for (Target& t : targets) {
      if (t.place.name == place.name) same = &t;
    }
    if (!same) same = &targets.emplace_back(Target{place, {}});
    same->sources.push_back(tensor);
  }
  return targets;
}

Result<at::Tensor> assemble(const Target& target, const ModelConfig& model, at::ScalarType dtype,
                            const ReadLogical& read) {
  at::Tensor whole = at::empty(target.place.shape, at::TensorOptions().dtype(dtype));
  for (const LogicalTensor& source : target.sources) {
    auto value = read(source);
    if (!value) return value.error();
    at::Tensor view = hugging_face_view(whole, hugging_face_place(model, source), model.num_attention_heads);
    view.copy_(value->reshape(view.sizes()));
  }
  return whole;
}

}  // namespace

std::vector<LogicalTensor> logical_tensors(const ModelConfig& model) {
  const auto alone = make_single_communicator("alone");
  std::vector<LogicalTensor> tensors;
  const auto stage = StageModel::make(model, {}, Recompute::none, {}, *alone);
  for (const Parameter* p : stage->parameters()) {
    for (const LogicalSlice& s : p->slices) tensors.push_back(logical_of(s));
  }
  return tensors;
}

HuggingFacePlace hugging_face_place(const ModelConfig& model, const LogicalTensor& tensor) {
  const Names& names = names_of(model.architecture);
  const size_t dot = tensor.name.rfind('.');
  const std::string suffix = tensor.name.substr(dot), stem = tensor.name.substr(0, dot);
  HuggingFacePlace place;
  place.shape = tensor.columns ? std::vector{tensor.rows, tensor.columns} : std::vector{tensor.rows};
  if (stem.rfind("layers.", 0) != 0) {
    place.name = names.outer.at(stem) + suffix;
    return place;
  }
  const size_t number = std::string("layers.").size(), end = stem.find('.', number);
  const std::string part = stem.substr(end + 1);
  place.name = names.layer + stem.substr(number, end - number) + "." + names.parts.at(part) + suffix;
  if (tensor.columns) place.arrangement = names.linear;
  const int third = third_of(part);
  if (third >= 0 && names.fused != Arrangement::plain) {
    place.arrangement = names.fused;
    place.third = third;
    place.shape[0] *= 3;
  }
  if (names.linear == Arrangement::transposed && tensor.columns) std::swap(place.shape[0], place.shape[1]);
  return place;
}

at::Tensor hugging_face_view(const at::Tensor& whole, const HuggingFacePlace& place, int64_t heads) {
  switch (place.arrangement) {
    case Arrangement::plain:
      break;
    case Arrangement::transposed:
      return whole.t();
    case Arrangement::side_by_side: {
      const at::Tensor rows = whole.dim() == 2 ? whole.t() : whole;
      return rows.chunk(3, 0)[place.third];
    }
    case Arrangement::interleaved: {
      const at::Tensor by_head = whole.unflatten(0, {heads, 3, -1});
      return by_head.select(1, place.third);
    }
  }
  return whole;
}

Status load_hugging_face(const std::string& folder, const ModelConfig& model,
                         const std::vector<Parameter*>& parameters) {
  const at::NoGradGuard no_grad;
  auto files = SafetensorsFolder::open(folder);
  if (!files) return files.error();
  for (Parameter* p : parameters) {
    for (const LogicalSlice& s : p->slices) {
      const LogicalTensor logical = logical_of(s);
      const HuggingFacePlace place = hugging_face_place(model, logical);
      auto found = find_tensor(*files, place);
      if (!found) return found.error();
      at::Tensor block = hugging_face_view(copy_of(*found->entry, found->bytes), place, model.num_attention_heads);
      block = block.reshape(s.global_shape);
      at::Tensor target = p->value.narrow(0, s.local_begin, s.local_rows);
      for (int64_t i = 0; i < target.dim(); ++i) block = block.narrow(i, s.global_offset[i], target.size(i));
      target.copy_(block);
    }
  }
  return {};
}

Status save_hugging_face(const std::string& folder, const ModelConfig& model, at::ScalarType dtype,
                         const ReadLogical& read) {
  const at::NoGradGuard no_grad;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return unavailable(folder + ": " + error.message());
  const auto type = tensor_type(dtype);
  if (!type) return type.error();

  const std::vector<Target> targets = targets_of(model);
  std::vector<SafetensorsEntry> entries;
  for (const Target& t : targets) entries.push_back({t.place.name, *type, t.place.shape, 0, 0});
  auto writer = SafetensorsWriter::create(folder + "/model.safetensors", entries, {{"format", "pt"}});
  if (!writer) return writer.error();
  for (const Target& t : targets) {
    auto whole = assemble(t, model, dtype, read);
    if (!whole) return whole.error();
    if (Status s = writer->append(bytes_of(*whole)); !s) return s;
  }
  if (auto written = writer->finish(); !written) return written.error();

  std::ofstream config(folder + "/config.json");
  config << hugging_face_config(model).dump(2) << '\n';
  config.close();
  if (!config) return unavailable(folder + "/config.json cannot be written");
  return {};
}

}  // namespace mds::trainer
