// Scenarios: text files in tests/scenarios with events for the supervisor and the effects that it must answer with.
//
//   # comment
//   config nodes=2 ranks_per_node=2 max_restarts=3
//   120 rank_exited attempt=1 rank=3 signal=9     milliseconds, event, fields (the words of events.jsonl)
//   > send_stop node=0 ...                        an effect, in order
//
// MDS_REWRITE_SCENARIOS=1 writes what the supervisor does into the files instead of comparing: read the diff.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>

#include <nlohmann/json.hpp>

#include "launcher/event_log.hpp"
#include "launcher/supervisor.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;
namespace fs = std::filesystem;

namespace {

using Words = std::map<std::string, std::string>;

/// "name=value" words; a value may be "in quotes".
Words fields(std::istringstream& in) {
  Words words;
  std::string word;
  while (in >> word) {
    const size_t equal = word.find('=');
    REQUIRE(equal != std::string::npos);
    std::string value = word.substr(equal + 1);
    if (!value.empty() && value[0] == '"') {
      while (value.size() < 2 || value.back() != '"') {
        std::string more;
        REQUIRE(in >> more);
        value += " " + more;
      }
      value = value.substr(1, value.size() - 2);
    }
    words[word.substr(0, equal)] = value;
  }
  return words;
}

SupervisorConfig config_from(std::istringstream& in) {
  SupervisorConfig config;
  int ranks_per_node = 1;
  for (const auto& [name, value] : fields(in)) {
    const int64_t number = std::stoll(value);
    if (name == "nodes") config.nodes = static_cast<int>(number);
    else if (name == "ranks_per_node") ranks_per_node = static_cast<int>(number);
    else if (name == "max_restarts") config.restart.max_restarts = static_cast<int>(number);
    else if (name == "backoff_ms") config.restart.backoff = std::chrono::milliseconds(number);
    else if (name == "no_progress_limit") config.restart.no_progress_limit = static_cast<int>(number);
    else if (name == "waits_for_nodes") config.restart.lost_node = number ? LostNode::wait : LostNode::go_on;
    else if (name == "hang_timeout_ms") config.hang_timeout = std::chrono::milliseconds(number);
    else if (name == "runs_trainer") config.runs_trainer = number != 0;
    else if (name == "kill_rank") config.kill_rank = KillRank{static_cast<int>(number), 0};
    else if (name == "kill_step") config.kill_rank->step = number;
    else FAIL("unknown configuration " << name);
  }
  for (int r = 0; r < config.nodes * ranks_per_node; ++r) config.node_of_rank.push_back(r / ranks_per_node);
  return config;
}

Event event_from(const std::string& kind, std::istringstream& in) {
  nlohmann::json object{{"event", kind}};
  for (const auto& [name, value] : fields(in)) {
    const bool is_text = name == "host" || name == "text";
    if (name == "tail") object[name] = {value};
    else if (is_text) object[name] = value;
    else object[name] = std::stoll(value);
  }
  const auto event = event_from_json(object);
  INFO(object.dump());
  REQUIRE(event.ok());
  return *event;
}

/// The file with the effects that the supervisor answers with.
std::string play(const std::string& text) {
  std::istringstream file(text);
  std::optional<Supervisor> supervisor;
  std::string out, line;
  while (std::getline(file, line)) {
    if (line.rfind(">", 0) == 0) continue;
    out += line + "\n";
    if (line.empty() || line[0] == '#') continue;
    std::istringstream in(line);
    std::string first, kind;
    in >> first;
    if (first == "config") {
      supervisor.emplace(config_from(in));
      continue;
    }
    in >> kind;
    REQUIRE(supervisor.has_value());
    for (const Effect& effect : supervisor->step(event_from(kind, in), std::chrono::milliseconds(std::stoll(first)))) {
      out += "> " + describe(effect) + "\n";
      if (effect.kind == EffectKind::report_cause) {
        out += ">   " + describe(*supervisor->state().cause) + "\n";
        for (const std::string& later : supervisor->state().cause->follow_ups) out += ">   then " + later + "\n";
      }
    }
  }
  return out;
}

std::vector<fs::path> scenarios() {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(fs::path(__FILE__).parent_path().parent_path() / "scenarios")) {
    if (entry.path().extension() == ".txt") found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::string content(const fs::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("scenarios: the supervisor answers events with the effects that the files say") {
  const bool rewrite = std::getenv("MDS_REWRITE_SCENARIOS") != nullptr;
  REQUIRE(scenarios().size() >= 10);
  for (const fs::path& path : scenarios()) {
    INFO("scenario " << path.filename());
    const std::string expected = content(path), actual = play(expected);
    if (rewrite) {
      std::ofstream(path) << actual;
    } else {
      CHECK(actual == expected);
    }
  }
}
