#include "launcher/view.hpp"

#include <algorithm>
#include <sstream>

#include <nlohmann/json.hpp>

#include "tests/catch.hpp"

using namespace mds::launcher;
using namespace std::chrono_literals;

namespace {

Progress full() {
  return {.step = 150, .steps = 300, .loss = 2.34567, .validation_loss = 2.4, .tokens_per_second = 12345.0,
          .seconds_left = 81.0, .restarts = 1, .max_restarts = 3};
}

struct Screen {
  std::string out, err;
  int columns = 80;

  View view(bool terminal, bool json = false, bool color = false) {
    ViewOptions options;
    options.terminal = terminal;
    options.json = json;
    options.color = color;
    options.raw_output = true;
    options.width = [this] { return columns; };
    options.out = [this](std::string_view text) { out += text; };
    options.err = [this](std::string_view text) { err += text; };
    return View(options);
  }
};

StepMetrics step(int64_t number) {
  return {.step = number, .attempt = 1, .loss = 3.0, .tokens = 1000, .seconds = 0.5};
}

/// What a terminal of `columns` would show: handles the sequences that the view uses.
std::vector<std::string> rendered(const std::string& text, size_t columns) {
  std::vector<std::string> rows{""};
  size_t row = 0, column = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n') {
      ++row, column = 0;
    } else if (text[i] == '\r') {
      column = 0;
    } else if (text.compare(i, 3, "\033[K") == 0) {
      rows[row].resize(std::min(column, rows[row].size()));
      i += 2;
    } else if (text.compare(i, 3, "\033[?") == 0) {
      i += 4;  // wrapping off and on: lines are short enough here
    } else if (text.compare(i, 3, "\033[J") == 0) {
      rows.resize(row + 1);
      rows[row].resize(std::min(column, rows[row].size()));
      i += 2;
    } else if (text[i] == '\033') {
      size_t digits = 0;
      const int up = std::stoi(text.substr(i + 2), &digits);
      REQUIRE(text[i + 2 + digits] == 'A');
      row -= static_cast<size_t>(up);
      i += 2 + digits;
    } else {
      if (column == columns) ++row, column = 0;
      if (row >= rows.size()) rows.resize(row + 1);
      if (column >= rows[row].size()) rows[row].resize(column + 1, ' ');
      rows[row][column++] = text[i];
    }
    if (row >= rows.size()) rows.resize(row + 1);
  }
  return rows;
}

}  // namespace

TEST_CASE("view: the progress line fits every width and keeps the most important") {
  const std::string line = progress_line(full(), 200);
  CHECK(line == "step 150/300  [==========          ]  50 %  loss 2.3457  validation 2.4000  12.3 k tokens/s  "
                "1 min 21 s left  restart 1/3");
  for (int width = 1; width < 140; ++width) {
    const std::string cut = progress_line(full(), width);
    INFO(width << ": " << cut);
    CHECK(static_cast<int>(cut.size()) <= width);
    CHECK(cut.compare(0, std::min<size_t>(width, 12), line, 0, std::min<size_t>(width, 12)) == 0);
    if (width >= 26) CHECK(cut.find("loss 2.3457") != std::string::npos);
    CHECK(cut.find('\n') == std::string::npos);
  }
  CHECK(progress_line({.step = 150, .steps = 300, .loss = 2.5, .tokens_per_second = 7470.0, .seconds_left = 5.5}, 79) ==
        "step 150/300  [=======        ]  50 %  loss 2.5000  7.47 k tokens/s  5.5 s left");
  CHECK(progress_line({.step = 7}, 80) == "step 7");
  CHECK(progress_line({.step = 3, .steps = 4}, 0) == "step 3/4  75 %");
  CHECK(progress_line({.step = 4, .steps = 4, .seconds_left = 0.0}, 0) == "step 4/4  100 %");
}

TEST_CASE("view: numbers have units that people read") {
  CHECK(human_seconds(0.045) == "45 ms");
  CHECK(human_seconds(12.34) == "12.3 s");
  CHECK(human_seconds(59.97) == "1 min 00 s");
  CHECK(human_seconds(200) == "3 min 20 s");
  CHECK(human_seconds(3725) == "1 h 02 min");
  CHECK(human_seconds(-1) == "?");
  CHECK(shell_word("runs/a-1") == "runs/a-1");
  CHECK(shell_word("my job's.toml") == "'my job'\\''s.toml'");
  CHECK(human_count(950) == "950");
  CHECK(human_count(12345) == "12.3 k");
  CHECK(human_count(1.25e6) == "1.25 M");
  CHECK(human_count(999.9) == "1.00 k");
  CHECK(human_count(8.03e9) == "8.03 G");
}

