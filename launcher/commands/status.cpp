// mdslaunch status [RUN]
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/control.hpp"
#include "launcher/head_status.hpp"
#include "launcher/rank_set.hpp"
#include "launcher/run.hpp"
#include "launcher/view.hpp"
#include "slurm/host_list.hpp"

namespace mds::launcher {
namespace {

using nlohmann::json;

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

Result<json> status_of_run(const RunFolder& folder, std::string& problem) {
  json status;
  const bool in_progress = is_being_written(folder.file("events.jsonl"));
  auto client = ControlClient::connect(folder);
  auto live = client ? (*client)->ask({{"command", "status"}}) : Result<json>(client.error());
  if (live) {
    status = *std::move(live);
    status["in_progress"] = true;
  } else {
    if (in_progress) problem = live.error().message;
    auto from_files = status_from_files(folder, in_progress);
    if (!from_files) return from_files.error();
    status = *std::move(from_files);
  }
  status["run"] = folder.id();
  status["folder"] = folder.path();
  return status;
}

std::string ago(const json& object, const char* name) {
  return object.contains(name) ? human_seconds(object[name].get<double>()) : "?";
}

std::string plural(size_t n, const std::string& word) { return std::to_string(n) + " " + word + (n == 1 ? "" : "s"); }

void print_head(const json& s) {
  const bool live = s.value("in_progress", false);
  std::string line =
      s.value("run", "") + ": " + (live ? s.value("state", "") : s.value("outcome", s.value("state", "")));
  if (live) line += ", attempt " + std::to_string(s.value("attempt", 1));
  if (const int restarts = s.value("restarts", 0); restarts > 0) line += ", " + plural(restarts, "restart");
  line += live ? ", for " + ago(s, "seconds") : " after " + ago(s, "seconds");
  std::printf("%s\n", line.c_str());
  std::string facts;
  const auto fact = [&](const std::string& text) { facts += (facts.empty() ? "" : ", ") + text; };
  if (s.contains("step")) fact("step " + std::to_string(s["step"].get<int64_t>()));
  char number[64];
  if (live && s.contains("steps_per_second")) {
    std::snprintf(number, sizeof number, "%.3g steps/s", s["steps_per_second"].get<double>());
    fact(number);
  }
  if (s.contains("tokens_per_second")) fact(human_count(s["tokens_per_second"].get<double>()) + " tokens/s");
  if (s.contains("loss")) {
    std::snprintf(number, sizeof number, "loss %.4f", s["loss"].get<double>());
    fact(number);
  }
  if (s.contains("checkpoint")) fact("checkpoint " + s["checkpoint"].get<std::string>());
  if (!facts.empty()) std::printf("%s\n", facts.c_str());
  if (s.contains("cause")) std::printf("last failure: %s\n", s["cause"].get<std::string>().c_str());
  if (const std::string verdict = s.value("verdict", ""); !verdict.empty()) std::printf("%s\n", verdict.c_str());
}

/// Nodes and ranks that do the same stand in one line: thousands of them are read at a glance, and the odd one shows.
void print_nodes(const json& s) {
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
    std::printf("%s\n", line.c_str());
  }
}

void print_ranks(const json& s) {
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
    std::printf("%s\n", line.c_str());
  }
}

}  // namespace

int status_command(const Arguments& arguments) {
  const std::string run = arguments.positional.empty() ? "" : arguments.positional[0];
  const auto folder = RunFolder::find(run, output_dir_of(arguments));
  if (!folder) return report_error(folder.error());
  std::string problem;
  const auto status = status_of_run(*folder, problem);
  if (!status) return report_error(status.error());
  if (!problem.empty()) std::fprintf(stderr, "mdslaunch: %s\n", problem.c_str());
  if (arguments.has("json")) {
    std::printf("%s\n", status->dump(1, ' ', false, json::error_handler_t::replace).c_str());
    return kExitFinished;
  }
  print_head(*status);
  print_nodes(*status);
  print_ranks(*status);
  return kExitFinished;
}

}  // namespace mds::launcher
