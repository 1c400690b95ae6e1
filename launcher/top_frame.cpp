#include "launcher/top_frame.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <tuple>

#include "launcher/run_status.hpp"
#include "launcher/view.hpp"

namespace mds::launcher {

using nlohmann::json;

namespace {

constexpr size_t kEventsMax = 5;

std::string row(const std::string& rank, const std::string& node, const std::string& state, const std::string& step,
                const std::string& beat, const std::string& pid, const std::string& host) {
  char text[256];
  std::snprintf(text, sizeof text, "%6s %5s  %-22.22s %9s %10s %9s  %s", rank.c_str(), node.c_str(), state.c_str(),
                step.c_str(), beat.c_str(), pid.c_str(), host.substr(0, 100).c_str());
  return text;
}

std::string number(const json& object, const char* name) {
  return object.contains(name) ? object[name].dump() : "-";
}

/// Small for those that want to be looked at.
std::tuple<bool, int64_t, double, int> calm(const json& rank) {
  return {rank.value("state", "") == "running", rank.value("step", int64_t{0}), -rank.value("beat_s", 0.0),
          rank.value("rank", 0)};
}

std::vector<std::string> rank_rows(const json& status, size_t rows) {
  std::vector<const json*> ranks;
  for (const json& rank : status["ranks"]) ranks.push_back(&rank);
  std::sort(ranks.begin(), ranks.end(), [](const json* a, const json* b) { return calm(*a) < calm(*b); });
  std::vector<std::string> out{row("RANK", "NODE", "STATE", "STEP", "HEARTBEAT", "PID", "HOST")};
  const size_t shown = ranks.size() < rows ? ranks.size() : rows >= 2 ? rows - 2 : 0;
  for (size_t i = 0; i < shown; ++i) {
    const json& rank = *ranks[i];
    const json& node = status["nodes"].at(rank["node"].get<size_t>());
    out.push_back(row(number(rank, "rank"), number(rank, "node"), rank.value("state", ""), number(rank, "step"),
                      rank.contains("beat_s") ? human_seconds(rank["beat_s"].get<double>()) : "-",
                      number(rank, "pid"), node.value("host", "")));
  }
  if (shown < ranks.size()) out.push_back("  and " + std::to_string(ranks.size() - shown) + " ranks more");
  return out;
}

std::vector<std::string> event_rows(const json& status, size_t rows) {
  std::vector<std::string> out;
  const json events = status.value("events", json::array());
  const double now = status.value("seconds", 0.0);
  for (size_t i = events.size() - std::min(rows, events.size()); i < events.size(); ++i) {
    out.push_back(human_seconds(now - events[i].value("at_s", 0.0)) + " ago: " + events[i].value("text", ""));
  }
  return out;
}

/// Cut to columns; a character of several bytes is never cut in two.
std::string fitted(const std::string& text, int columns) {
  int used = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool begins = (static_cast<unsigned char>(text[i]) & 0xc0) != 0x80;
    if (begins && ++used > columns) return text.substr(0, i);
  }
  return text;
}

}  // namespace

std::vector<std::string> top_frame(const json& status, int columns, int rows) {
  std::vector<std::string> lines = status_head(status);
  if (const int64_t steps = status.value("steps", int64_t{0}); steps > 0 && status.contains("step")) {
    const int64_t step = status["step"];
    Progress progress{.step = step, .steps = steps};
    if (const double rate = status.value("steps_per_second", 0.0); rate > 0 && status.value("in_progress", false)) {
      progress.seconds_left = static_cast<double>(steps - step) / rate;
    }
    lines.push_back(progress_line(progress, columns));
  }
  lines.push_back("");
  const size_t height = static_cast<size_t>(std::max(rows, 1));
  const std::vector<std::string> events = event_rows(status, height > 16 ? kEventsMax : 1);
  const size_t taken = lines.size() + events.size() + 2;
  if (height > taken) {
    const std::vector<std::string> ranks = rank_rows(status, height - taken);
    lines.insert(lines.end(), ranks.begin(), ranks.end());
    lines.push_back("");
  }
  lines.insert(lines.end(), events.begin(), events.end());
  if (lines.size() > height) lines.resize(height);
  for (std::string& line : lines) line = fitted(line, columns);
  return lines;
}

}  // namespace mds::launcher
