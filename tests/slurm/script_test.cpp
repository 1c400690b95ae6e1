// Batch scripts: what they say, what is refused, and that bash reads back the words that went in.
#include "slurm/script.hpp"

#include <cstdio>
#include <random>

#include "tests/catch.hpp"

using namespace mds::slurm;

namespace {

BatchScript sample() {
  BatchScript script;
  script.job_name = "train";
  script.nodes = "2-4";
  script.gpus_per_node = 8;
  script.time = "1-00:00:00";
  script.partition = "gpu";
  script.signal_before_end_s = 120;
  script.output_dir = "/runs";
  script.working_dir = "/home/me/my project";
  script.notes = {"A note."};
  script.setup = {"module load cuda"};
  script.extra = {"--qos=high"};
  script.command = {"/opt/mdslaunch", "run", "--set", "job.env={A=\"it's\"}", "/home/me/job.toml"};
  return script;
}

std::string text(const BatchScript& script) {
  const auto made = batch_script(script);
  REQUIRE(made.ok());
  return *made;
}

std::string output_of(const std::string& program) {
  std::string out;
  FILE* pipe = popen(program.c_str(), "r");
  REQUIRE(pipe != nullptr);
  char chunk[256];
  while (const size_t n = std::fread(chunk, 1, sizeof chunk, pipe)) out.append(chunk, n);
  REQUIRE(pclose(pipe) == 0);
  return out;
}

}  // namespace

TEST_CASE("a script has its options before its first command") {
  const std::string script = text(sample());
  INFO(script);
  CHECK(script.starts_with("#!/bin/bash\n# A note.\n"));
  for (const char* line : {"#SBATCH --job-name=train\n", "#SBATCH --nodes=2-4\n", "#SBATCH --gpus-per-node=8\n",
                           "#SBATCH --time=1-00:00:00\n", "#SBATCH --signal=B:USR1@120\n", "#SBATCH --requeue\n",
                           "#SBATCH --exclusive\n", "#SBATCH --qos=high\n", "#SBATCH --output=/runs/%x-%j.out\n"}) {
    INFO(line);
    CHECK(script.find(line) != std::string::npos);
    CHECK(script.find(line) < script.find("set -euo pipefail"));
  }
  CHECK(script.find("cd '/home/me/my project'\nmodule load cuda\n") != std::string::npos);
  CHECK(script.find("exec /opt/mdslaunch run --set 'job.env={A=\"it'\\''s\"}' /home/me/job.toml\n") !=
        std::string::npos);
}

TEST_CASE("an array gives each of its jobs seeds of its own") {
  BatchScript script = sample();
  script.array = "1-8%2";
  script.seeds_from_array = {"training.seed", "data.seed"};
  const std::string made = text(script);
  CHECK(made.find("#SBATCH --array=1-8%2\n") != std::string::npos);
  CHECK(made.find("%x-%A_%a.out") != std::string::npos);
  CHECK(made.find("--set data.seed=\"$SLURM_ARRAY_TASK_ID\"") != std::string::npos);
}

TEST_CASE("nothing leaves its line") {
  const auto refused = [](auto change) {
    BatchScript script = sample();
    change(script);
    return !batch_script(script).ok();
  };
  CHECK(refused([](BatchScript& s) { s.job_name = "a\n#SBATCH --uid=0"; }));
  CHECK(refused([](BatchScript& s) { s.partition = "a\"b"; }));
  CHECK(refused([](BatchScript& s) { s.time = "1:00; rm"; }));
  CHECK(refused([](BatchScript& s) { s.array = "1-8;x"; }));
  CHECK(refused([](BatchScript& s) { s.extra = {"rm -rf"}; }));
  CHECK(refused([](BatchScript& s) { s.extra = {"--a\nrm"}; }));
  CHECK(refused([](BatchScript& s) { s.output_dir = "/a\nb"; }));
  CHECK(refused([](BatchScript& s) { s.setup = {"a\nb"}; }));
}

TEST_CASE("a shell reads back what was quoted") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const std::string letters = "ab0 '\"\\$`!*?;&|<>(){}[]#~\t=,-";
  std::string program = "printf '%s\\0'", expected;
  for (int n = 0; n < 300; ++n) {
    std::string word;
    for (size_t size = random() % 12; size > 0; --size) word += letters[random() % letters.size()];
    program += " " + mds::slurm::quoted(word);
    expected += word + '\0';
  }
  CHECK(output_of(program) == expected);
}
