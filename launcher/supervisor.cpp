#include "launcher/supervisor.hpp"

#include <algorithm>
#include <csignal>

#include "launcher/run.hpp"

namespace mds::launcher {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kBackoffMax{60'000};
constexpr milliseconds kNodeWait{10'000};              // for a node that did not come, before it is tried again
constexpr milliseconds kHangLimitMin{60'000};          // "auto" never calls a shorter silence a hang
constexpr milliseconds kHangLimitBeforeSteps{1'800'000};  // "auto", before the step times are known
constexpr int kReportsToTrust = 3;                     // reports of progress after which "auto" knows the step times
constexpr size_t kFollowUpsMax = 16;                   // more would only repeat themselves
constexpr int kHangLimitIntervals = 30;                // "auto" waits for so many of the longest interval

}  // namespace

// clang-format off
#define H(name) &Supervisor::name
const Supervisor::Handler Supervisor::kTable[kStates][kEventKinds] = {
  // begin                   agent_joined            agent_lost              agent_silent
  // agent_gone              rank_started            start_failed            rank_exited
  // ranks_stopped           progress                checkpoint              tick
  // user_stop               preempt                 hold
  { // idle
    H(begin),               H(unexpected),          H(unexpected),          H(unexpected),
    H(unexpected),          H(unexpected),          H(unexpected),          H(unexpected),
    H(unexpected),          H(unexpected),          H(unexpected),          H(unexpected),
    H(user_stop_early),     H(preempt_early),       H(expected_late),
  },
  { // waiting_for_agents
    H(unexpected),          H(join),                H(agent_failed),        H(silent_failed),
    H(agent_gone_waiting),  H(unexpected),          H(unexpected),          H(unexpected),
    H(unexpected),          H(unexpected),          H(unexpected),          H(agents_overdue),
    H(user_stop_early),     H(preempt_early),       H(expected_late),
  },
  { // starting
    H(unexpected),          H(unexpected),          H(agent_failed),        H(silent_failed),
    H(agent_gone_active),   H(rank_started),        H(start_failed),        H(rank_exited),
    H(stopped_early),       H(record_progress),     H(record_checkpoint),   H(start_overdue),
    H(user_stop_active),    H(preempt_active),      H(expected_late),
  },
  { // running
    H(unexpected),          H(unexpected),          H(agent_failed),        H(silent_failed),
    H(agent_gone_active),   H(unexpected),          H(start_failed),        H(rank_exited),
    H(stopped_early),       H(record_progress),     H(record_checkpoint),   H(check_hang),
    H(user_stop_active),    H(preempt_active),      H(hold),
  },
  { // stopping
    H(unexpected),          H(join_late),           H(lose_agent),          H(silent_late),
    H(agent_gone_stopping), H(late_start),          H(late_failure),        H(late_exit),
    H(ranks_stopped),       H(record_progress),     H(record_checkpoint),   H(stop_overdue),
    H(user_stop_again),     H(preempt_stopping),    H(expected_late),
  },
  { // backing_off
    H(unexpected),          H(join_late),           H(lose_agent),          H(silent_late),
    H(agent_gone),          H(unexpected),          H(unexpected),          H(unexpected),
    H(unexpected),          H(unexpected),          H(unexpected),          H(back_off_over),
    H(user_stop_early),     H(preempt_early),       H(expected_late),
  },
  { // finishing
    H(unexpected),          H(join_leaving),        H(lose_agent),          H(silent_late),
    H(agent_gone_finishing),H(unexpected),          H(expected_late),       H(expected_late),
    H(expected_late),       H(record_progress),     H(record_checkpoint),   H(leave_overdue),
    H(user_stop_finishing), H(expected_late),       H(expected_late),
  },
  { // ended
    H(unexpected),          H(unexpected),          H(expected_late),       H(expected_late),
    H(expected_late),       H(unexpected),          H(unexpected),          H(unexpected),
    H(unexpected),          H(unexpected),          H(unexpected),          H(expected_late),
    H(expected_late),       H(expected_late),       H(expected_late),
  },
};
#undef H
// clang-format on

Supervisor::Supervisor(SupervisorConfig config) : config_(std::move(config)) {
  s_.nodes.resize(config_.nodes);
  s_.ranks.resize(config_.node_of_rank.size());
}

Supervisor::Supervisor(SupervisorConfig config, const SupervisorState& earlier) : Supervisor(std::move(config)) {
  s_.attempt = s_.first_attempt = earlier.attempt + (earlier.attempt_started ? 1 : 0);
  s_.step_best = earlier.step_best;
  s_.checkpoint_step = earlier.checkpoint_step;
  s_.checkpoint = earlier.checkpoint;
  s_.stale_events = earlier.stale_events;
  s_.unexpected_events = earlier.unexpected_events;
}

Effects Supervisor::step(const Event& event, TimePoint now) {
  now_ = now;
  effects_.clear();
  add(EffectKind::log);
  if (refers_to_nothing(event)) {
    unexpected(event);
  } else if (is_of_attempt(event.kind) && event.attempt != s_.attempt) {
    ++s_.stale_events;
  } else if (event.kind == EventKind::tick && (!s_.deadline || now_ < *s_.deadline)) {
    arm(s_.deadline);  // a timer that fired before it was replaced
  } else {
    (this->*kTable[static_cast<int>(s_.state)][static_cast<int>(event.kind)])(event);
  }
  effects_.front().text = to_string(s_.state);
  return std::move(effects_);
}

bool Supervisor::is_of_attempt(EventKind kind) const {
  switch (kind) {
    case EventKind::rank_started:
    case EventKind::start_failed:
    case EventKind::rank_exited:
    case EventKind::ranks_stopped:
    case EventKind::progress:
    case EventKind::checkpoint:
      return true;
    default:
      return false;
  }
}

bool Supervisor::refers_to_nothing(const Event& event) const {
  switch (event.kind) {
    case EventKind::agent_joined:
    case EventKind::agent_lost:
    case EventKind::agent_silent:
    case EventKind::agent_gone:
    case EventKind::ranks_stopped:
      return event.node < 0 || event.node >= config_.nodes;
    case EventKind::rank_started:
    case EventKind::start_failed:
    case EventKind::rank_exited:
    case EventKind::progress:
    case EventKind::checkpoint:
    case EventKind::hold:
      return event.rank < 0 || event.rank >= world_size();
    case EventKind::user_stop:
    case EventKind::preempt:
      return event.signal <= 0;
    default:
      return false;
  }
}

// --- agents ---------------------------------------------------------------------------------------------------------

void Supervisor::begin(const Event&) { await_agents(); }

void Supervisor::await_agents() {
  for (int n = 0; n < config_.nodes; ++n) {
    if (s_.nodes[n].state != NodeState::gone) continue;
    s_.nodes[n] = Node{.state = NodeState::coming};
    add(EffectKind::start_agent).node = n;
  }
  go(State::waiting_for_agents);
  arm(now_ + config_.agents_deadline);
  start_if_complete();
}

void Supervisor::start_if_complete() {
  const auto joined = [](const Node& node) { return node.state == NodeState::joined; };
  if (std::all_of(s_.nodes.begin(), s_.nodes.end(), joined)) start_attempt();
}

void Supervisor::join(const Event& event) {
  if (s_.nodes[event.node].state != NodeState::coming) return unexpected(event);
  join_late(event);
  start_if_complete();
}

void Supervisor::join_late(const Event& event) {
  Node& node = s_.nodes[event.node];
  if (node.state != NodeState::coming) return unexpected(event);
  node.state = NodeState::joined;
  node.host = event.host;
}

void Supervisor::join_leaving(const Event& event) {
  join_late(event);
  if (s_.nodes[event.node].state == NodeState::joined) add(EffectKind::send_goodbye).node = event.node;
}

void Supervisor::lose_agent(const Event& event) {
  Node& node = s_.nodes[event.node];
  if (node.state == NodeState::gone) return unexpected(event);
  const bool news = node.state != NodeState::lost;
  node.state = NodeState::lost;
  if (news && s_.state == State::stopping && failing()) add_follow_up(cause_from(event, CauseKind::agent_lost));
}

void Supervisor::agent_failed(const Event& event) {
  Node& node = s_.nodes[event.node];
  if (node.state == NodeState::gone) return unexpected(event);
  if (node.state == NodeState::lost) return;  // what made it lost has been dealt with
  node.state = NodeState::lost;
  fail(cause_from(event, CauseKind::agent_lost));
}

/// Its processes may be alive all the same: they are killed before anything is started anew (S2).
void Supervisor::silent_failed(const Event& event) {
  if (s_.nodes[event.node].state != NodeState::joined) return unexpected(event);
  kill_agent(event.node);
  fail(cause_from(event, CauseKind::agent_lost));
}

void Supervisor::silent_late(const Event& event) {
  if (s_.nodes[event.node].state != NodeState::joined) return unexpected(event);
  kill_agent(event.node);
  if (s_.state == State::stopping && failing()) add_follow_up(cause_from(event, CauseKind::agent_lost));
}

void Supervisor::agent_gone(const Event& event) {
  Node& node = s_.nodes[event.node];
  if (node.state == NodeState::gone) return unexpected(event);
  node.state = NodeState::gone;
  node.has_ranks = false;
}

void Supervisor::agent_gone_waiting(const Event& event) {
  if (s_.nodes[event.node].state != NodeState::lost) return agent_gone_active(event);
  agent_gone(event);
  await_agents();  // it was lost in an earlier attempt: now it can be replaced
}

void Supervisor::agent_gone_active(const Event& event) {
  const NodeState before = s_.nodes[event.node].state;
  agent_gone(event);
  if (before == NodeState::coming || before == NodeState::joined) fail(cause_from(event, CauseKind::agent_lost));
}

void Supervisor::agent_gone_stopping(const Event& event) {
  agent_gone(event);
  if (!ranks_left()) after_drain();
}

void Supervisor::agent_gone_finishing(const Event& event) {
  agent_gone(event);
  end_if_all_gone();
}

void Supervisor::agents_overdue(const Event&) {
  Cause cause{.kind = CauseKind::agents_missing, .attempt = s_.attempt, .at = now_};
  for (int n = 0; n < config_.nodes; ++n) {
    Node& node = s_.nodes[n];
    if (node.state == NodeState::joined) continue;
    cause.text += (cause.text.empty() ? "" : ", ") + std::to_string(n);
    if (cause.node < 0) cause.node = n;
    if (node.state != NodeState::gone) kill_agent(n);
  }
  fail(std::move(cause));
}

// --- ranks ----------------------------------------------------------------------------------------------------------

void Supervisor::start_attempt() {
  s_.attempt_started = true;
  std::fill(s_.ranks.begin(), s_.ranks.end(), RankState::idle);
  // Not needed for the first attempt: if its record is lost with the machine, nothing was charged to any budget.
  if (s_.attempt > s_.first_attempt) add(EffectKind::sync);
  for (int n = 0; n < config_.nodes; ++n) {
    s_.nodes[n].has_ranks = true;
    Effect& start = add(EffectKind::send_start);
    start.node = n;
    start.attempt = s_.attempt;
  }
  go(State::starting);
  arm(now_ + config_.start_deadline);
}

void Supervisor::rank_started(const Event& event) {
  RankState& rank = s_.ranks[event.rank];
  if (rank != RankState::idle) return unexpected(event);
  rank = RankState::started;
  after_rank_change();
}

void Supervisor::start_failed(const Event& event) { fail(cause_from(event, CauseKind::start_failed)); }

void Supervisor::rank_exited(const Event& event) {
  if (s_.ranks[event.rank] != RankState::started) return unexpected(event);
  s_.ranks[event.rank] = RankState::exited;
  if (event.exit_code != 0) return fail(cause_from(event, CauseKind::rank_failed));
  after_rank_change();
}

void Supervisor::after_rank_change() {
  if (std::all_of(s_.ranks.begin(), s_.ranks.end(), [](RankState r) { return r == RankState::exited; })) {
    return finish(kExitFinished);
  }
  const bool any_idle = std::find(s_.ranks.begin(), s_.ranks.end(), RankState::idle) != s_.ranks.end();
  if (s_.state != State::starting || any_idle) return;
  go(State::running);
  s_.active_since = now_;
  s_.deadline.reset();  // the start's
  arm_hang_check();
}

void Supervisor::start_overdue(const Event&) {
  const auto idle = std::find(s_.ranks.begin(), s_.ranks.end(), RankState::idle);
  Event event{.rank = static_cast<int>(idle - s_.ranks.begin())};
  fail(cause_from(event, CauseKind::start_overdue));
}

void Supervisor::stopped_early(const Event& event) {
  for (int r = 0; r < world_size(); ++r) {
    if (config_.node_of_rank[r] == event.node && s_.ranks[r] != RankState::exited) return unexpected(event);
  }
  s_.nodes[event.node].has_ranks = false;
}

// --- progress -------------------------------------------------------------------------------------------------------

void Supervisor::record_progress(const Event& event) {
  const bool held = now_ < s_.held_until;  // an interval that a person made long is none of the job's
  if (s_.progress_reports > 0 && !held) s_.longest_interval = std::max(s_.longest_interval, now_ - s_.active_since);
  ++s_.progress_reports;
  s_.active_since = now_;
  s_.step = std::max(s_.step, event.step);
  if (event.step > s_.step_best) {
    s_.step_best = event.step;
    s_.attempt_progressed = true;
  }
  if (s_.state == State::running) arm_hang_check();
  if (s_.state == State::starting || s_.state == State::running) inject_fault();
}

void Supervisor::inject_fault() {
  if (!config_.kill_rank || s_.kill_sent || s_.attempt != s_.first_attempt || s_.step < config_.kill_rank->step) return;
  s_.kill_sent = true;
  Effect& kill = add(EffectKind::send_kill);
  kill.rank = config_.kill_rank->rank;
  kill.node = config_.node_of_rank[kill.rank];
  kill.attempt = s_.attempt;
  kill.signal = SIGKILL;
}

void Supervisor::record_checkpoint(const Event& event) {
  s_.active_since = now_;
  if (event.step <= s_.checkpoint_step) return;
  s_.checkpoint_step = event.step;
  s_.checkpoint = event.text;
  s_.attempt_progressed = true;
}

milliseconds Supervisor::hang_limit() const {
  if (config_.hang_timeout.count() > 0) return config_.hang_timeout;
  if (s_.progress_reports < kReportsToTrust) return config_.runs_trainer ? kHangLimitBeforeSteps : milliseconds{0};
  const auto generous = std::chrono::ceil<milliseconds>(s_.longest_interval * kHangLimitIntervals);
  return std::max(kHangLimitMin, generous);
}

/// The timer is set only when it must fire earlier than it is set to, so that a report of progress costs no timer.
void Supervisor::arm_hang_check() {
  const milliseconds limit = hang_limit();
  if (limit.count() == 0) return arm(std::nullopt);
  const TimePoint due = std::max(s_.active_since, s_.held_until) + limit;
  if (!s_.deadline || due < *s_.deadline || *s_.deadline <= now_) arm(due);
}

void Supervisor::hold(const Event&) { s_.held_until = now_ + kHoldTime; }

void Supervisor::check_hang(const Event& event) {
  const milliseconds limit = hang_limit();
  if (limit.count() == 0) return unexpected(event);
  if (now_ < std::max(s_.active_since, s_.held_until) + limit) return arm_hang_check();
  Cause cause{.kind = CauseKind::hang, .attempt = s_.attempt, .step = s_.step, .at = now_};
  cause.text = std::to_string(limit.count() / 1000) + "." + std::to_string(limit.count() % 1000 / 100);
  fail(std::move(cause));
}

// --- the end of an attempt ------------------------------------------------------------------------------------------

Cause Supervisor::cause_from(const Event& event, CauseKind kind) const {
  Cause cause{.kind = kind, .attempt = s_.attempt, .rank = event.rank, .node = event.node, .host = {},
              .exit_code = event.exit_code, .signal = event.signal, .core_dumped = event.core_dumped, .step = s_.step,
              .detected_us = event.detected_us, .at = now_, .text = event.text, .tail = event.tail, .follow_ups = {}};
  if (kind == CauseKind::agent_lost) cause.rank = -1;
  if (cause.rank >= 0) cause.node = config_.node_of_rank[cause.rank];
  if (cause.node >= 0) cause.host = s_.nodes[cause.node].host;
  return cause;
}

void Supervisor::fail(Cause cause) {
  s_.cause = std::move(cause);
  stop_ranks(milliseconds{0}, config_.failure_grace);
  if (!ranks_left()) after_drain();
}

void Supervisor::stop_ranks(milliseconds drain, milliseconds grace) {
  for (int n = 0; n < config_.nodes; ++n) {
    if (s_.nodes[n].state != NodeState::joined || !s_.nodes[n].has_ranks) continue;
    Effect& stop = add(EffectKind::send_stop);
    stop.node = n;
    stop.attempt = s_.attempt;
    stop.drain = drain;
    stop.grace = grace;
  }
  go(State::stopping);
  arm(now_ + drain + grace + config_.agent_slack);
}

void Supervisor::ranks_stopped(const Event& event) {
  s_.nodes[event.node].has_ranks = false;
  if (!ranks_left()) after_drain();
}

void Supervisor::late_start(const Event& event) {
  if (s_.ranks[event.rank] != RankState::idle) return unexpected(event);
  s_.ranks[event.rank] = RankState::started;
}

void Supervisor::late_failure(const Event& event) {
  if (failing()) add_follow_up(cause_from(event, CauseKind::start_failed));
}

void Supervisor::late_exit(const Event& event) {
  if (s_.ranks[event.rank] == RankState::exited) return unexpected(event);
  s_.ranks[event.rank] = RankState::exited;
  if (failing() && event.exit_code != 0) add_follow_up(cause_from(event, CauseKind::rank_failed));
}

/// Attaches a later failure to the cause, or exchanges the two when it was detected first (S3).
void Supervisor::add_follow_up(Cause late) {
  Cause& cause = *s_.cause;
  const bool comparable = late.host == cause.host && late.detected_us >= 0 && cause.detected_us >= 0;
  if (comparable && late.detected_us < cause.detected_us) {
    std::swap(cause, late);
    cause.follow_ups = std::move(late.follow_ups);
  } else if (late.signal == SIGTERM || late.signal == SIGKILL) {
    return;  // our own doing
  }
  if (cause.follow_ups.size() < kFollowUpsMax) cause.follow_ups.push_back(describe(late));
}

void Supervisor::stop_overdue(const Event&) {
  bool hopeless = false;
  for (int n = 0; n < config_.nodes; ++n) {
    if (!s_.nodes[n].has_ranks) continue;
    hopeless = hopeless || s_.nodes[n].was_killed;
    kill_agent(n);
  }
  arm(now_ + config_.agent_slack);
  if (!hopeless) return;
  s_.verdict = "an agent answered neither to the stop of its ranks nor to its own end";
  if (failing()) report_cause();
  finish(stop_code().value_or(kExitFailed));
}

void Supervisor::after_drain() {
  if (failing()) report_cause();
  if (const std::optional<int> code = stop_code()) return finish(*code);
  if (const std::optional<int> code = reason_to_give_up()) return finish(*code);
  ++s_.restarts;
  ++s_.attempt;
  const bool awaits_node = !s_.attempt_started;  // restart.lost_node = "wait", else it had been given up
  s_.attempt_started = s_.attempt_progressed = false;
  s_.step = -1;
  s_.progress_reports = 0;
  s_.longest_interval = TimePoint{0};
  milliseconds delay = config_.restart.backoff;
  for (int n = 1; n < s_.restarts && delay < kBackoffMax; ++n) delay *= 2;
  delay = std::min(delay, kBackoffMax);
  if (awaits_node) delay = std::max(delay, kNodeWait);
  if (delay.count() == 0) return await_agents();
  go(State::backing_off);
  arm(now_ + delay);
}

void Supervisor::report_cause() {
  if (s_.attempt_progressed) s_.attempts_without_progress = 0;
  else if (s_.attempt_started) ++s_.attempts_without_progress;  // one that waits for a node in vain says nothing
  add(EffectKind::report_cause);
}

/// The exit code if there shall be no further attempt; the verdict says why.
std::optional<int> Supervisor::reason_to_give_up() {
  const Cause& cause = *s_.cause;
  if (s_.attempt == s_.first_attempt && !s_.attempt_started) {
    s_.verdict = "the agents could not be started";
    return kExitNoAgents;
  }
  if (cause.kind == CauseKind::start_failed) {
    s_.verdict = "it would fail again: the rank's program or its set-up is wrong";
    return kExitFailed;
  }
  if (config_.runs_trainer && (cause.exit_code == kExitBadInput || cause.exit_code == kExitInfeasible)) {
    s_.verdict = "it would fail again: the job's input is wrong or does not fit";
    return *cause.exit_code;
  }
  const bool is_lost = cause.kind == CauseKind::agent_lost || cause.kind == CauseKind::agents_missing;
  if (is_lost && !s_.attempt_started && config_.restart.lost_node != LostNode::wait) {
    s_.lost_node = cause.node;
    s_.verdict = "node " + std::to_string(cause.node) + " does not come back (restart.lost_node)";
    return s_.checkpoint.empty() ? kExitFailed : kExitRequeue;
  }
  if (s_.restarts >= config_.restart.max_restarts) {
    s_.verdict = "restart.max_restarts = " + std::to_string(config_.restart.max_restarts) + " is used up";
    return kExitFailed;
  }
  if (s_.attempts_without_progress >= config_.restart.no_progress_limit) {
    s_.verdict = std::to_string(s_.attempts_without_progress) +
                 " attempts in a row made no progress (restart.no_progress_limit)";
    return kExitFailed;
  }
  return std::nullopt;
}

void Supervisor::back_off_over(const Event&) { await_agents(); }

// --- small parts ----------------------------------------------------------------------------------------------------

void Supervisor::unexpected(const Event& event) {
  ++s_.unexpected_events;
  std::string text = std::string("unexpected ") + to_string(event.kind) + " while " + to_string(s_.state);
  if (event.rank >= 0) text += ", rank " + std::to_string(event.rank);
  if (event.node >= 0) text += ", node " + std::to_string(event.node);
  add(EffectKind::note).text = std::move(text);
}

/// Races that are part of normal life, such as a rank's end that crosses the goodbye.
void Supervisor::expected_late(const Event&) {}

bool Supervisor::failing() const { return s_.cause && s_.cause->attempt == s_.attempt; }

bool Supervisor::ranks_left() const {
  return std::any_of(s_.nodes.begin(), s_.nodes.end(), [](const Node& node) { return node.has_ranks; });
}

void Supervisor::kill_agent(int node) {
  s_.nodes[node].state = NodeState::lost;
  s_.nodes[node].was_killed = true;
  add(EffectKind::kill_agent).node = node;
}

void Supervisor::arm(std::optional<TimePoint> at) {
  s_.deadline = at;
  if (at) add(EffectKind::arm_timer).at = *at;
}

Effect& Supervisor::add(EffectKind kind) {
  effects_.push_back(Effect{.kind = kind});
  return effects_.back();
}

}  // namespace mds::launcher
