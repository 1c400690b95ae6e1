#include "agent/messages.hpp"

namespace mds::agent {

const char* to_string(MessageType type) {
  switch (type) {
    case MessageType::hello: return "hello";
    case MessageType::rank_started: return "rank_started";
    case MessageType::rank_exited: return "rank_exited";
    case MessageType::output: return "output";
    case MessageType::progress: return "progress";
    case MessageType::exchange_put: return "exchange_put";
    case MessageType::ranks_stopped: return "ranks_stopped";
    case MessageType::heartbeat: return "heartbeat";
    case MessageType::start_failed: return "start_failed";
    case MessageType::notice: return "notice";
    case MessageType::serving: return "serving";
    case MessageType::up: return "up";
    case MessageType::detached: return "detached";
    case MessageType::stage_ask: return "stage_ask";
    case MessageType::stage_part: return "stage_part";
    case MessageType::join: return "join";
    case MessageType::serve: return "serve";
    case MessageType::attached: return "attached";
    case MessageType::down: return "down";
    case MessageType::pulse: return "pulse";
    case MessageType::rejoin: return "rejoin";
    case MessageType::stacks: return "stacks";
    case MessageType::stacks_ask: return "stacks_ask";
    case MessageType::control: return "control";
    case MessageType::control_reply: return "control_reply";
    case MessageType::start: return "start";
    case MessageType::stop_ranks: return "stop_ranks";
    case MessageType::exchange_result: return "exchange_result";
    case MessageType::checkpoint_now: return "checkpoint_now";
    case MessageType::kill_rank: return "kill_rank";
    case MessageType::goodbye: return "goodbye";
    case MessageType::rank_hello: return "rank_hello";
    case MessageType::rank_progress: return "rank_progress";
    case MessageType::rank_exchange: return "rank_exchange";
    case MessageType::rank_exchange_result: return "rank_exchange_result";
    case MessageType::rank_checkpoint_now: return "rank_checkpoint_now";
    case MessageType::rank_stop: return "rank_stop";
  }
  return "unknown";
}

bool is_counted(MessageType type) {
  switch (type) {
    case MessageType::rank_started:
    case MessageType::rank_exited:
    case MessageType::progress:
    case MessageType::exchange_put:
    case MessageType::ranks_stopped:
    case MessageType::start_failed:
    case MessageType::notice:
    case MessageType::serving:
    case MessageType::start:
    case MessageType::stop_ranks:
    case MessageType::exchange_result:
    case MessageType::checkpoint_now:
    case MessageType::kill_rank:
    case MessageType::goodbye:
      return true;
    default:
      return false;
  }
}

bool is_known(MessageType type) { return to_string(type) != std::string("unknown"); }

}  // namespace mds::agent
