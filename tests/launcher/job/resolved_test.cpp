// The resolved job file says everything: reading it gives the same Job.
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>

#include "launcher/job_schema.hpp"
#include "launcher/job_values.hpp"
#include "tests/catch.hpp"
#include "tests/launcher/job/job_texts.hpp"
#include "trainer/model/hugging_face_config.hpp"

using namespace mds::launcher;
using namespace mds::launcher::tests;

namespace {

void check_same(const Job& a, const Job& b) {
  CHECK(a.resolved_toml == b.resolved_toml);
  CHECK(a.name == b.name);
  CHECK(a.nodes == b.nodes);
  CHECK(a.device == b.device);
  CHECK(a.ranks_per_node == b.ranks_per_node);
  CHECK(a.backend == b.backend);
  CHECK(a.hosts == b.hosts);
  CHECK(a.output_dir == b.output_dir);
  CHECK(a.env == b.env);
  CHECK(a.payload == b.payload);
  CHECK(a.model_preset == b.model_preset);
  CHECK(to_json(a.trainer) == to_json(b.trainer));
  CHECK(a.health.heartbeat == b.health.heartbeat);
  CHECK(a.health.hang_timeout == b.health.hang_timeout);
  CHECK(a.restart.max_restarts == b.restart.max_restarts);
  CHECK(a.restart.backoff == b.restart.backoff);
  CHECK(a.restart.no_progress_limit == b.restart.no_progress_limit);
  CHECK(a.metrics.tensorboard == b.metrics.tensorboard);
  CHECK(a.metrics.interval == b.metrics.interval);
}

void check_round_trip(const JobFileResult& first) {
  INFO(all_problems(first));
  REQUIRE(first.job.has_value());
  const JobFileResult second = parse_job(first.job->resolved_toml, "/elsewhere/job.toml", {});
  INFO(first.job->resolved_toml << all_problems(second));
  REQUIRE(second.job.has_value());
  check_same(*first.job, *second.job);
}

struct TemporaryFolder {
  std::filesystem::path path;
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "mds-model-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
};

}  // namespace

TEST_CASE("every example resolves to a file that means the same") {
  REQUIRE(examples().size() >= 7);
  for (const auto& file : examples()) {
    INFO(file.string());
    check_round_trip(load_job(file.string(), local_data(read_file(file))));
  }
}

TEST_CASE("every preset resolves to a file that means the same") {
  for (const std::string& preset : mds::trainer::model_preset_names()) {
    INFO(preset);
    check_round_trip(parse_job("[job]\ngpus_per_node = 1\n[data]\nformat = \"random\"\n[model]\npreset = \"" + preset +
                                   "\"\n[training]\nsteps = 1\nseq_len = 64\nglobal_batch_size = 1\n",
                               "job.toml", {}));
  }
}

TEST_CASE("random values survive the way through the resolved file") {
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  const auto real = [&](double low, double high) { return std::uniform_real_distribution<double>(low, high)(random); };
  const auto whole = [&](int64_t low, int64_t high) {
    return std::to_string(std::uniform_int_distribution<int64_t>(low, high)(random));
  };
  for (int round = 0; round < 200; ++round) {
    std::string odd;
    for (int i = 0; i < 12; ++i) odd += static_cast<char>(std::uniform_int_distribution<int>(1, 126)(random));
    const std::vector<std::string> overrides{
        "training.steps=" + whole(10, 1u << 31),
        "training.seed=" + whole(0, 9000000000000000000),
        "training.grad_clip=" + format_number(real(0, 10)),
        "optimizer.lr=" + format_number(std::exp2(real(-60, 3))),
        "optimizer.betas=[" + format_number(real(0, 0.999)) + ", " + format_number(real(0, 0.999)) + "]",
        "data.split=[" + format_number(real(0.001, 1)) + ", 0.25, " + format_number(real(0, 1)) + "]",
        "restart.backoff=" + whole(0, 100000) + "ms",
        "health.heartbeat=" + format_number(real(0.1, 3000)) + "s",
        "health.hang_timeout=" + whole(1, 500) + "m",
        "job.env={ ODD = " + toml_string(odd) + ", PLAIN = \"x\" }",
        "job.env.A.B=" + whole(0, 9),
        "metrics.tensorboard=false",
    };
    INFO("seed " << seed << ", round " << round);
    check_round_trip(parse_job(valid_text(), "job.toml", overrides));
  }
}

TEST_CASE("a Hugging Face folder gives the shape, and the file may not contradict it") {
  const TemporaryFolder folder;
  mds::trainer::ModelConfig model = *mds::trainer::model_preset("llama-1b");
  model.num_layers = 3;
  model.vocab_size = 999;
  std::ofstream(folder.path / "config.json") << hugging_face_config(model);
  const std::string text =
      "[job]\ndevices = \"cpu\"\n[data]\nformat = \"random\"\n"
      "[training]\nsteps = 1\nseq_len = 8\nglobal_batch_size = 1\n[model]\n";
  const std::string from = "from_pretrained = \"" + folder.path.string() + "\"\n";
  const JobFileResult result = parse_job(text + from, "job.toml", {});
  check_round_trip(result);
  CHECK(result.job->trainer.model.num_layers == 3);
  CHECK(result.job->trainer.model.vocab_size == 999);
  CHECK(result.job->trainer.model.from_pretrained == folder.path.string());

  const JobFileResult other = parse_job(text + from + "num_layers = 4\nvocab_size = 999\n", "job.toml", {});
  REQUIRE(other.problems.size() == 1);
  CHECK(other.problems[0].line == 11);
  CHECK(parse_job(text + from + "preset = \"llama-1b\"\n", "job.toml", {}).problems.size() == 1);
  CHECK(parse_job(text + "from_pretrained = \"no-such-folder\"\n", "job.toml", {}).problems.size() == 1);
}

TEST_CASE("auto values are worked out and explained") {
  const JobFileResult result = parse_job(valid_text(), "job.toml", {});
  INFO(all_problems(result));
  REQUIRE(result.job.has_value());
  const auto& trainer = result.job->trainer;
  CHECK(trainer.parallel.data == 2);
  CHECK(trainer.training.micro_batch_size == 4);
  CHECK(trainer.model.num_key_value_heads == 4);
  CHECK(trainer.model.head_dim == 16);
  CHECK(trainer.model.intermediate_size == 256);
  CHECK(trainer.model.max_position_embeddings == 32);
  CHECK_FALSE(trainer.model.tie_word_embeddings);
  CHECK(result.job->notes.size() >= 3);
}