TEST_CASE("view: on a terminal the line is redrawn in place and other lines go above it") {
  Screen screen;
  View view = screen.view(true);
  view.metrics(step(1), 10, 0s);
  view.news("hello");
  view.metrics(step(2), 10, 1s);
  view.output(3, {"from a rank", "bad \033[2J\a control"}, 0);
  view.warning("mind the gap");
  const auto rows = rendered(screen.out, 80);
  REQUIRE(rows.size() == 4);
  CHECK(rows[0] == "hello");
  CHECK(rows[1] == "[3] from a rank");
  CHECK(rows[2] == "[3] bad ?[2J? control");
  CHECK(rows[3].rfind("step 2/10", 0) == 0);
  CHECK(screen.err == "warning: mind the gap\n");
}

TEST_CASE("view: a terminal that became narrower keeps nothing of the wrapped line") {
  Screen screen;
  screen.columns = 100;
  View view = screen.view(true);
  view.metrics(step(1), 10, 0s);
  const size_t before = screen.out.size();
  CHECK(before > 40);
  screen.columns = 20;  // the terminal wraps what is there: rendered() below wraps it from the begin
  view.metrics(step(2), 10, 1s);
  const auto rows = rendered(screen.out, 20);
  CHECK(rows.size() == 1);
  CHECK(rows[0].rfind("step 2/10", 0) == 0);
}

