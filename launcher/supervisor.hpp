// Supervisor: decides what happens to a run. It does no input or output and has no clock: events and the time go in, an
// ordered list of effects comes out, and the head (launcher/head.hpp) carries them out in that order.
//
//   idle -begin-> waiting_for_agents -all joined-> starting -all started-> running -all exited 0-> finishing -> ended
//                        ^                             \_ failure, hang, user stop _/
//                        |                                       v
//                        '----- a node was lost ---- backing_off <- stopping -> finishing
//
// Invariants (tests cite them by number):
//  S1  Every event's first effect is `log`: nothing is done that the event log does not say.
//  S2  No rank of attempt n+1 is started before every node has reported that the ranks of attempt n are gone
//      (ranks_stopped), or is itself gone (agent_gone).
//  S3  Every failed attempt has exactly one first cause: the severe event that was detected first. Clocks are compared
//      only within one host; else the order of arrival counts. Later ones are attached to it as follow-ups.
//  S4  Restarts never exceed max_restarts, and no_progress_limit attempts in a row that died without a step or
//      checkpoint beyond all earlier ones end the run.
//  S5  A message of another attempt changes nothing but the count of stale events.
//  S6  Every state has an entry for every event; one that the state does not expect is logged as a note.
//  S7  Each state but idle, running and ended has a deadline; a run whose agents answer nothing at all ends, too.
//  S8  The run ends exactly once, after every agent is gone (or was killed and did not even answer to that), and
//      nothing but notes follows.
//  S9  A user's stop is never followed by a new attempt; the exit code is 128 + the first signal.
//  S10 The state is a function of the configuration and the logged events (replay), and of the state that the run had
//      before it was resumed.
//  S11 Nor is a preemption (time limit, nodes taken away): the exit code is 75 when the run has a checkpoint to go on
//      from, else as for a user's stop. A user's stop outweighs it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launcher/job.hpp"

