// The table of keys: complete, consistent, and every row of it checked by the parser.
#include <set>

#include "launcher/job_schema.hpp"
#include "launcher/job_values.hpp"
#include "tests/catch.hpp"
#include "tests/launcher/job/job_texts.hpp"

using namespace mds::launcher;
using namespace mds::launcher::tests;

namespace {

struct Sample {
  const char* toml;
  std::set<KeyType> right;  ///< types of key that take it
};

const std::vector<Sample>& samples() {
  static const std::vector<Sample> all{
      {"true", {KeyType::boolean}},
      {"7", {KeyType::integer, KeyType::number, KeyType::size}},
      {"1.5", {KeyType::number}},
      {"\"word\"", {KeyType::text}},
      {"[]", {KeyType::texts, KeyType::numbers}},
      {"[1]", {KeyType::numbers}},
      {"[\"x\"]", {KeyType::texts}},
      {"[true]", {}},
      {"[[\"x\"]]", {}},
      {"{}", {KeyType::text_table}},
      {"{ A = 1 }", {}},
      {"1979-05-27", {}},
      {"nan", {}},
      {"-inf", {}},
  };
  return all;
}

// valid_text() with `line` in `section`, in place of a line for the same key if there is one; `at` is where it stands.
std::string text_with(const Key& key, const std::string& value, int& at) {
  const std::string head = "[" + key.section + "]\n";
  std::string text = valid_text();
  const size_t old = text.find("\n" + key.name + " = ");
  if (old != std::string::npos) text.erase(old + 1, text.find('\n', old + 1) - old);
  size_t place = text.find(head);
  if (place == std::string::npos) {
    place = text.size();
    text += head;
  }
  place += head.size();
  at = 1 + static_cast<int>(std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(place), '\n'));
  return text.insert(place, key.name + " = " + value + "\n");
}

}  // namespace

TEST_CASE("the base job of these tests is valid") {
  const JobFileResult result = parse_job(valid_text(), "job.toml", {});
  INFO(all_problems(result));
  CHECK(result.job.has_value());
}

TEST_CASE("a wrong type gives exactly one problem, at its line, for every key") {
  for (const Key& key : job_schema()) {
    for (const Sample& sample : samples()) {
      const bool list_of_one = key.or_one && std::string(sample.toml) == "\"word\"";
      if (sample.right.count(key.type) || list_of_one) continue;
      int line = 0;
      const std::string text = text_with(key, sample.toml, line);
      const JobFileResult result = parse_job(text, "job.toml", {});
      INFO(key.path() << " = " << sample.toml << "\n" << all_problems(result));
      REQUIRE(result.problems.size() == 1);
      CHECK(result.problems[0].line == line);
      CHECK(result.problems[0].column == 1);
      CHECK(result.problems[0].message.find(key.path()) != std::string::npos);
      CHECK_FALSE(result.job.has_value());
    }
  }
}

TEST_CASE("a wrong type from --set is one problem that says so, for every key") {
  for (const Key& key : job_schema()) {
    if (key.type == KeyType::text || key.type == KeyType::texts) continue;  // bare words are right for them
    const JobFileResult result = parse_job(valid_text(), "job.toml", {key.path() + "=[[]]"});
    INFO(key.path() << "\n" << all_problems(result));
    REQUIRE(result.problems.size() == 1);
    CHECK(result.problems[0].file == "--set");
    CHECK(result.problems[0].message.find(key.path()) != std::string::npos);
  }
}

TEST_CASE("rows of the table are unique, documented and in a section that exists") {
  std::set<std::string> seen;
  for (const Key& key : job_schema()) {
    INFO(key.path());
    CHECK(seen.insert(key.path()).second);
    CHECK(find_section(key.section) != nullptr);
    CHECK(find_key(key.section, key.name) == &key);
    CHECK(key.doc.size() > 5);
    CHECK(key.doc.back() == '.');
    CHECK(key.doc.find('\n') == std::string::npos);
    for (const std::string& word : key.not_yet) {
      CHECK(std::find(key.choices.begin(), key.choices.end(), word) != key.choices.end());
    }
    CHECK((key.type == KeyType::choice) == !key.choices.empty());
  }
}