TEST_CASE("view: on a terminal redraws are few") {
  Screen screen;
  View view = screen.view(true);
  for (int i = 1; i <= 1000; ++i) view.metrics(step(i), 10'000, i * 1ms);
  size_t draws = 0;
  for (size_t at = 0; (at = screen.out.find("step ", at)) != std::string::npos; ++at) ++draws;
  CHECK(draws <= 11);
  CHECK(draws >= 9);
}

TEST_CASE("view: in a pipe there are plain lines, one for each tenth or five seconds") {
  Screen screen;
  View view = screen.view(false);
  for (int i = 1; i <= 1000; ++i) view.metrics(step(i), 1000, i * 1ms);
  CHECK(std::count(screen.out.begin(), screen.out.end(), '\n') == 11);
  CHECK(screen.out.find('\033') == std::string::npos);
  CHECK(screen.out.find('\r') == std::string::npos);
  screen.out.clear();
  for (int i = 1; i <= 30; ++i) view.metrics(step(999), 1'000'000, 10s + i * 1s);
  CHECK(std::count(screen.out.begin(), screen.out.end(), '\n') == 6);
}

TEST_CASE("view: in a pipe no step is told twice, not for its validation either") {
  Screen screen;
  View view = screen.view(false);
  view.metrics(step(9), 10, 1s);
  view.metrics(step(10), 10, 2s);
  view.metrics({.step = 10, .attempt = 1, .validation_loss = 2.5}, 10, 3s);
  view.end({.exit_code = 0, .outcome = "done", .facts = {}, .next = {}, .report_json = "{}"});
  CHECK(screen.out ==
        "step 9/10  90 %  loss 3.0000  2.00 k tokens/s\n"
        "step 10/10  100 %  loss 3.0000  2.00 k tokens/s\n"
        "validation 2.5000 after step 10\n"
        "done\n");
}

TEST_CASE("view: MFU stands on the line where the devices' peak is known") {
  for (const double per_token : {0.0, 0.0002}) {
    Screen screen;
    View view = screen.view(false);
    view.begin({"job", "/runs/job", 4, 2, "", 10, 3, "", per_token});
    view.metrics(step(10), 10, 1s);
    CHECK((screen.out.find("MFU 40.0 %") != std::string::npos) == (per_token > 0));
    CHECK((screen.out.find("MFU") != std::string::npos) == (per_token > 0));
  }
}

TEST_CASE("view: the speed is that of the usual step, not of the first one or a hiccup") {
  Screen screen;
  View view = screen.view(false);
  view.begin({"job", "/runs/job", 4, 2, "", 10, 3, "", 0});
  for (int64_t i = 1; i <= 10; ++i) {
    StepMetrics metrics = step(i);
    if (i == 1 || i == 7) metrics.seconds = 20.0;
    view.metrics(metrics, 10, std::chrono::seconds(i));
  }
  CHECK(screen.out.find("step 10/10") != std::string::npos);
  CHECK(screen.out.substr(screen.out.find("step 10/10")).find("2.00 k tokens/s") != std::string::npos);
}

TEST_CASE("view: on a terminal a redraw is one write that never leaves the line blank") {
  Screen screen;
  View view = screen.view(true);
  view.metrics(step(1), 10, 0s);
  screen.out.clear();
  view.metrics(step(2), 10, 1s);
  CHECK(screen.out.rfind("\r\033[?7lstep 2/10", 0) == 0);
  CHECK(screen.out.find("\033[K") > screen.out.find("tokens/s"));
  screen.out.clear();
  view.news("hello");
  CHECK(screen.out.rfind("\rhello\033[K\n\033[?7lstep 2/10", 0) == 0);
}

TEST_CASE("view: colours only where they are wanted") {
  for (const bool color : {false, true}) {
    Screen screen;
    View view = screen.view(true, false, color);
    view.begin({"job", "/runs/job", 4, 2, "tensor 2 x data 2", 10, 3});
    view.end({.exit_code = 1, .outcome = "job failed", .facts = {{"logs", "/runs/job/logs"}}, .next = {},
              .report_json = "{}"});
    CHECK((screen.out.find("\033[3") != std::string::npos) == color);
    CHECK(screen.out.find("job: 4 ranks on 2 nodes (tensor 2 x data 2)") == (color ? std::string::npos : 0));
  }
}

TEST_CASE("view: the end has facts in columns and commands on lines of their own") {
  Screen screen;
  View view = screen.view(false);
  view.begin({"job", "/here/runs/job", 1, 1, "", 10, 3, "runs/job"});
  view.end({.exit_code = 0, .outcome = "job finished in 2.0 s", .facts = {{"loss", "2.5"}, {"run folder", "runs/job"}},
            .next = {{"mdslaunch plan job.toml", "which rank sits where"}}, .report_json = "{}"});
  CHECK(screen.out ==
        "job: 1 rank on 1 node\n"
        "run folder runs/job\n"
        "job finished in 2.0 s\n"
        "  loss        2.5\n"
        "  run folder  runs/job\n"
        "what to try next\n"
        "  which rank sits where:\n"
        "    mdslaunch plan job.toml\n");
}

TEST_CASE("view: the first cause names host, rank, signal and the last lines") {
  Screen screen;
  View view = screen.view(false);
  SupervisorState state;
  state.cause = Cause{.kind = CauseKind::rank_failed, .attempt = 1, .rank = 3, .node = 1, .host = "alpha",
                      .exit_code = {}, .signal = 9, .step = 150, .text = {}, .tail = {"out of luck"},
                      .follow_ups = {"rank 0 on node 0 (alpha) exited with code 1"}};
  view.event({.kind = EventKind::ranks_stopped}, {{.kind = EffectKind::log}, {.kind = EffectKind::report_cause}}, state,
             1s);
  CHECK(screen.err ==
        "first cause: rank 3 on node 1 (alpha) was killed by signal 9 (SIGKILL) after step 150\n"
        "  | out of luck\n"
        "  then rank 0 on node 0 (alpha) exited with code 1\n");
}

TEST_CASE("view: with --json standard output has JSON lines alone") {
  Screen screen;
  View view = screen.view(true, true, true);
  view.begin({"job", "/runs/job", 4, 2, "", 10, 3});
  view.news("text");
  view.warning("text \xff not UTF-8");
  view.metrics(step(1), 10, 1s);
  view.output(0, {"line \xc3"}, 2);
  view.event({.kind = EventKind::agent_joined, .node = 0, .host = "a"}, {{.kind = EffectKind::log}}, {}, 1s);
  view.end({.exit_code = 0, .outcome = "x", .facts = {}, .next = {}, .report_json = "{\"type\":\"report\"}"});
  std::istringstream in(screen.out);
  std::string line, types;
  while (std::getline(in, line)) types += nlohmann::json::parse(line).at("type").get<std::string>() + " ";
  CHECK(types == "begin news warning progress output event report ");
  CHECK(screen.err.empty());
}
