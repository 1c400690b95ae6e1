#include "launcher/run_status.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "launcher/event_log.hpp"
#include "launcher/head_status.hpp"
#include "launcher/rank_set.hpp"
#include "launcher/view.hpp"
#include "slurm/host_list.hpp"

namespace mds::launcher {

using nlohmann::json;

namespace {

json read_json(const std::string& path) {
  std::ifstream file(path);
  return json::parse(file, nullptr, /*allow_exceptions=*/false);
}

/// Of a run that has ended, or whose head does not answer: what the files say.
Result<json> status_from_files(const RunFolder& folder, bool in_progress) {
  auto log = read_event_log(folder.file("events.jsonl"));
  if (!log) return log.error();
  json status = status_of(*log);
  const json report = read_json(folder.file("report.json"));
  if (report.is_object()) {
    for (const char* name : {"outcome", "exit_code", "verdict", "loss", "tokens_per_second", "seconds"}) {
      if (report.contains(name) && !report[name].is_null()) status[name] = report[name];
    }
  } else if (!in_progress && status["state"] != "ended") {
    status["outcome"] = "mdslaunch died";
  }
  status["in_progress"] = in_progress;
  return status;
}

std::string ago(const json& object, const char* name) {
  return object.contains(name) ? human_seconds(object[name].get<double>()) : "?";
}

std::string plural(size_t n, const std::string& word) { return std::to_string(n) + " " + word + (n == 1 ? "" : "s"); }

std::string formatted(const char* pattern, double value) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, value);
  return text;
}

void add_nodes(const json& s, std::vector<std::string>& lines) {
  struct Same {
    std::vector<int> nodes;
    std::vector<std::string> hosts;
    double since = 1e18, heard = 0;
  };
  std::map<std::string, Same> by_state;
  for (const json& node : s["nodes"]) {
    Same& same = by_state[node["state"]];
    same.nodes.push_back(node["node"]);
    if (node.contains("host")) same.hosts.push_back(node["host"]);
    same.since = std::min(same.since, node["since_s"].get<double>());
    same.heard = std::max(same.heard, node.value("heard_s", 0.0));
  }
  for (const auto& [state, same] : by_state) {
    std::string line = (same.nodes.size() == 1 ? "node " : "nodes ") + number_ranges(same.nodes) + ": " + state;
    std::vector<std::string> hosts = same.hosts;
    hosts.erase(std::unique(hosts.begin(), hosts.end()), hosts.end());
    if (!hosts.empty()) line += " on " + slurm::fold_hosts(hosts);
    line += " for " + human_seconds(same.since);
    if (state == "joined" && s.value("in_progress", false)) line += ", heard of " + human_seconds(same.heard) + " ago";
    lines.push_back(line);
  }
}

void add_ranks(const json& s, std::vector<std::string>& lines) {
  struct Same {
    std::vector<int> ranks;
    double since = 1e18, beat = 0;
    bool beats = false;
  };
  std::map<std::tuple<std::string, int64_t>, Same> groups;
  for (const json& rank : s["ranks"]) {
    Same& same = groups[{rank["state"], rank.value("step", int64_t{-1})}];
    same.ranks.push_back(rank["rank"]);
    same.since = std::min(same.since, rank["since_s"].get<double>());
    same.beats = same.beats || rank.contains("beat_s");
    same.beat = std::max(same.beat, rank.value("beat_s", 0.0));
  }
  for (const auto& [what, same] : groups) {
    const auto& [state, step] = what;
    std::string line = (same.ranks.size() == 1 ? "rank " : "ranks ") + number_ranges(same.ranks) + ": " + state;
    if (step >= 0) line += " at step " + std::to_string(step);
    line += ", for " + human_seconds(same.since);
    if (same.beats) line += ", heartbeat " + human_seconds(same.beat) + " ago";
    lines.push_back(line);
  }
}

}  // namespace

Result<json> live_status(const RunFolder& folder, ControlClient& client) {
  auto status = client.ask({{"command", "status"}});
  if (!status) return status;
  (*status)["in_progress"] = true;
  (*status)["run"] = folder.id();
  (*status)["folder"] = folder.path();
  return status;
}

Result<json> status_of_run(const RunFolder& folder, std::string& problem) {
  const bool in_progress = is_being_written(folder.file("events.jsonl"));
  auto client = ControlClient::connect(folder);
  auto live = client ? live_status(folder, **client) : Result<json>(client.error());
  if (live) return live;
  if (in_progress) problem = live.error().message;
  auto status = status_from_files(folder, in_progress);
  if (!status) return status;
  (*status)["run"] = folder.id();
  (*status)["folder"] = folder.path();
  return status;
}

std::vector<std::string> status_head(const json& s) {
  const bool live = s.value("in_progress", false);
  std::string line =
      s.value("run", "") + ": " + (live ? s.value("state", "") : s.value("outcome", s.value("state", "")));
  if (live) line += ", attempt " + std::to_string(s.value("attempt", 1));
  if (const int restarts = s.value("restarts", 0); restarts > 0) line += ", " + plural(restarts, "restart");
  line += live ? ", for " + ago(s, "seconds") : " after " + ago(s, "seconds");
  std::vector<std::string> lines{line};
  std::string facts;
  const auto fact = [&](const std::string& text) { facts += (facts.empty() ? "" : ", ") + text; };
  if (s.contains("step")) {
    const int64_t steps = s.value("steps", int64_t{0});
    fact("step " + std::to_string(s["step"].get<int64_t>()) + (steps > 0 ? " of " + std::to_string(steps) : ""));
  }
  if (live && s.contains("steps_per_second")) fact(formatted("%.3g steps/s", s["steps_per_second"].get<double>()));
  if (s.contains("tokens_per_second")) fact(human_count(s["tokens_per_second"].get<double>()) + " tokens/s");
  if (s.contains("mfu")) fact(formatted("MFU %.1f %%", 100 * s["mfu"].get<double>()));
  if (s.contains("loss")) fact(formatted("loss %.4f", s["loss"].get<double>()));
  if (s.contains("checkpoint")) fact("checkpoint " + s["checkpoint"].get<std::string>());
  if (!facts.empty()) lines.push_back(facts);
  if (s.contains("cause")) lines.push_back("last failure: " + s["cause"].get<std::string>());
  if (const std::string verdict = s.value("verdict", ""); !verdict.empty()) lines.push_back(verdict);
  if (live && s.contains("web")) lines.push_back("web page " + s["web"].get<std::string>());
  return lines;
}

std::vector<std::string> status_lines(const json& s) {
  std::vector<std::string> lines = status_head(s);
  add_nodes(s, lines);
  add_ranks(s, lines);
  return lines;
}

}  // namespace mds::launcher
