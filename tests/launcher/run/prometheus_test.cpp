#include "launcher/prometheus.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "launcher/run_curves.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;
using nlohmann::json;

namespace {

StepMetrics step(int64_t number, double seconds, uint32_t attempt = 1) {
  return {.step = number, .attempt = attempt, .loss = 2.5, .tokens = 1000, .seconds = seconds};
}

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("figures for Prometheus: counters only grow, buckets are cumulative, labels are escaped", "[prometheus]") {
  RunCounters counters;
  for (const double seconds : {0.02, 0.2, 0.2, 5.0, 1000.0}) counters.on_metrics(step(1, seconds));
  counters.on_metrics({.step = 5, .attempt = 1, .validation_loss = 3.25});
  counters.on_metrics({.step = 2, .attempt = 2, .loss = NAN, .tokens = 1000, .seconds = 0.5});
  counters.on_checkpoint(1.5e9);
  const json status{{"state", "running"}, {"attempt", 2}, {"restarts", 1}, {"step", 2}, {"steps", 100},
                    {"nodes", {{{"state", "joined"}, {"heard_s", 0.25}}}},
                    {"ranks", {{{"state", "running"}, {"beat_s", 0.5}}, {{"state", "exited with code 3"}}}}};
  const std::string text = prometheus_text(counters, status, "a \"b\" \\ c", "run-1", 1.25e9);
  for (const char* line :
       {"mds_run_info{job_name=\"a \\\"b\\\" \\\\ c\",run=\"run-1\"} 1", "mds_run_state{state=\"running\"} 1",
        "mds_run_state{state=\"ended\"} 0", "mds_step 2", "mds_steps_planned 100", "mds_steps_total 6",
        "mds_tokens_total 6000", "mds_step_duration_seconds_bucket{le=\"0.03\"} 1",
        "mds_step_duration_seconds_bucket{le=\"0.3\"} 3", "mds_step_duration_seconds_bucket{le=\"600\"} 5",
        "mds_step_duration_seconds_bucket{le=\"+Inf\"} 6", "mds_step_duration_seconds_count 6", "mds_loss NaN",
        "mds_validation_loss 3.25", "mds_restarts_total 1", "mds_ranks{state=\"ended\"} 1",
        "mds_ranks{state=\"running\"} 1", "mds_node_silence_max_seconds 0.25", "mds_rank_heartbeat_age_max_seconds 0.5",
        "mds_checkpoints_total 1", "mds_checkpoint_last_timestamp_seconds 1.5e+09",
        "mds_run_start_time_seconds 1.25e+09"}) {
    INFO(line);
    CHECK(has_line(text, line));
  }
  CHECK(text.find("mds_learning_rate") == std::string::npos);  // was never reported
  CHECK(text.find("mds_model_flops_utilization_ratio") == std::string::npos);
}

TEST_CASE("curves keep few points of many steps, and the steps of the newest attempt", "[curves]") {
  RunCurves curves;
  for (int i = 1; i <= 100'000; ++i) curves.add(step(i, 0.1));
  json data = curves.to_json();
  CHECK(data["loss"].size() <= RunCurves::kPointsMax);
  CHECK(data["loss"].size() >= RunCurves::kPointsMax / 2);
  CHECK(data["loss"][0][0] == 1);
  CHECK(data["loss"].back()[0] > 99'000);
  CHECK(data["tokens_per_second"][0][1] == 10'000.0);
  CHECK(data["restarts"].empty());
  curves.add(step(50'001, 0.1, 2));
  curves.add(step(99'999, 0.1, 1));  // a straggler
  data = curves.to_json();
  CHECK(data["restarts"] == json{50'001});
  CHECK(data["loss"].back()[0] <= 50'001);
  for (size_t i = 1; i < data["loss"].size(); ++i) REQUIRE(data["loss"][i - 1][0] < data["loss"][i][0]);
  RunCurves broken;
  broken.add({.step = 1, .attempt = 1, .loss = NAN});
  CHECK(broken.to_json()["loss"].dump() == "[[1,null]]");
}
