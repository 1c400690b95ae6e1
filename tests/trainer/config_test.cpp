#include "trainer/config.hpp"

#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/catch.hpp"

using namespace mds::trainer;

namespace {

/// A small run that has no problem.
TrainerConfig good() {
  TrainerConfig config;
  config.model.hidden_size = 128;
  config.model.num_layers = 4;
  config.model.num_attention_heads = 8;
  config.model.num_key_value_heads = 4;
  config.model.intermediate_size = 256;
  config.model.vocab_size = 256;
  config.model.max_position_embeddings = 128;
  config.parallel.tensor = 2;
  config.parallel.data = 2;
  config.parallel.pipeline = 2;
  config.data.sources = {{"text", 1.0}};
  config.training.steps = 100;
  config.training.seq_len = 128;
  config.training.global_batch_size = 16;
  config.training.micro_batch_size = 2;
  return config;
}

}  // namespace

TEST_CASE("presets have the published numbers of parameters") {
  const std::pair<const char*, int64_t> published[] = {
      {"llama-8b", 8'030'261'248},  {"llama-70b", 70'553'706'496},  {"llama-405b", 405'853'388'800},
      {"llama2-7b", 6'738'415'616}, {"llama2-13b", 13'015'864'320}, {"llama2-70b", 68'976'648'192},
      {"bloom-560m", 559'214'592},  {"bloom-1b1", 1'065'314'304},   {"bloom-1b7", 1'722'408'960},
      {"bloom-3b", 3'002'557'440},  {"bloom-7b1", 7'069'016'064},   {"bloom-176b", 176'247'271'424},
  };
  for (const auto& [name, count] : published) {
    INFO(name);
    CHECK(parameter_count(*model_preset(name)) == count);
  }
  // Llama 3.2 1B and 3B as published tie their embeddings.
  ModelConfig small = *model_preset("llama-1b");
  small.tie_word_embeddings = true;
  CHECK(parameter_count(small) == 1'235'814'400);
  small = *model_preset("llama-3b");
  small.tie_word_embeddings = true;
  CHECK(parameter_count(small) == 3'212'749'824);
  // GPT-2's smallest is GPT-3's with half the positions.
  ModelConfig gpt2 = *model_preset("gpt3-125m");
  gpt2.max_position_embeddings = 1024;
  CHECK(parameter_count(gpt2) == 124'439'808);
  // Brown et al. round; their names are within 7 % of the sum.
  const std::pair<const char*, double> rounded[] = {{"gpt3-350m", 350e6}, {"gpt3-760m", 760e6}, {"gpt3-1.3b", 1.3e9},
                                                    {"gpt3-2.7b", 2.7e9}, {"gpt3-6.7b", 6.7e9}, {"gpt3-13b", 13e9},
                                                    {"gpt3-175b", 175e9}};
  for (const auto& [name, count] : rounded) {
    INFO(name);
    CHECK(static_cast<double>(parameter_count(*model_preset(name))) == Approx(count).epsilon(0.07));
  }
}

TEST_CASE("every preset passes the checks and an unknown one lists them") {
  for (const std::string& name : model_preset_names()) {
    INFO(name);
    TrainerConfig config = good();
    config.model = *model_preset(name);
    config.parallel = {};
    CHECK(check(config).empty());
  }
  const auto unknown = model_preset("llama-9b");
  REQUIRE(!unknown);
  CHECK(unknown.error().message.find("llama-8b") != std::string::npos);
  CHECK(unknown.error().message.find("bloom-560m") != std::string::npos);
}

TEST_CASE("what follows from other fields counts as if it were written") {
  for (const char* name : {"llama2-7b", "gpt3-125m", "bloom-560m"}) {
    const ModelConfig full = *model_preset(name);
    ModelConfig sparse = full;
    sparse.head_dim = sparse.num_key_value_heads = 0;
    if (full.architecture != Architecture::llama) sparse.intermediate_size = 0;
    CHECK(parameter_count(sparse) == parameter_count(full));
    fill_derived(sparse);
    CHECK(sparse.head_dim == full.head_dim);
    CHECK(sparse.num_key_value_heads == full.num_key_value_heads);
    CHECK(sparse.intermediate_size == full.intermediate_size);
  }
}

TEST_CASE("a configuration survives JSON, every field of it") {
  TrainerConfig config = good();
  config.cuda = true;
  config.model.architecture = Architecture::bloom;
  config.model.rope_theta = 0.1;
  config.parallel.schedule = Schedule::zero_bubble;
  config.data.format = DataFormat::jsonl;
  config.data.sources.push_back({"second \"path\"", 1.0 / 3});
  config.data.seed = std::numeric_limits<uint64_t>::max();
  config.training.precision = Precision::bf16;
  config.training.recompute = Recompute::selective;
  config.zero.offload_optimizer = Offload::nvme;
  config.checkpoint.load = "elsewhere";
  const nlohmann::json json = to_json(config);
  const auto again = trainer_config_from_json(nlohmann::json::parse(json.dump()));
  REQUIRE(again);
  CHECK(to_json(*again) == json);
  CHECK(again->data.seed == config.data.seed);
  CHECK(again->data.sources[1].weight == config.data.sources[1].weight);
  CHECK(json["parallel"]["schedule"] == "zero-bubble");
  // A document that was made in memory holds signed numbers where a parsed one holds unsigned ones.
  CHECK(trainer_config_from_json(json));
}

TEST_CASE("a wrong document names the field") {
  const std::tuple<const char*, nlohmann::json, const char*> cases[] = {
      {"/training/steps", "many", "training.steps must be an integer"},
      {"/training/steps", 1.5, "training.steps must be an integer"},
      {"/training/steps", 9223372036854775808u, "training.steps must be an integer"},
      {"/parallel/tensor", 3000000000, "parallel.tensor must be an integer"},
      {"/data/seed", -1, "data.seed must be an integer"},
      {"/data/split", 1, "data.split must be a list"},
      {"/data/split/1", "x", "data.split[1] must be a number"},
      {"/data/sources/0/path", 7, "data.sources[0].path must be a string"},
      {"/data/sources/0/wait", 7, "unknown field data.sources[0].wait"},
      {"/model", nullptr, "model must be an object"},
      {"/model/architecture", "gpt5", "model.architecture must be one of gpt3, llama, bloom"},
      {"/model/tie_word_embeddings", 1, "model.tie_word_embeddings must be true or false"},
      {"/optimizer/lr", nullptr, "optimizer.lr must be a number"},
      {"/trainig", 1, "unknown field trainig"},
  };
  for (const auto& [pointer, value, expected] : cases) {
    nlohmann::json json = to_json(good());
    json[nlohmann::json::json_pointer(pointer)] = value;
    const auto result = trainer_config_from_json(json);
    INFO(pointer << " = " << value);
    REQUIRE(!result);
    CHECK(result.error().code == mds::ErrorCode::bad_input);
    CHECK(result.error().message.find(expected) == 0);
  }
  CHECK(!trainer_config_from_json(nlohmann::json::array()));
}

TEST_CASE("a good configuration has no problem and each rule has its key") {
  for (const ConfigProblem& problem : check(good())) FAIL(problem.key << ": " << problem.message);
  using Change = std::function<void(TrainerConfig&)>;
  const std::pair<const char*, Change> cases[] = {
      {"parallel.tensor", [](auto& c) { c.model.num_attention_heads = c.model.num_key_value_heads = 1; }},
      {"parallel.tensor", [](auto& c) { c.parallel.tensor = 8; }},  // key and value heads
      {"parallel.tensor", [](auto& c) { c.model.intermediate_size = 255; }},
      {"parallel.tensor", [](auto& c) { c.parallel.tensor = 0; }},
      {"parallel.pipeline", [](auto& c) { c.parallel.pipeline = 5; }},
      {"parallel.context", [](auto& c) { c.parallel.context = 2; }},
      {"parallel.schedule", [](auto& c) { c.parallel.schedule = Schedule::interleaved; }},
      {"parallel.virtual_stages", [](auto& c) { c.parallel.virtual_stages = 2; }},
      {"parallel.sequence_parallel", [](auto& c) { c.parallel = {}, c.parallel.sequence_parallel = true; }},
      {"training.seq_len", [](auto& c) { c.parallel.sequence_parallel = true, c.training.seq_len = 127; }},
      {"model.num_attention_heads", [](auto& c) { c.model.hidden_size = 130; }},
      {"model.num_key_value_heads", [](auto& c) { c.model.num_key_value_heads = 3, c.parallel.tensor = 1; }},
      {"model.num_key_value_heads", [](auto& c) { c.model.architecture = Architecture::bloom; }},
      {"model.head_dim", [](auto& c) { c.model.head_dim = 15; }},
      {"model.hidden_size", [](auto& c) { c.model.hidden_size = 0; }},
      {"model.hidden_size", [](auto& c) { c.model.hidden_size = int64_t{1} << 62; }},
      {"training.seq_len",
       [](auto& c) {
         c.model.architecture = Architecture::gpt3, c.model.num_key_value_heads = 8;
         c.training.seq_len = 256;
       }},
      {"model.vocab_size", [](auto& c) { c.model.vocab_size = 255; }},
      {"training.global_batch_size", [](auto& c) { c.training.global_batch_size = 6; }},
      {"training.steps", [](auto& c) { c.training.steps = 0; }},
      {"training.precision", [](auto& c) { c.training.precision = Precision::fp8; }},
      {"training.grad_clip", [](auto& c) { c.training.grad_clip = std::nan(""); }},
      {"optimizer.name", [](auto& c) { c.optimizer.name = "adamw8bit"; }},
      {"optimizer.lr", [](auto& c) { c.optimizer.lr = 0; }},
      {"optimizer.betas", [](auto& c) { c.optimizer.beta2 = 1; }},
      {"lr_schedule.warmup_steps", [](auto& c) { c.lr_schedule.warmup_steps = 100; }},
      {"lr_schedule.decay", [](auto& c) { c.lr_schedule.decay = "wsd"; }},
      {"lr_schedule.min_lr", [](auto& c) { c.lr_schedule.min_lr = 1; }},
      {"zero.stage", [](auto& c) { c.zero.stage = 2; }},
      {"zero.stage", [](auto& c) { c.zero.stage = -1; }},
      {"zero.offload_optimizer", [](auto& c) { c.zero.offload_optimizer = Offload::cpu; }},
      {"zero.offload_parameters", [](auto& c) { c.zero.offload_parameters = Offload::nvme; }},
      {"data.path", [](auto& c) { c.data.sources.clear(); }},
      {"data.path", [](auto& c) { c.data.sources[0].weight = 0; }},
      {"data.path", [](auto& c) { c.data.format = DataFormat::random; }},
      {"data.split",
       [](auto& c) {
         c.data.split = {0, 0, 0};
       }},
      {"data.split",
       [](auto& c) {
         c.data.split = {0, 1};
       }},
      {"data.split",
       [](auto& c) {
         c.data.split = {1, -1};
       }},
      {"data.seed", [](auto& c) { c.data.seed = uint64_t{1} << 32; }},
      {"data.tokenizer", [](auto& c) { c.data.tokenizer = "gpt2"; }},
      {"checkpoint.keep", [](auto& c) { c.checkpoint.keep = -1; }},
  };
  for (const auto& [key, change] : cases) {
    TrainerConfig config = good();
    change(config);
    const std::vector<ConfigProblem> problems = check(config);
    INFO(key);
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].key == key);
    INFO(problems[0].message);
    CHECK(problems[0].message.size() > 20);
  }
}

TEST_CASE("stages and vocabulary need not divide evenly") {
  TrainerConfig config = good();
  config.model.num_layers = 3;
  config.model.vocab_size = 257;
  CHECK(check(config).empty());
}

TEST_CASE("no configuration is too wild to be checked") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const int64_t values[] = {std::numeric_limits<int64_t>::min(), -1, 0, 1, 2, 3, 7, 256, 1 << 20, 1 << 30,
                            std::numeric_limits<int64_t>::max()};
  const auto value = [&] { return values[random() % std::size(values)]; };
  for (int round = 0; round < 2000; ++round) {
    TrainerConfig config = good();
    nlohmann::json json = to_json(config);
    for (int changes = 0; changes < 3; ++changes) {
      auto section = json.begin();
      std::advance(section, random() % json.size());
      if (!section->is_object()) continue;
      auto field = section->begin();
      std::advance(field, random() % section->size());
      if (field->is_number_integer()) *field = value();
      if (field->is_number_float()) *field = static_cast<double>(value());
    }
    const auto read = trainer_config_from_json(json);
    if (!read) continue;
    if (check(*read).empty()) CHECK(parameter_count(read->model) > 0);
  }
}
