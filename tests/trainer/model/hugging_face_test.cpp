// Hugging Face folders: config.json there and back, weights of tiny files, and broken input. The numbers themselves are
// compared with transformers in tests/trainer/oracle.
#include "trainer/model/hugging_face.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/trainer/model/harness.hpp"
#include "trainer/model/hugging_face_config.hpp"
// clang-format off: last, because c10 defines CHECK, too
#include "tests/catch.hpp"
// clang-format on

namespace mds::trainer {
namespace {

namespace fs = std::filesystem;

struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "hugging_face_XXXXXX").string();
    REQUIRE(mkdtemp(name.data()));
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  void write(const std::string& file, const std::string& text) const { std::ofstream(path / file) << text; }
};

ModelConfig tiny(Architecture architecture) {
  ModelConfig m;
  m.architecture = architecture;
  m.hidden_size = 12;
  m.num_layers = 2;
  m.num_attention_heads = 2;
  m.num_key_value_heads = architecture == Architecture::llama ? 1 : 2;
  m.head_dim = 6;
  m.intermediate_size = 48;
  m.vocab_size = 19;
  m.max_position_embeddings = 16;
  m.norm_eps = 1e-6;
  m.tie_word_embeddings = architecture != Architecture::llama;
  return m;
}

constexpr Architecture kArchitectures[] = {Architecture::gpt3, Architecture::llama, Architecture::bloom};

Result<at::Tensor> named_tensor(const LogicalTensor& t) {
  // A different number in every element, so that no misplacement goes unseen.
  const int64_t count = t.rows * std::max<int64_t>(1, t.columns);
  const double base = static_cast<double>(std::hash<std::string>{}(t.name) % 1000) * 1000;
  const at::Tensor flat = at::arange(count, at::kDouble).add_(base);
  return t.columns ? flat.view({t.rows, t.columns}) : flat;
}

TEST_CASE("Hugging Face: config.json comes back as it was written") {
  for (const Architecture architecture : kArchitectures) {
    const Folder folder;
    const ModelConfig want = tiny(architecture);
    folder.write("config.json", hugging_face_config(want).dump());
    const auto got = read_hugging_face_config(folder.path.string());
    REQUIRE(got);
    CHECK(got->architecture == want.architecture);
    CHECK(hugging_face_config(*got) == hugging_face_config(want));
    CHECK(parameter_count(*got) == parameter_count(want));
    CHECK(got->from_pretrained == folder.path.string());
  }
}

TEST_CASE("Hugging Face: weights come back as they were saved, on every tensor rank") {
  for (const Architecture architecture : kArchitectures) {
    const Folder folder;
    const ModelConfig model = tiny(architecture);
    REQUIRE(save_hugging_face(folder.path.string(), model, at::kFloat, named_tensor));
    const int size = architecture == Architecture::llama ? 1 : 2;
    auto groups = make_local_group(size);
    int64_t elements = 0;
    for (int rank = 0; rank < size; ++rank) {
      const auto stage = StageModel::make(model, {}, Recompute::none, {}, *groups[rank]);
      testing::bind(stage->parameters(), at::kFloat, at::kFloat);
      REQUIRE(load_hugging_face(folder.path.string(), model, stage->parameters()));
      for (const Parameter* p : stage->parameters()) {
        for (const LogicalSlice& s : p->slices) {
          INFO(s.name << " of rank " << rank);
          const at::Tensor local = p->value.narrow(0, s.local_begin, s.local_rows);
          const int64_t columns = s.global_shape.size() > 1 ? s.global_shape[1] : 0;
          const at::Tensor whole = *named_tensor({s.name, s.global_shape[0], columns});
          CHECK(at::equal(local, testing::block_of(whole, s, local).to(at::kFloat)));
          if (!p->tensor_replicated || rank == 0) elements += local.numel();
        }
      }
    }
    CHECK(elements == parameter_count(model));
  }
}

TEST_CASE("Hugging Face: what we cannot compute is refused with file and key") {
  const auto refuses = [](nlohmann::json config, const std::string& key) {
    const Folder folder;
    folder.write("config.json", config.dump());
    const auto got = read_hugging_face_config(folder.path.string());
    INFO(config.dump());
    REQUIRE(!got);
    CHECK(got.error().code == ErrorCode::bad_input);
    CHECK(got.error().message.find(key) != std::string::npos);
    CHECK(got.error().message.find("config.json") != std::string::npos);
  };
  const auto with = [](Architecture architecture, nlohmann::json change) {
    nlohmann::json config = hugging_face_config(tiny(architecture));
    config.update(change);
    return config;
  };
  refuses(with(Architecture::llama, {{"model_type", "mistral"}}), "mistral");
  refuses(with(Architecture::llama, {{"hidden_size", "wide"}}), "hidden_size");
  refuses(with(Architecture::llama, {{"hidden_size", -4}}), "hidden_size");
  refuses(with(Architecture::llama, {{"attention_bias", true}}), "attention_bias");
  refuses(with(Architecture::llama, {{"rope_scaling", {{"rope_type", "yarn"}}}}), "rope_scaling");
  refuses(with(Architecture::llama, {{"rope_parameters", 7}}), "rope_parameters");
  refuses(with(Architecture::gpt3, {{"activation_function", "relu"}}), "activation_function");
  refuses(with(Architecture::bloom, {{"apply_residual_connection_post_layernorm", true}}), "post_layernorm");
  refuses(nlohmann::json::array({1, 2}), "not a JSON object");
  refuses({{"model_type", "gpt2"}}, "n_embd");
}

TEST_CASE("Hugging Face: missing and misshapen tensors are named") {
  const Folder folder;
  const ModelConfig model = tiny(Architecture::llama);
  REQUIRE(save_hugging_face(folder.path.string(), model, at::kBFloat16, named_tensor));
  const auto alone = make_single_communicator("alone");
  const auto load_as = [&](const ModelConfig& other) {
    const auto stage = StageModel::make(other, {}, Recompute::none, {}, *alone);
    testing::bind(stage->parameters(), at::kFloat, at::kFloat);
    return load_hugging_face(folder.path.string(), other, stage->parameters());
  };
  CHECK(load_as(model));

  ModelConfig deeper = model;
  deeper.num_layers = 3;
  const Status missing = load_as(deeper);
  REQUIRE(!missing);
  CHECK(missing.error().message.find("model.layers.2.") != std::string::npos);

  ModelConfig wider = model;
  wider.vocab_size = 20;
  const Status misshapen = load_as(wider);
  REQUIRE(!misshapen);
  CHECK(misshapen.error().message.find("embed_tokens.weight is 19 x 12") != std::string::npos);

  fs::remove(folder.path / "model.safetensors");
  CHECK(!load_as(model));
}

}  // namespace
}  // namespace mds::trainer
