#include "agent/bootstrap.hpp"

#include <unistd.h>

#include <nlohmann/json.hpp>

namespace mds::agent {
namespace {

using nlohmann::json;

constexpr int kNodeMax = 1 << 20;

Result<std::string> text_field(const json& object, const char* name) {
  const auto at = object.find(name);
  if (at == object.end() || !at->is_string() || at->get_ref<const std::string&>().empty()) {
    return bad_input(std::string("bootstrap: ") + name + ": a text is expected");
  }
  return at->get<std::string>();
}

Result<int64_t> integer_field(const json& object, const char* name, int64_t least, int64_t most) {
  const auto at = object.find(name);
  if (at == object.end() || !at->is_number_integer() || at->get<int64_t>() < least || at->get<int64_t>() > most) {
    return bad_input(std::string("bootstrap: ") + name + ": an integer from " + std::to_string(least) + " to " +
                     std::to_string(most) + " is expected");
  }
  return at->get<int64_t>();
}

Result<bool> flag_field(const json& object, const char* name) {
  const auto at = object.find(name);
  if (at == object.end()) return false;
  if (!at->is_boolean()) return bad_input(std::string("bootstrap: ") + name + ": true or false is expected");
  return at->get<bool>();
}

/// [[first, last], ...]
Result<std::vector<std::pair<int, int>>> node_ranges(const json& object) {
  std::vector<std::pair<int, int>> ranges;
  const auto at = object.find("nodes");
  if (at == object.end()) return ranges;
  const Error wrong = bad_input("bootstrap: nodes: ranges [first, last] of nodes are expected");
  if (!at->is_array()) return wrong;
  for (const json& range : *at) {
    const auto is_node = [](const json& n) { return n.is_number_integer() && n >= 0 && n <= kNodeMax; };
    if (!range.is_array() || range.size() != 2 || !is_node(range[0]) || !is_node(range[1])) return wrong;
    ranges.emplace_back(range[0].get<int>(), range[1].get<int>());
    if (ranges.back().second < ranges.back().first) return wrong;
  }
  return ranges;
}

}  // namespace

std::string to_line(const Bootstrap& bootstrap) {
  json object = {{"head_address", bootstrap.head_address},
                 {"head_port", bootstrap.head_port},
                 {"job", job_to_hex(bootstrap.credentials.job)},
                 {"key", bootstrap.credentials.key.hex()},
                 {"node", bootstrap.node},
                 {"run_folder", bootstrap.run_folder},
                 {"discover", bootstrap.discover}};
  if (!bootstrap.node_from.empty()) object["node_from"] = bootstrap.node_from;
  if (!bootstrap.nodes.empty()) object["nodes"] = bootstrap.nodes;
  if (!bootstrap.agent_sha256.empty()) object["agent_sha256"] = bootstrap.agent_sha256;
  if (bootstrap.discover_gpus) object["discover_gpus"] = true;
  if (bootstrap.lifeline) object["lifeline"] = true;
  if (bootstrap.signals_to_head) object["signals_to_head"] = true;
  return object.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace) + "\n";
}

Result<Bootstrap> bootstrap_from_line(const std::string& line) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return bad_input("bootstrap: one line with a JSON object is expected on standard input");
  const auto address = text_field(object, "head_address");
  const auto port = integer_field(object, "head_port", 1, 65535);
  const auto job_text = text_field(object, "job");
  const auto key_text = text_field(object, "key");
  const auto node = integer_field(object, "node", 0, kNodeMax);
  const auto run_folder = text_field(object, "run_folder");
  for (const auto* field : {&address, &job_text, &key_text, &run_folder}) {
    if (!*field) return field->error();
  }
  for (const auto* field : {&port, &node}) {
    if (!*field) return field->error();
  }
  const auto job = job_from_hex(*job_text);
  if (!job) return job.error().within("bootstrap: job");
  const auto key = JobKey::from_hex(*key_text);
  if (!key) return key.error().within("bootstrap: key");
  const auto node_from = object.contains("node_from") ? text_field(object, "node_from") : Result<std::string>("");
  if (!node_from) return node_from.error();
  const auto agent_sha256 =
      object.contains("agent_sha256") ? text_field(object, "agent_sha256") : Result<std::string>("");
  if (!agent_sha256) return agent_sha256.error();
  const auto nodes = node_ranges(object);
  if (!nodes) return nodes.error();
  const auto discover = flag_field(object, "discover");
  const auto discover_gpus = flag_field(object, "discover_gpus");
  const auto lifeline = flag_field(object, "lifeline");
  const auto signals_to_head = flag_field(object, "signals_to_head");
  for (const auto* field : {&discover, &discover_gpus, &lifeline, &signals_to_head}) {
    if (!*field) return field->error();
  }
  return Bootstrap{.head_address = *address,
                   .head_port = static_cast<uint16_t>(*port),
                   .credentials = {*job, *key},
                   .node = static_cast<int>(*node),
                   .run_folder = *run_folder,
                   .discover = *discover,
                   .discover_gpus = *discover_gpus,
                   .node_from = *node_from,
                   .nodes = *nodes,
                   .lifeline = *lifeline,
                   .agent_sha256 = *agent_sha256,
                   .signals_to_head = *signals_to_head};
}

bool sees_run_folder(const Bootstrap& bootstrap) {
  return access(bootstrap.run_folder.c_str(), F_OK) == 0;
}

Status settle_node(Bootstrap& bootstrap, const char* place) {
  if (bootstrap.node_from.empty()) return {};
  const std::string digits = place ? place : "";
  const bool number = digits.find_first_not_of("0123456789") == std::string::npos;
  const bool valid = number && !digits.empty() && digits.size() <= 7;
  if (!valid) return bad_input("bootstrap: the environment's " + bootstrap.node_from + " is no number");
  int left = std::stoi(digits);
  for (const auto& [first, last] : bootstrap.nodes) {
    const int count = last - first + 1;
    if (left < count) return bootstrap.node = first + left, Status{};
    left -= count;
  }
  return bad_input("bootstrap: there is no node for " + bootstrap.node_from + "=" + digits);
}

}  // namespace mds::agent
