#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

#include "tests/trainer/engine/tiny_job.hpp"

#include "tests/catch.hpp"   // last: c10 defines CHECK, too

namespace mds::trainer {
namespace {

uint64_t fresh_seed() { return std::random_device{}(); }

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

struct Layout {
  int tensor, pipeline, data;
  bool sequence_parallel;
  int micro_batch_size;
};

TrainerConfig with_layout(TrainerConfig config, const Layout& layout, const std::string& checkpoints) {
  config.parallel.tensor = layout.tensor;
  config.parallel.pipeline = layout.pipeline;
  config.parallel.data = layout.data;
  config.parallel.sequence_parallel = layout.sequence_parallel;
  config.training.micro_batch_size = layout.micro_batch_size;
  config.checkpoint.folder = checkpoints;
  return config;
}

}  // namespace

TEST_CASE("every layout has the loss curve of a single rank", "[engine][training]") {
  const uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  const JobOptions in_float64{at::kDouble, {}};
  for (auto architecture : {Architecture::llama, Architecture::gpt3}) {
    TemporaryFolder folder;
    const TrainerConfig single = tiny_config(architecture, folder / "single", seed);
    const JobResult expected = run_job(single, in_float64);
    REQUIRE(expected.error == "");
    REQUIRE(expected.values("loss").size() == 6);
    CHECK(expected.values("loss").front() == Approx(std::log(50)).epsilon(0.05));
    int number = 0;
    for (const Layout& layout : {Layout{2, 2, 2, true, 1}, Layout{2, 1, 2, false, 2}, Layout{1, 4, 1, false, 1}}) {
      INFO(to_string(architecture) << ", tensor " << layout.tensor << ", pipeline " << layout.pipeline << ", data "
                                   << layout.data);
      const auto config = with_layout(single, layout, folder / std::to_string(number++));
      const JobResult result = run_job(config, in_float64);
      REQUIRE(result.error == "");
      CHECK(largest_difference(result.values("loss"), expected.values("loss")) < 1e-9);
      CHECK(largest_difference(result.values("grad_norm"), expected.values("grad_norm")) < 1e-9);
      CHECK(largest_difference(result.values("validation_loss"), expected.values("validation_loss")) < 1e-9);
      // Known from the second step on, and only where there are stages.
      CHECK(result.values("pipeline_bubble").size() == (layout.pipeline > 1 ? 5 : 0));
      for (const double bubble : result.values("pipeline_bubble")) CHECK((bubble > 0 && bubble < 1));
    }
  }
}

TEST_CASE("same run, same bits: again, ZeRO-0 and ZeRO-1, gpipe and 1F1B", "[engine][training]") {
  const uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  TemporaryFolder folder;
  auto precision = GENERATE(Precision::fp32, Precision::bf16);
  TrainerConfig config = with_layout(tiny_config(Architecture::llama, "", seed), {2, 2, 2, true, 1}, folder / "a");
  config.training.precision = precision;
  const JobResult first = run_job(config);
  REQUIRE(first.error == "");
  config.checkpoint.folder = folder / "b";
  config.zero.stage = 0;
  config.parallel.schedule = Schedule::gpipe;
  const JobResult second = run_job(config);
  REQUIRE(second.error == "");
  REQUIRE(first.values("loss").size() == 6);
  CHECK(first.values("loss") == second.values("loss"));
  CHECK(first.values("grad_norm") == second.values("grad_norm"));
  CHECK(first.values("validation_loss") == second.values("validation_loss"));
}

TEST_CASE("a killed and resumed run ends like an undisturbed one", "[engine][training]") {
  const uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  TemporaryFolder folder;
  const Layout layout{2, 1, 2, false, 1};
  TrainerConfig config = with_layout(tiny_config(Architecture::llama, "", seed), layout, folder / "undisturbed");
  config.checkpoint.interval = 2;
  const JobResult undisturbed = run_job(config);
  REQUIRE(undisturbed.error == "");

  config.checkpoint.folder = folder / "killed";
  JobOptions dying;
  dying.on_beat = [](int rank, uint64_t step, LocalControl&) {
    if (rank == 3 && step == 3) throw std::runtime_error("killed");
  };
  const JobResult killed = run_job(config, dying);
  CHECK(killed.error != "");
  const JobResult resumed = run_job(config);
  REQUIRE(resumed.error == "");
  CHECK(resumed.values<std::string>("resumed_from") == std::vector<std::string>{"step-00000002"});
  const auto all = undisturbed.values("loss");
  CHECK(resumed.values("loss") == std::vector<double>(all.begin() + 2, all.end()));
  CHECK(resumed.values("validation_loss") == undisturbed.values("validation_loss"));

  SECTION("a damaged checkpoint is passed over") {
    for (const char* name : {"step-00000006", "step-00000004"}) {
      for (const auto& entry : std::filesystem::directory_iterator(folder / (std::string("killed/") + name))) {
        if (entry.path().extension() != ".safetensors") continue;
        std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(entry.path()) - 9));
        file.put('x').put('y');
        if (std::string(name) == "step-00000006") break;      // one file is enough
      }
    }
    config.training.steps = 8;
    const JobResult again = run_job(config);
    // Two are kept and both are damaged: there is nothing to go on from.
    CHECK(again.error.find("corrupt") == 0);
    CHECK(again.said.size() == 2);
  }
  SECTION("the newest damaged, the one before it good") {
    std::filesystem::resize_file(folder / "killed/step-00000006/rank-00001.safetensors", 100);
    const JobResult again = run_job(config);
    REQUIRE(again.error == "");
    CHECK(again.values<std::string>("resumed_from") == std::vector<std::string>{"step-00000004"});
    CHECK(again.values<std::string>("damaged").size() == 1);
    CHECK(again.values("validation_loss") == undisturbed.values("validation_loss"));
  }
}

