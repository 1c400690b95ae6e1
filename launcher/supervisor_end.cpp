// How a run ends: by the user, by a preemption, or because there is nothing more to do.
#include <algorithm>

#include "launcher/run.hpp"
#include "launcher/supervisor.hpp"

namespace mds::launcher {

using std::chrono::milliseconds;

void Supervisor::user_stop_early(const Event& event) {
  count_signal(event);
  finish(128 + s_.user_signal);
}

void Supervisor::user_stop_active(const Event& event) {
  count_signal(event);
  stop_ranks(config_.user_drain, config_.user_grace);
  if (!ranks_left()) after_drain();
}

void Supervisor::user_stop_again(const Event& event) {
  count_signal(event);
  if (s_.user_signals == 1) return;  // the drain of a failed attempt is quick anyway
  stop_ranks(milliseconds{0}, milliseconds{0});
}

void Supervisor::user_stop_finishing(const Event& event) {
  count_signal(event);
  if (s_.user_signals < 2) return;
  for (int n = 0; n < config_.nodes; ++n) {
    if (s_.nodes[n].state != NodeState::gone) kill_agent(n);
  }
}

/// The exit code if the user or a preemption ends the run (S9, S11).
std::optional<int> Supervisor::stop_code() const {
  if (s_.user_signal) return 128 + s_.user_signal;
  if (!s_.preempt_signal) return std::nullopt;
  return s_.checkpoint.empty() ? 128 + s_.preempt_signal : kExitRequeue;
}

void Supervisor::preempt_early(const Event& event) {
  s_.preempt_signal = event.signal;
  finish(*stop_code());
}

void Supervisor::preempt_active(const Event& event) {
  s_.preempt_signal = event.signal;
  stop_ranks(config_.preempt_drain, config_.preempt_grace);
  if (!ranks_left()) after_drain();
}

/// Slurm says it more than once. That is no reason to cut off a checkpoint that is being written: whoever wants the
/// nodes kills in the end.
void Supervisor::preempt_stopping(const Event& event) {
  if (!s_.preempt_signal) s_.preempt_signal = event.signal;
}

void Supervisor::count_signal(const Event& event) {
  if (s_.user_signals++ == 0) s_.user_signal = event.signal;
}

void Supervisor::finish(int exit_code) {
  s_.exit_code = exit_code;
  go(State::finishing);
  for (int n = 0; n < config_.nodes; ++n) {
    if (s_.nodes[n].state == NodeState::joined) add(EffectKind::send_goodbye).node = n;
    if (s_.nodes[n].state == NodeState::coming) kill_agent(n);
  }
  add(EffectKind::sync);  // after the goodbyes, so that the disk and the agents work at the same time
  arm(now_ + config_.agent_slack);
  end_if_all_gone();
}

void Supervisor::leave_overdue(const Event&) {
  bool hopeless = true;
  for (int n = 0; n < config_.nodes; ++n) {
    if (s_.nodes[n].state == NodeState::gone) continue;
    hopeless = hopeless && s_.nodes[n].was_killed;
    kill_agent(n);
  }
  if (hopeless) return end();
  arm(now_ + config_.agent_slack);
}

void Supervisor::end_if_all_gone() {
  const auto gone = [](const Node& node) { return node.state == NodeState::gone; };
  if (std::all_of(s_.nodes.begin(), s_.nodes.end(), gone)) end();
}

void Supervisor::end() {
  go(State::ended);
  arm(std::nullopt);
  add(EffectKind::end).exit_code = s_.exit_code;
}

}  // namespace mds::launcher
