#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>

#include <nlohmann/json.hpp>

#include "launcher/metrics.hpp"
#include "launcher/metrics_files.hpp"
#include "launcher/metrics_tensorboard.hpp"
#include "tests/agent/random_seed.hpp"
#include "tests/agent/temporary_folder.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;
using nlohmann::json;

namespace {

StepMetrics step(int64_t number, uint32_t attempt, double loss) {
  return StepMetrics{.step = number, .attempt = attempt, .loss = loss};
}

json progress(int64_t number, double loss) {
  return {{"step", number}, {"steps", 100}, {"loss", loss}, {"lr", 1e-3}, {"grad_norm", 0.5}, {"tokens", 4096},
          {"seconds", 0.25}, {"consumed_samples", number * 8}};
}

std::vector<json> json_lines(std::istream& in) {
  std::vector<json> lines;
  std::string line;
  while (std::getline(in, line)) lines.push_back(json::parse(line));
  return lines;
}

/// What the independent reader in Python finds in TensorBoard's folder.
std::vector<json> read_back(const std::string& folder) {
  const auto script = std::filesystem::path(__FILE__).parent_path() / "read_tfevents.py";
  FILE* pipe = popen(("python3 '" + script.string() + "' '" + folder + "' 2>&1").c_str(), "r");
  REQUIRE(pipe);
  std::string text;
  char buffer[4096];
  while (size_t n = fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, n);
  INFO(text);
  REQUIRE(pclose(pipe) == 0);
  std::istringstream in(text);
  return json_lines(in);
}

}  // namespace

TEST_CASE("metrics: a later attempt supersedes what earlier ones said of its steps and of those behind") {
  MetricsHistory history;
  for (int i = 1; i <= 10; ++i) history.add(step(i, 1, 10.0 - i));
  history.resume(2, 6);
  CHECK(history.steps().size() == 6);
  history.add(step(7, 2, 70));
  history.add(step(9, 1, 90));  // a straggler of the first attempt: the next line drops it
  history.add(step(8, 2, 80));
  CHECK(history.steps().count(9) == 0);
  CHECK(history.steps().at(7).loss == 70);
  CHECK(history.steps().at(6).loss == 4);
  CHECK(history.last_loss() == 80);
  CHECK(history.resumed_at() == std::vector<int64_t>{6});

  SECTION("an attempt that starts anew drops everything, also without saying that it resumed") {
    history.add(step(1, 3, 5));
    CHECK(history.steps().size() == 1);
  }
  SECTION("validation joins the step's training loss") {
    StepMetrics validation{.step = 8, .attempt = 2, .validation_loss = 3.25, .seconds = 9.0};
    history.add(validation);
    CHECK(history.steps().at(8).loss == 80);
    CHECK(history.last_validation_loss() == 3.25);
    CHECK(!history.steps().at(8).seconds);
  }
}

TEST_CASE("metrics: the table has every bit of a loss") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  MetricsHistory history;
  std::vector<double> losses;
  for (int i = 1; i <= 50; ++i) {
    losses.push_back(std::uniform_real_distribution<>(0, 12)(random));
    history.add(step(i, 1, losses.back()));
  }
  std::istringstream csv(history.csv());
  std::string line;
  std::getline(csv, line);
  CHECK(line.rfind("step,attempt,loss,validation_loss", 0) == 0);
  for (const double loss : losses) {
    REQUIRE(std::getline(csv, line));
    const size_t begin = line.find(',', line.find(',') + 1) + 1;
    CHECK(std::stod(line.substr(begin)) == loss);
  }
}

TEST_CASE("metrics: what is no step's number is refused") {
  for (const char* text : {"{}", "[]", "7", "{\"step\":1}", "{\"step\":-1,\"loss\":1}", "{\"step\":\"a\",\"loss\":1}",
                           "{\"loss\":1}", "{\"step\":1,\"loss\":\"x\"}", "{\"step\":1.5,\"loss\":{}}"}) {
    INFO(text);
    CHECK(!step_metrics_from_json(json::parse(text), 1));
  }
  const auto nan = step_metrics_from_json(json::parse("{\"step\":3,\"loss\":null}"), 1);
  REQUIRE(nan);
  CHECK(std::isnan(*nan->loss));
}

