#include "launcher/top_frame.hpp"

#include <nlohmann/json.hpp>
#include <random>

#include "tests/agent/random_seed.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;
using nlohmann::json;

namespace {

json status(int nodes, int ranks) {
  json out{{"run", "job-1"}, {"in_progress", true}, {"state", "running"}, {"seconds", 100.0}, {"attempt", 2},
           {"restarts", 1},  {"step", 50},          {"steps", 100},       {"steps_per_second", 0.5}, {"loss", 2.5}};
  for (int n = 0; n < nodes; ++n) {
    out["nodes"].push_back({{"node", n}, {"state", "joined"}, {"since_s", 9.0}, {"host", "h" + std::to_string(n)}});
  }
  for (int r = 0; r < ranks; ++r) {
    out["ranks"].push_back({{"rank", r}, {"node", r % nodes}, {"state", "running"}, {"since_s", 9.0},
                            {"step", 50},  {"beat_s", 0.1},     {"pid", 1000 + r}});
  }
  out["events"] = {{{"at_s", 40.0}, {"text", "checkpoint step-40"}}, {{"at_s", 90.0}, {"text", "all ranks run"}}};
  return out;
}

}  // namespace

TEST_CASE("top shows first who wants to be looked at", "[top]") {
  json s = status(2, 4);
  s["ranks"][1]["step"] = 49;
  s["ranks"][2]["state"] = "killed by SIGKILL";
  s["ranks"][3]["beat_s"] = 7.0;
  const auto lines = top_frame(s, 100, 30);
  CHECK(lines[0] == "job-1: running, attempt 2, 1 restart, for 1 min 40 s");
  CHECK(lines[1] == "step 50 of 100, 0.5 steps/s, loss 2.5000");
  CHECK(lines[2] == "step 50/100  [==========          ]  50 %  1 min 40 s left");
  CHECK(lines[4] == "  RANK  NODE  STATE                       STEP  HEARTBEAT       PID  HOST");
  CHECK(lines[5] == "     2     0  killed by SIGKILL             50     100 ms      1002  h0");
  CHECK(lines[6].rfind("     1     1  running                       49", 0) == 0);
  CHECK(lines[7].rfind("     3     1  running                       50      7.0 s", 0) == 0);
  CHECK(lines[8].rfind("     0 ", 0) == 0);
  CHECK(lines[10] == "1 min 00 s ago: checkpoint step-40");
  CHECK(lines[11] == "10.0 s ago: all ranks run");
}

TEST_CASE("top fits every size of a terminal, and counts what it leaves out", "[top]") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 500; ++i) {
    const int ranks = 1 + static_cast<int>(random() % 40), columns = 1 + static_cast<int>(random() % 150);
    const int rows = 1 + static_cast<int>(random() % 50);
    INFO(ranks << " ranks, " << columns << " x " << rows);
    const auto lines = top_frame(status(1 + ranks / 4, ranks), columns, rows);
    CHECK(static_cast<int>(lines.size()) <= rows);
    int shown = 0, left_out = 0;
    for (const std::string& line : lines) {
      CHECK(static_cast<int>(line.size()) <= columns);
      shown += line.find(" running ") != std::string::npos && line.find("attempt") == std::string::npos;
      std::sscanf(line.c_str(), "  and %d ranks", &left_out);
    }
    if (rows > 10 && columns > 40) CHECK(shown + left_out == ranks);
  }
  json wide = status(1, 1);
  wide["events"] = {{{"at_s", 90.0}, {"text", "größer"}}};
  const auto lines = top_frame(wide, 16, 20);
  CHECK(lines.back() == "10.0 s ago: größ");
}
