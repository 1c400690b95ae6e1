#include "launcher/head_messages.hpp"

#include <limits>

namespace mds::launcher {

using agent::Message;
using agent::MessageType;
using nlohmann::json;

namespace {

std::optional<int64_t> integer(const json& body, const char* name) {
  const auto it = body.find(name);
  if (it == body.end() || !it->is_number_integer()) return std::nullopt;
  return it->get<int64_t>();
}

std::optional<int> small_integer(const json& body, const char* name) {
  const std::optional<int64_t> value = integer(body, name);
  if (!value || *value < std::numeric_limits<int>::min() || *value > std::numeric_limits<int>::max()) return {};
  return static_cast<int>(*value);
}

std::string text(const json& body, const char* name) {
  const auto it = body.find(name);
  return it != body.end() && it->is_string() ? it->get<std::string>() : "";
}

std::vector<std::string> lines(const json& body, const char* name) {
  std::vector<std::string> found;
  const auto it = body.find(name);
  if (it == body.end() || !it->is_array()) return found;
  for (const json& line : *it) {
    if (line.is_string()) found.push_back(line.get<std::string>());
  }
  return found;
}

Error broken(const Message& message, const std::string& why) {
  return corrupt(std::string(agent::to_string(message.type)) + ": " + why);
}

void read_exit(const json& body, Event& event) {
  event.exit_code = small_integer(body, "exit_code");
  event.signal = small_integer(body, "signal").value_or(0);
  if (event.signal != 0) event.exit_code.reset();
  const auto core = body.find("core_dumped");
  event.core_dumped = core != body.end() && core->is_boolean() && core->get<bool>();
  if (const auto ns = integer(body, "ns")) event.detected_us = *ns / 1000;
  event.tail = lines(body, "tail");
}

/// False when the message says nothing that the supervisor decides upon.
bool read_progress(const json& body, Event& event) {
  event.step = integer(body, "step").value_or(-1);
  event.text = text(body, "checkpoint");
  if (!event.text.empty()) event.kind = EventKind::checkpoint;
  return !body.contains("checkpoint_error");
}

}  // namespace

Result<Hello> hello_from_message(const Message& message, int nodes) {
  if (message.type != MessageType::hello) return broken(message, "hello was expected first");
  const std::optional<int> protocol = small_integer(message.body, "protocol");
  if (protocol != static_cast<int>(agent::kProtocolVersion)) {
    return broken(message, "the agent is of another version; install the same version on every node");
  }
  const std::optional<int> node = small_integer(message.body, "node");
  if (!node || *node < 0 || *node >= nodes) return broken(message, "no such node");
  return Hello{*node, text(message.body, "host")};
}

Result<std::optional<Event>> event_from_message(const Message& message, int node,
                                                const std::vector<int>& node_of_rank) {
  Event event;
  event.attempt = message.attempt;
  if (!message.body.is_object()) return broken(message, "the body is no object");
  if (message.type == MessageType::ranks_stopped) {
    event.kind = EventKind::ranks_stopped;
    event.node = node;
    return std::optional<Event>(event);
  }
  const std::optional<int> rank = small_integer(message.body, "rank");
  if (!rank || *rank < 0 || *rank >= static_cast<int>(node_of_rank.size()) || node_of_rank[*rank] != node) {
    return broken(message, "it names no rank of its node");
  }
  event.rank = *rank;
  switch (message.type) {
    case MessageType::rank_started:
      event.kind = EventKind::rank_started;
      return std::optional<Event>(event);
    case MessageType::start_failed:
      event.kind = EventKind::start_failed;
      event.text = text(message.body, "message");
      return std::optional<Event>(event);
    case MessageType::rank_exited:
      event.kind = EventKind::rank_exited;
      read_exit(message.body, event);
      if (!event.exit_code && event.signal == 0) return broken(message, "neither exit_code nor signal");
      return std::optional<Event>(event);
    case MessageType::progress:
      event.kind = EventKind::progress;
      return read_progress(message.body, event) ? std::optional<Event>(event) : std::nullopt;
    default:
      return broken(message, "an agent does not say this");
  }
}

Result<Contribution> contribution_from_message(const Message& message) {
  const json& body = message.body;
  const std::optional<int> index = small_integer(body, "index"), count = small_integer(body, "count"),
                           rank = small_integer(body, "rank");
  const auto value = body.find("value");
  if (!index || !count || !rank || value == body.end()) return broken(message, "a field is missing");
  Contribution contribution{text(body, "name"), *index, *count, *rank, {}};
  if (value->is_binary()) {
    contribution.value.assign(value->get_binary().begin(), value->get_binary().end());
  } else if (value->is_string()) {
    contribution.value = value->get<std::string>();
  } else {
    return broken(message, "value must be bytes");
  }
  return contribution;
}

Result<Output> output_from_message(const Message& message) {
  const std::optional<int> rank = small_integer(message.body, "rank");
  if (!rank) return broken(message, "rank is missing");
  return Output{*rank, lines(message.body, "lines"),
                static_cast<uint64_t>(integer(message.body, "dropped").value_or(0))};
}

}  // namespace mds::launcher
