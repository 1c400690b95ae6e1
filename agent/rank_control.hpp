// The rank's side of the control channel. Linked into mdstrain; needs neither Asio nor LibTorch.
//
// The agent gives each rank a connected socket in MDS_CONTROL_FD and a shared-memory heartbeat page in MDS_BEAT_FD.
// Without them (a rank started by hand) every call works for world size 1 and progress is dropped.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "topology/result.hpp"

namespace mds::agent {

/// What the agent asked of this rank since the last poll.
struct RankRequests {
  bool checkpoint_now = false;
  bool stop = false;          ///< write a checkpoint and leave at the next step boundary
};

class RankControl {
 public:
  /// Reads MDS_CONTROL_FD and MDS_BEAT_FD. Errors: bad_input (malformed variable), unavailable (agent gone).
  static Result<std::unique_ptr<RankControl>> from_environment();
  virtual ~RankControl() = default;

  /// One relaxed store into the shared page: costs nanoseconds. Any thread.
  virtual void beat(uint64_t step) = 0;

  /// Reports to the head; `body` is an object such as {"step": 7, "loss": 2.5}. Not thread-safe.
  virtual Status progress(const nlohmann::json& body) = 0;

  /// All-gather of small values (<= 1 MiB each) among `count` ranks that call it with the same `name`; blocks until all
  /// have. `index` is the caller's place, 0-based. A name is used once per attempt. Errors: unavailable, bad_input.
  virtual Result<std::vector<std::string>> exchange(const std::string& name, int index, int count,
                                                    const std::string& value) = 0;

  /// Never blocks.
  virtual RankRequests poll() = 0;
};

}  // namespace mds::agent