TEST_CASE("every default is a value that the parser takes") {
  for (const Key& key : job_schema()) {
    const std::string standard = describe_default(key);
    if (standard == "required" || standard == "\"auto\"") continue;
    INFO(key.path() << " = " << standard);
    int line = 0;
    const JobFileResult result = parse_job(text_with(key, standard, line), "job.toml", {});
    const bool empty_here = key.path() == "payload.command" || key.path() == "job.name" ||
                            key.path() == "model.preset" || key.section == "payload" ||
                            key.path() == "job.gpus_per_node" || key.path() == "data.weights" ||
                            key.path() == "data.format";
    INFO(all_problems(result));
    if (!empty_here) CHECK(result.problems.empty());
  }
}

TEST_CASE("the words of a choice are those of the enum that stores it") {
  using namespace mds::trainer;
  const auto matches = [](const char* section, const char* name, auto first, int count) {
    const Key* key = find_key(section, name);
    REQUIRE(key != nullptr);
    REQUIRE(key->choices.size() == static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) {
      CHECK(key->choices[static_cast<size_t>(i)] == to_string(static_cast<decltype(first)>(i)));
    }
  };
  matches("model", "architecture", Architecture::gpt3, 3);
  matches("training", "precision", Precision::fp32, 4);
  matches("training", "recompute", Recompute::none, 3);
  matches("parallel", "schedule", Schedule::gpipe, 4);
  matches("zero", "offload_optimizer", Offload::none, 3);
  matches("zero", "offload_parameters", Offload::none, 3);
  matches("data", "format", DataFormat::text, 4);
}

TEST_CASE("the keys that users were promised exist") {
  const std::vector<std::pair<std::string, std::vector<std::string>>> promised{
      {"job", {"name", "nodes", "gpus_per_node", "devices", "ranks_per_node", "backend", "hosts", "output_dir", "env"}},
      {"payload", {"command"}},
      {"container", {"runtime", "image", "sha256", "binds", "env", "read_only"}},
      {"parallel",
       {"tensor", "pipeline", "data", "context", "sequence_parallel", "schedule", "virtual_stages", "order"}},
      {"model",
       {"preset", "architecture", "hidden_size", "num_layers", "num_attention_heads", "num_key_value_heads",
        "intermediate_size", "vocab_size", "max_position_embeddings", "from_pretrained"}},
      {"data", {"format", "path", "weights", "tokenizer", "split", "seed"}},
      {"training",
       {"steps", "seq_len", "global_batch_size", "micro_batch_size", "precision", "grad_clip", "seed", "eval_interval",
        "recompute", "deterministic"}},
      {"optimizer", {"name", "lr", "betas", "eps", "weight_decay"}},
      {"lr_schedule", {"warmup_steps", "decay", "min_lr"}},
      {"zero",
       {"stage", "offload_optimizer", "offload_parameters", "nvme_path", "quantized_weights", "quantized_gradients"}},
      {"checkpoint", {"interval", "keep", "async", "load", "save_hf"}},
      {"health", {"heartbeat", "hang_timeout", "preflight", "gpu_checks", "fabric_checks"}},
      {"restart", {"max_restarts", "backoff", "spare_nodes", "no_progress_limit"}},
      {"slurm", {"partition", "account", "time", "signal_before_end", "extra"}},
      {"metrics", {"web_port", "prometheus_port", "tensorboard", "interval"}},
  };
  for (const auto& [section, names] : promised) {
    for (const std::string& name : names) {
      INFO(section << "." << name);
      CHECK(find_key(section, name) != nullptr);
    }
  }
}