namespace mds::launcher {

/// Microseconds since the run began (a monotonic clock).
using TimePoint = std::chrono::microseconds;

inline constexpr uint32_t kFirstAttempt = 1;

/// Fault injection: SIGKILL `rank` when the first attempt's progress reaches `step`.
struct KillRank {
  int rank = 0;
  int64_t step = 0;
  bool operator==(const KillRank&) const = default;
};

struct SupervisorConfig {
  int nodes = 1;
  std::vector<int> node_of_rank{};                      ///< world_size entries
  RestartConfig restart;
  std::chrono::milliseconds hang_timeout{0};            ///< 0: "auto", from the intervals between reports of progress
  bool runs_trainer = true;                             ///< the ranks are mdstrain: they report progress, and their
                                                        ///< exit codes 2 and 3 end the run with that code
  std::optional<KillRank> kill_rank{};
  std::chrono::milliseconds agents_deadline{30'000};    ///< for all agents to connect
  std::chrono::milliseconds start_deadline{60'000};     ///< for all ranks to be started
  std::chrono::milliseconds failure_grace{2'000};       ///< TERM to KILL in a failed attempt
  std::chrono::milliseconds user_drain{60'000};         ///< for a checkpoint after a user's stop
  std::chrono::milliseconds user_grace{10'000};         ///< TERM to KILL after a user's stop
  std::chrono::milliseconds preempt_drain{60'000};      ///< for a checkpoint when preempted
  std::chrono::milliseconds preempt_grace{10'000};      ///< TERM to KILL when preempted
  std::chrono::milliseconds agent_slack{10'000};        ///< beyond the times above, before an agent counts as dead
};

enum class EventKind {
  begin,          ///< start the run
  agent_joined,   ///< node, host
  agent_lost,     ///< node, text: its connection or its process ended
  agent_silent,   ///< node, text: connected, but no heartbeat came for too long; it is frozen or cut off
  agent_gone,     ///< node: no process of that node's agent is left, nor any of its ranks
  rank_started,   ///< rank
  start_failed,   ///< rank, text
  rank_exited,    ///< rank, exit_code or signal, tail, detected_us
  ranks_stopped,  ///< node: all its ranks' processes are gone
  progress,       ///< rank, step (completed steps)
  checkpoint,     ///< rank, step, text: its name; committed
  tick,           ///< the timer fired
  user_stop,      ///< signal
  preempt,        ///< signal: the time is up or the nodes are wanted back; the run is to go on later
  hold,           ///< rank: a debugger has stopped it; for kHoldTime more, silence is no hang
};
inline constexpr int kEventKinds = 15;
inline constexpr std::chrono::seconds kHoldTime{60};

struct Event {
  EventKind kind{};
  uint32_t attempt = 0;                  ///< of rank_*, start_failed, ranks_stopped, progress and checkpoint
  int node = -1;
  int rank = -1;
  int64_t step = -1;
  std::optional<int> exit_code{};
  int signal = 0;
  bool core_dumped = false;
  int64_t detected_us = -1;              ///< the host's monotonic clock when its agent saw the exit; -1 unknown
  std::string host{};
  std::string text{};
  std::vector<std::string> tail{};       ///< last lines of output
  bool operator==(const Event&) const = default;
};

enum class EffectKind {
  log,            ///< append the event to the event log; text: the state afterwards
  sync,           ///< the event log is on disk before any later effect
  start_agent,    ///< node
  send_start,     ///< node, attempt
  send_stop,      ///< node, attempt, drain, grace
  send_kill,      ///< node, rank, signal
  send_goodbye,   ///< node
  kill_agent,     ///< node: it does not answer, end its process tree
  arm_timer,      ///< at; replaces the earlier one
  report_cause,   ///< first cause of the attempt is final: Supervisor::state().cause
  note,           ///< text: worth a line in the diagnostics
  end,            ///< exit_code
};

struct Effect {
  EffectKind kind{};
  int node = -1;
  int rank = -1;
  uint32_t attempt = 0;
  int signal = 0;
  int exit_code = 0;
  std::chrono::milliseconds drain{0};
  std::chrono::milliseconds grace{0};
  TimePoint at{0};
  std::string text{};
  bool operator==(const Effect&) const = default;
};
using Effects = std::vector<Effect>;

enum class State { idle, waiting_for_agents, starting, running, stopping, backing_off, finishing, ended };
inline constexpr int kStates = 8;

enum class CauseKind { rank_failed, start_failed, agent_lost, agents_missing, start_overdue, hang };

/// Why an attempt failed.
struct Cause {
  CauseKind kind{};
  uint32_t attempt = 0;
  int rank = -1;                         ///< -1: not one rank's
  int node = -1;
  std::string host{};
  std::optional<int> exit_code{};
  int signal = 0;
  bool core_dumped = false;
  int64_t step = -1;                     ///< completed steps when it happened, -1 none
  int64_t detected_us = -1;
  TimePoint at{0};
  std::string text{};
  std::vector<std::string> tail{};
  std::vector<std::string> follow_ups{};   ///< what failed after it in the same attempt, one line each
  bool operator==(const Cause&) const = default;
};

enum class NodeState { gone, coming, joined, lost };
enum class RankState { idle, started, exited };

struct Node {
  NodeState state = NodeState::gone;
  bool has_ranks = false;                ///< a start was sent and its end is not known yet
  bool was_killed = false;
  std::string host{};
  bool operator==(const Node&) const = default;
};

/// Everything that the supervisor knows; replaying the event log gives an equal value (S10).
struct SupervisorState {
  State state = State::idle;
  uint32_t first_attempt = kFirstAttempt;  ///< since the run was begun or resumed
  uint32_t attempt = kFirstAttempt;      ///< that runs, or comes next
  int restarts = 0;                      ///< since the run was begun or resumed
  std::vector<Node> nodes{};
  std::vector<RankState> ranks{};
  int64_t step = -1;                     ///< last completed step of this attempt
  int64_t step_best = -1;                ///< of all attempts
  int64_t checkpoint_step = -1;          ///< newest committed one
  std::string checkpoint{};
  bool attempt_started = false;          ///< its ranks were sent off
  bool attempt_progressed = false;       ///< this attempt went beyond all earlier ones
  int attempts_without_progress = 0;     ///< in a row
  std::optional<Cause> cause{};            ///< of the attempt that fails now or failed last
  std::string verdict{};                   ///< why there is no further attempt
  int lost_node = -1;                    ///< that does not come back, which is that reason
  int user_signal = 0;                   ///< first signal of the user
  int user_signals = 0;
  int preempt_signal = 0;                ///< first signal of a preemption
  bool kill_sent = false;
  int exit_code = 0;                     ///< meaningful in finishing and ended
  uint64_t stale_events = 0;
  uint64_t unexpected_events = 0;
  std::optional<TimePoint> deadline{};
  TimePoint active_since{0};             ///< the last report of progress, or when the ranks were all started
  TimePoint held_until{0};               ///< silence counts from then on
  TimePoint longest_interval{0};         ///< between two reports of progress in this attempt
  int progress_reports = 0;              ///< in this attempt
  bool operator==(const SupervisorState&) const = default;
};

class Supervisor {
 public:
  explicit Supervisor(SupervisorConfig config);
  /// The run goes on where `earlier` (of the same run, of which nothing is left) has ended, with new budgets: attempts
  /// are counted on, checkpoints are remembered. The configuration may be another.
  Supervisor(SupervisorConfig config, const SupervisorState& earlier);

  /// `now` never decreases. Total: every event is handled in every state (S6).
  Effects step(const Event& event, TimePoint now);

  const SupervisorState& state() const { return s_; }
  const SupervisorConfig& config() const { return config_; }
  int world_size() const { return static_cast<int>(config_.node_of_rank.size()); }

 private:
  using Handler = void (Supervisor::*)(const Event&);
  static const Handler kTable[kStates][kEventKinds];

  // Handlers, named for what they do; the table in supervisor.cpp says where.
  void unexpected(const Event& event);
  void expected_late(const Event& event);
  void begin(const Event& event);
  void join(const Event& event);
  void join_late(const Event& event);
  void join_leaving(const Event& event);
  void lose_agent(const Event& event);
  void agent_failed(const Event& event);
  void silent_failed(const Event& event);
  void silent_late(const Event& event);
  void agent_gone(const Event& event);
  void agent_gone_waiting(const Event& event);
  void agent_gone_active(const Event& event);
  void agent_gone_stopping(const Event& event);
  void agent_gone_finishing(const Event& event);
  void agents_overdue(const Event& event);
  void rank_started(const Event& event);
  void start_failed(const Event& event);
  void rank_exited(const Event& event);
  void stopped_early(const Event& event);
  void start_overdue(const Event& event);
  void record_progress(const Event& event);
  void record_checkpoint(const Event& event);
  void check_hang(const Event& event);
  void hold(const Event& event);
  void late_start(const Event& event);
  void late_failure(const Event& event);
  void late_exit(const Event& event);
  void ranks_stopped(const Event& event);
  void stop_overdue(const Event& event);
  void back_off_over(const Event& event);
  void user_stop_early(const Event& event);
  void user_stop_active(const Event& event);
  void user_stop_again(const Event& event);
  void user_stop_finishing(const Event& event);
  void preempt_early(const Event& event);
  void preempt_active(const Event& event);
  void preempt_stopping(const Event& event);
  void leave_overdue(const Event& event);

  // Phases.
  void await_agents();
  void start_if_complete();
  void start_attempt();
  void after_rank_change();
  void fail(Cause cause);
  void stop_ranks(std::chrono::milliseconds drain, std::chrono::milliseconds grace);
  void after_drain();
  void report_cause();
  std::optional<int> reason_to_give_up();
  std::optional<int> stop_code() const;
  void finish(int exit_code);
  void end_if_all_gone();
  void end();

  // Parts of them.
  bool is_of_attempt(EventKind kind) const;
  bool refers_to_nothing(const Event& event) const;
  bool failing() const;
  bool ranks_left() const;
  Cause cause_from(const Event& event, CauseKind kind) const;
  void add_follow_up(Cause late);
  void count_signal(const Event& event);
  void kill_agent(int node);
  std::chrono::milliseconds hang_limit() const;
  void arm_hang_check();
  void inject_fault();
  void arm(std::optional<TimePoint> at);
  Effect& add(EffectKind kind);
  void go(State state) { s_.state = state; }

  SupervisorConfig config_;
  SupervisorState s_;
  TimePoint now_{0};
  Effects effects_;
};

const char* to_string(State v);
const char* to_string(EventKind v);
const char* to_string(EffectKind v);
const char* to_string(CauseKind v);
/// One line for people: "rank 3 on host a (node 1) was killed by signal 9 (SIGKILL) after step 150".
std::string describe(const Cause& cause);
std::string describe(const Effect& effect);
/// "SIGKILL"; "signal 77" where it has no name.
std::string signal_name(int signal);

}  // namespace mds::launcher
