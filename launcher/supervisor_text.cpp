// Names and sentences for the supervisor's values.
#include <csignal>
#include <cstring>

#include "launcher/supervisor.hpp"

namespace mds::launcher {

const char* to_string(State v) {
  switch (v) {
    case State::idle: return "idle";
    case State::waiting_for_agents: return "waiting_for_agents";
    case State::starting: return "starting";
    case State::running: return "running";
    case State::stopping: return "stopping";
    case State::backing_off: return "backing_off";
    case State::finishing: return "finishing";
    case State::ended: return "ended";
  }
  return "?";
}

const char* to_string(EventKind v) {
  switch (v) {
    case EventKind::begin: return "begin";
    case EventKind::agent_joined: return "agent_joined";
    case EventKind::agent_lost: return "agent_lost";
    case EventKind::agent_silent: return "agent_silent";
    case EventKind::agent_gone: return "agent_gone";
    case EventKind::rank_started: return "rank_started";
    case EventKind::start_failed: return "start_failed";
    case EventKind::rank_exited: return "rank_exited";
    case EventKind::ranks_stopped: return "ranks_stopped";
    case EventKind::progress: return "progress";
    case EventKind::checkpoint: return "checkpoint";
    case EventKind::tick: return "tick";
    case EventKind::user_stop: return "user_stop";
    case EventKind::preempt: return "preempt";
    case EventKind::hold: return "hold";
  }
  return "?";
}

const char* to_string(EffectKind v) {
  switch (v) {
    case EffectKind::log: return "log";
    case EffectKind::sync: return "sync";
    case EffectKind::start_agent: return "start_agent";
    case EffectKind::send_start: return "send_start";
    case EffectKind::send_stop: return "send_stop";
    case EffectKind::send_kill: return "send_kill";
    case EffectKind::send_goodbye: return "send_goodbye";
    case EffectKind::kill_agent: return "kill_agent";
    case EffectKind::arm_timer: return "arm_timer";
    case EffectKind::report_cause: return "report_cause";
    case EffectKind::note: return "note";
    case EffectKind::end: return "end";
  }
  return "?";
}

const char* to_string(CauseKind v) {
  switch (v) {
    case CauseKind::rank_failed: return "rank_failed";
    case CauseKind::start_failed: return "start_failed";
    case CauseKind::agent_lost: return "agent_lost";
    case CauseKind::agents_missing: return "agents_missing";
    case CauseKind::start_overdue: return "start_overdue";
    case CauseKind::hang: return "hang";
  }
  return "?";
}

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name ? std::string("SIG") + name : "signal " + std::to_string(signal);
}

namespace {

std::string where(const Cause& cause) {
  std::string text = cause.rank >= 0 ? "rank " + std::to_string(cause.rank) + " on " : "";
  text += "node " + std::to_string(cause.node);
  if (!cause.host.empty()) text += " (" + cause.host + ")";
  return text;
}

std::string how_it_ended(const Cause& cause) {
  if (cause.signal) {
    return "was killed by signal " + std::to_string(cause.signal) + " (" + signal_name(cause.signal) + ")" +
           (cause.core_dumped ? ", core dumped" : "");
  }
  return cause.exit_code ? "exited with code " + std::to_string(*cause.exit_code) : "ended for an unknown reason";
}

}  // namespace

std::string describe(const Cause& cause) {
  const std::string after = cause.step >= 0 ? " after step " + std::to_string(cause.step) : "";
  switch (cause.kind) {
    case CauseKind::rank_failed: return where(cause) + " " + how_it_ended(cause) + after;
    case CauseKind::start_failed: return where(cause) + " could not be started: " + cause.text;
    case CauseKind::agent_lost: return "the agent of " + where(cause) + " was lost" + after + ": " + cause.text;
    case CauseKind::agents_missing: return "no agent connected in time from node " + cause.text;
    case CauseKind::start_overdue: return where(cause) + " was not started in time by its agent";
    case CauseKind::hang: return "no progress for " + cause.text + " s" + after;
  }
  return "?";
}

std::string describe(const Effect& effect) {
  std::string text = to_string(effect.kind);
  const auto put = [&](const char* name, auto value) { text += std::string(" ") + name + "=" + std::to_string(value); };
  if (effect.node >= 0) put("node", effect.node);
  if (effect.rank >= 0) put("rank", effect.rank);
  switch (effect.kind) {
    case EffectKind::send_start: put("attempt", effect.attempt); break;
    case EffectKind::send_stop:
      put("attempt", effect.attempt);
      put("drain_ms", effect.drain.count());
      put("grace_ms", effect.grace.count());
      break;
    case EffectKind::send_kill: put("signal", effect.signal); break;
    case EffectKind::arm_timer: put("at_ms", effect.at.count() / 1000); break;
    case EffectKind::end: put("exit_code", effect.exit_code); break;
    case EffectKind::log: text += " state=" + effect.text; break;
    case EffectKind::note: text += ": " + effect.text; break;
    default: break;
  }
  return text;
}

}  // namespace mds::launcher
