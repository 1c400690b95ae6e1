// Messages between head and agent, and between agent and rank.
//
// A frame is a fixed header and a CBOR body (agent/frame.hpp). Every message carries job, attempt and sequence; one of
// a stale attempt is dropped and counted by its receiver. Lengths are checked before anything is allocated.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "agent/rank_spec.hpp"
#include "topology/result.hpp"

namespace mds::agent {

/// Names are the protocol's words; the body of each is the JSON object said beside it (encoded as CBOR).
enum class MessageType : uint16_t {
  // agent -> head
  hello = 1,          ///< {node, host, pid, protocol, topology?: machine, sees_run_folder?: false}; the first message
                      ///< on a connection.
                      ///< When the connection was lost before: {..., again: 1, 2, 3, ..., received: counted messages
                      ///< so far}.
                      ///< An agent that takes a child in adds {parent: its own node}
  rank_started = 2,   ///< {rank, pid, notes?: [text]}; its program runs
  rank_exited = 3,    ///< {rank, pid, exit_code?, signal?, core_dumped, tail: [line], ns: monotonic time of detection}
  output = 4,         ///< {rank, lines: [line], dropped?: count}
  progress = 5,       ///< {rank, ...what the rank said: step, loss, tokens, ...}
  exchange_put = 6,   ///< {name, index, count, value: bytes, rank}
  ranks_stopped = 7,  ///< {} answer to stop_ranks: every process of the ranks (and their descendants) is gone
  heartbeat = 8,      ///< {ranks: [{rank, beats, step? (if beats > 0), beat_age_ms}]}
  start_failed = 9,   ///< {rank, message}: exec or set-up of a rank failed
  notice = 10,        ///< {signal}: the cluster's own software has sent SIGTERM or SIGUSR1 (Bootstrap::signals_to_head)
  stacks = 11,        ///< {id, ranks: [{rank, processes: [...]}], error?}: see agent/stack_reader.cpp
  // agent -> its parent in the tree of agents (agent/child_relay.hpp), on the way to the head
  serving = 12,       ///< {address, port} answer to serve; {error} where it cannot listen
  up = 13,            ///< {items: [[node, type, attempt, body: CBOR bytes]]}: what agents below have said
  detached = 14,      ///< {}, only as an item of `up`: that node's connection to its parent has ended
  /// {sha256, offset}: a part of a file that is staged; answered by stage_part by the first one on the way that has it
  stage_ask = 15,
  // head -> agent
  start = 32,            ///< NodeStart; its attempt is above all earlier ones and no rank is left
  /// {grace_ms, drain_ms?}: TERM, KILL grace_ms later. With drain_ms > 0 ranks that said rank_hello are first asked by
  /// rank_stop and get TERM after drain_ms only. A second one hurries: its smaller times win. Always answered.
  stop_ranks = 33,
  exchange_result = 34,  ///< {name, ranks: [rank], values: [bytes]}
  checkpoint_now = 35,   ///< {}
  kill_rank = 36,        ///< {rank, signal}: fault injection
  goodbye = 37,          ///< {}: end of the job; the agent kills what is left and leaves with exit code 0
  stacks_ask = 38,       ///< {id}: answered by stacks
  join = 39,             ///< {address, port}: answer to hello: say it there instead
  serve = 40,            ///< {}: listen, others will join you
  attached = 41,         ///< {again, received}: answer to that hello: how many counted messages came from you
  down = 42,             ///< {to: [node], type, body: CBOR bytes}: a message to each of these nodes
  pulse = 43,            ///< {age_ms?}: from the parent, once a second; how old its news of the head is
  rejoin = 44,           ///< {}: from a parent that is an agent and has found the head again: say hello once more
  stage_part = 45,       ///< {sha256, offset, bytes} or {sha256, offset, error}, from the parent; of no attempt
  // someone with the job's key, such as `mdslaunch status` on another node <-> head
  control = 48,          ///< a request of launcher/control.hpp; may be the first message on a connection
  control_reply = 49,
  // rank <-> agent, over the control socket
  rank_hello = 64,       ///< {pid}
  rank_progress = 65,    ///< as progress
  rank_exchange = 66,    ///< as exchange_put
  rank_exchange_result = 67,
  rank_checkpoint_now = 68,
  rank_stop = 69,        ///< {}: leave at the next step boundary, with a checkpoint
};

/// Messages between an agent and the head that must arrive exactly once, also when the connection is made anew: both
/// sides count them (agent/replay.hpp). The others may be lost with a connection.
bool is_counted(MessageType type);

/// "unknown" for a number that is no type.
const char* to_string(MessageType type);
bool is_known(MessageType type);

struct Message {
  MessageType type{};
  uint64_t job = 0;        ///< random id of the job; another job's message is refused
  uint32_t attempt = 0;
  uint64_t sequence = 0;   ///< 1, 2, 3, ... per connection and direction; a gap or repeat ends the connection
  nlohmann::json body = nlohmann::json::object();
};

inline constexpr uint32_t kProtocolVersion = 1;
inline constexpr uint32_t kFrameBytesMax = 64u << 20;          ///< authenticated peers
inline constexpr uint32_t kRankFrameBytesMax = 16u << 20;      ///< control socket

}  // namespace mds::agent
