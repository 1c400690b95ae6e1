// What a run does now, gathered from its events and its agents' heartbeats: for `mdslaunch status`. Of a run that has
// ended the event log alone gives the same picture.
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "launcher/event_log.hpp"
#include "launcher/supervisor.hpp"

namespace mds::launcher {

class HeadStatus {
 public:
  explicit HeadStatus(const SupervisorConfig& config);

  void on_event(const Event& event, const SupervisorState& after, TimePoint now);
  void on_heard(int node, TimePoint now) { nodes_[node].heard = now; }
  /// Since something was heard of a joined node; 0 where that is not known.
  TimePoint silence(int node, TimePoint now) const {
    return nodes_[node].heard ? now - *nodes_[node].heard : TimePoint{0};
  }
  void on_pid(int rank, int64_t pid) { ranks_[rank].pid = pid; }
  /// The body of an agent's heartbeat or of a rank's progress; what is malformed is left out.
  void on_heartbeat(const nlohmann::json& body, TimePoint now);
  void on_progress(const nlohmann::json& body);

  /// {version, type: "status", state, seconds, attempt, restarts, step, checkpoint, steps_per_second, loss,
  /// tokens_per_second, cause, nodes: [{node, host, state, since_s, heard_s?}], ranks: [{rank, node, state, since_s,
  /// pid?, step?, beat_s?}], events: [{at_s, text}]}; times in seconds ago, but at_s is since the run began; what is
  /// unknown is missing.
  nlohmann::json to_json(const SupervisorState& state, TimePoint now) const;

 private:
  struct NodeLife {
    NodeState state = NodeState::gone;
    TimePoint since{0};
    std::optional<TimePoint> heard{};
  };
  struct RankLife {
    RankState state = RankState::idle;
    TimePoint since{0};
    int64_t pid = 0;
    std::string end{};  ///< "exited with code 1", "killed by SIGKILL"
    uint64_t beats = 0;
    int64_t step = -1;
    TimePoint beat_at{0};
  };
  struct Happening {
    TimePoint at;
    std::string text;
  };
  void remember(const Event& event, const SupervisorState& after, TimePoint now);

  struct Mark {
    TimePoint at;
    int64_t step;
  };

  std::vector<int> node_of_rank_;
  std::vector<NodeLife> nodes_;
  std::vector<RankLife> ranks_;
  std::deque<Happening> happenings_;  ///< what people care about, the last few of it
  State state_ = State::idle;
  std::optional<TimePoint> cause_at_;
  std::deque<Mark> marks_;  ///< the last reports of progress: for the rate
  std::optional<double> loss_, tokens_per_second_;
};

/// The status of a run by its event log, at its last event.
nlohmann::json status_of(const LoggedRun& run);

}  // namespace mds::launcher