TEST_CASE("any layout goes on from any other's checkpoint", "[engine][training]") {
  const uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  TemporaryFolder folder;
  const JobOptions in_float64{at::kDouble, {}};
  const auto architecture = GENERATE(Architecture::llama, Architecture::bloom);
  TrainerConfig config = tiny_config(architecture, folder / "single", seed);
  config.checkpoint.interval = 3;
  config.checkpoint.keep = 0;
  const JobResult single = run_job(config, in_float64);
  REQUIRE(single.error == "");
  const auto all = single.values("loss");
  TrainerConfig other = with_layout(config, {2, 2, 2, false, 1}, folder / "other");
  other.checkpoint.load = folder / "single/step-00000003";
  const JobResult resumed = run_job(other, in_float64);
  REQUIRE(resumed.error == "");
  CHECK(largest_difference(resumed.values("loss"), {all.begin() + 3, all.end()}) < 1e-9);
  // And back, to ZeRO-0 on three stages.
  TrainerConfig back = with_layout(config, {1, 3, 2, false, 2}, folder / "back");
  back.zero.stage = 0;
  back.training.steps = 8;
  back.lr_schedule.decay = "constant";
  back.checkpoint.load = folder / "other/step-00000006";
  const JobResult returned = run_job(back, in_float64);
  REQUIRE(returned.error == "");
  config.training.steps = 8;
  config.lr_schedule.decay = "constant";
  config.checkpoint.load = folder / "single/step-00000006";
  config.checkpoint.folder = folder / "alone";
  CHECK(largest_difference(returned.values("loss"), run_job(config, in_float64).values("loss")) < 1e-9);
}

TEST_CASE("requests: a checkpoint now, and a stop at the next step", "[engine][training]") {
  TemporaryFolder folder;
  const Layout layout{1, 2, 2, false, 2};
  const TrainerConfig config = with_layout(tiny_config(Architecture::llama, ""), layout, folder / "c");
  JobOptions options;
  // Each request reaches one rank only, as the network may have it.
  options.on_beat = [](int rank, uint64_t step, LocalControl& control) {
    if (rank == 1 && step == 1) control.requests.checkpoint_now = true;
    if (rank == 2 && step == 3) control.requests.stop = true;
  };
  const JobResult result = run_job(config, options);
  REQUIRE(result.error == "");
  CHECK(result.outcomes == std::vector<Outcome>(4, Outcome::stopped));
  CHECK(result.values<std::string>("checkpoint") == std::vector<std::string>{"step-00000002", "step-00000004"});
  CHECK(result.values("loss").size() == 4);
  CHECK(result.values<bool>("done").empty());
  const JobResult rest = run_job(config);
  REQUIRE(rest.error == "");
  CHECK(rest.values<bool>("done").size() == 1);
  CHECK(rest.values("loss").size() == 2);
}

TEST_CASE("a checkpoint that cannot be written is reported and the run goes on", "[engine][training]") {
  TemporaryFolder folder;
  TrainerConfig config = with_layout(tiny_config(Architecture::llama, ""), {1, 1, 2, false, 1}, folder / "c");
  config.checkpoint.interval = 2;
  JobOptions options;
  // A file where the folder of the next checkpoint is to be made.
  options.on_beat = [&](int rank, uint64_t step, LocalControl&) {
    if (rank != 0) return;
    if (step == 1) std::ofstream(folder / "c") << "in the way";
    if (step == 3) std::filesystem::remove(folder / "c");
  };
  const JobResult result = run_job(config, options);
  REQUIRE(result.error == "");
  CHECK(result.values<std::string>("checkpoint_error").size() == 1);
  CHECK(result.values<std::string>("checkpoint") == std::vector<std::string>{"step-00000004", "step-00000006"});
  CHECK(result.values("loss").size() == 6);
}

TEST_CASE("what the engine cannot do is bad input", "[engine]") {
  TemporaryFolder folder;
  TrainerConfig config = tiny_config(Architecture::llama, folder / "c");
  config.training.precision = Precision::fp8;
  CHECK(run_job(config).error.find("bad_input: training.precision") == 0);
  config = tiny_config(Architecture::llama, folder / "c");
  config.zero.stage = 3;
  CHECK(run_job(config).error.find("bad_input: zero.stage") == 0);
  config = tiny_config(Architecture::llama, folder / "c");
  config.checkpoint.load = folder / "nowhere";
  CHECK(run_job(config).error.find("bad_input") == 0);
}

}  // namespace mds::trainer