TEST_CASE("metrics: files keep every record with its attempt") {
  TemporaryFolder temporary;
  const RunFolder folder = RunFolder::named(temporary.path(), "job", 0, "id");
  REQUIRE(folder.make().ok());
  MetricsConfig config;
  config.interval = 5;
  {
    MetricsFiles files(folder, config);
    for (int i = 1; i <= 12; ++i) REQUIRE(files.add(progress(i, 5.0 / i), 1, 100.0 + i).ok());
    REQUIRE(files.add({{"resumed_from", "step-00000010"}, {"step", 10}}, 2, 200).ok());
    REQUIRE(files.add(progress(11, 1.0), 2, 201).ok());
    REQUIRE(files.add({{"step", 11}, {"validation_loss", 2.5}}, 2, 202).ok());
    CHECK(files.history().steps().size() == 11);
    CHECK(files.history().steps().at(11).loss == 1.0);
  }
  std::ifstream in(folder.file("metrics.jsonl"));
  const std::vector<json> lines = json_lines(in);
  std::vector<std::pair<int, int>> said;
  for (const json& line : lines) said.emplace_back(line["attempt"], line["step"]);
  CHECK(said == std::vector<std::pair<int, int>>{{1, 5}, {1, 10}, {2, 10}, {2, 11}});
  CHECK(lines[0]["loss"].get<double>() == 1.0);
}

TEST_CASE("metrics: a payload that reports nothing leaves no files") {
  TemporaryFolder temporary;
  const RunFolder folder = RunFolder::named(temporary.path(), "job", 0, "id");
  REQUIRE(folder.make().ok());
  { MetricsFiles files(folder, {}); }
  CHECK(!std::filesystem::exists(folder.file("metrics.jsonl")));
  CHECK(std::filesystem::is_empty(folder.file("tensorboard")));
}

TEST_CASE("metrics: crc32c has the values of RFC 3720, B.4") {
  CHECK(crc32c("123456789") == 0xe3069283u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aau);
  CHECK(crc32c(std::string(32, '\xff')) == 0x62a8ab43u);
  CHECK(crc32c("") == 0u);
}

TEST_CASE("metrics: TensorBoard's files are read back by a reader that knows only the format") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  TemporaryFolder temporary;
  const RunFolder folder = RunFolder::named(temporary.path(), "job", 0, "id");
  REQUIRE(folder.make().ok());
  std::vector<float> losses;
  {
    MetricsFiles files(folder, {});
    for (int i = 1; i <= 20; ++i) {
      const double loss = std::uniform_real_distribution<>(-1e3, 1e3)(random);
      losses.push_back(static_cast<float>(loss));
      REQUIRE(files.add(progress(i * 1000, loss), i <= 15 ? 1 : 2, 1e9 + i).ok());
    }
    REQUIRE(files.add({{"step", 20000}, {"validation_loss", 0.5}}, 2, 1e9 + 21).ok());
  }
  const std::vector<json> events = read_back(folder.file("tensorboard"));
  REQUIRE(events.size() == 2 + 15 + 2 + 6);
  CHECK(events[0]["file_version"] == "brain.Event:2");
  CHECK(events[1]["session_status"] == 1);
  CHECK(events[1]["step"] == 1000);
  CHECK(events[18]["session_status"] == 1);   // TensorBoard drops what the first file said of this step and later ones
  CHECK(events[18]["step"] == 16000);
  size_t i = 0;
  for (const json& event : events) {
    if (!event.contains("scalars") || !event["scalars"].contains("loss")) continue;
    CHECK(event["step"] == 1000 * (i + 1));
    CHECK(event["wall_time"] == 1e9 + static_cast<double>(i + 1));
    CHECK(event["scalars"]["loss"].get<float>() == losses[i]);
    CHECK(event["scalars"]["tokens_per_second"] == 16384.0);
    CHECK(event["scalars"]["grad_norm"] == 0.5);
    CHECK(event["scalars"]["lr"].get<float>() == 1e-3f);
    ++i;
  }
  CHECK(i == losses.size());
  CHECK(events.back()["scalars"]["validation_loss"] == 0.5);
}
