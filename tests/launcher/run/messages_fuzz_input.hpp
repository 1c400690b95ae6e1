// What authenticated but broken agents, and ranks through them, can say to the head: whatever the body is, reading it
// gives a value or an error. Shared by the libFuzzer harness and the mutation test.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "agent/bootstrap.hpp"
#include "agent/frame.hpp"
#include "agent/rank_spec.hpp"
#include "launcher/head_messages.hpp"
#include "launcher/head_status.hpp"
#include "launcher/metrics.hpp"
#include "launcher/rendezvous.hpp"
#include "launcher/stacks.hpp"

namespace mds::launcher::tests {

/// The first byte is the message's type, the rest its body.
inline void try_message(std::string_view input) {
  if (input.empty()) return;
  const auto type = static_cast<agent::MessageType>(static_cast<uint8_t>(input[0]));
  input.remove_prefix(1);
  const auto* bytes = reinterpret_cast<const uint8_t*>(input.data());
  (void)agent::bootstrap_from_line(std::string(input));
  const auto decoded = agent::decode_body({bytes, input.size()});
  if (!decoded) return;
  const nlohmann::json& body = *decoded;

  const agent::Message message{type, 1, 1, 1, body};
  (void)hello_from_message(message, 4);
  const std::vector<int> node_of_rank{0, 0, 1, 1};
  (void)event_from_message(message, 0, node_of_rank);
  (void)output_from_message(message);
  (void)agent::node_start_from_json(body);
  if (auto contribution = contribution_from_message(message)) {
    Rendezvous rendezvous(4);
    (void)rendezvous.put(*contribution);
    (void)rendezvous.waiting();
  }
  (void)step_metrics_from_json(body, 1);
  SupervisorConfig config;
  config.nodes = 2;
  config.node_of_rank = node_of_rank;
  HeadStatus status(config);
  status.on_heartbeat(body, TimePoint{0});
  status.on_progress(body);
  if (body.is_object() && body.contains("ranks") && body["ranks"].is_array()) (void)merged_stacks(body["ranks"]);
}

}  // namespace mds::launcher::tests
