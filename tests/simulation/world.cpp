#include "tests/simulation/world.hpp"

#include <algorithm>
#include <csignal>

#include <nlohmann/json.hpp>

namespace mds::simulation {

using namespace launcher;
using std::chrono::milliseconds;

namespace {

constexpr uint64_t kEventsMax = 200'000;
constexpr TimePoint kSilenceLimit = std::chrono::seconds(15);
constexpr TimePoint kTimeMax = std::chrono::hours(48);

}  // namespace

Knobs random_knobs(uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto upto = [&](int64_t max) { return std::uniform_int_distribution<int64_t>(0, max)(random); };
  const auto sometimes = [&](double most) { return upto(2) == 0 ? most * static_cast<double>(upto(100)) / 100 : 0.0; };
  Knobs k;
  k.seed = random();
  k.config.nodes = static_cast<int>(1 + upto(4));
  const int per_node = static_cast<int>(1 + upto(3));
  for (int r = 0; r < k.config.nodes * per_node; ++r) k.config.node_of_rank.push_back(r / per_node);
  k.config.restart.max_restarts = static_cast<int>(upto(5));
  k.config.restart.no_progress_limit = static_cast<int>(1 + upto(4));
  k.config.restart.backoff = milliseconds(upto(1) * upto(5000));
  k.config.runs_trainer = upto(1);
  if (upto(2) == 0) k.config.hang_timeout = milliseconds(20'000 + upto(50'000));
  if (upto(3) == 0) k.config.kill_rank = KillRank{static_cast<int>(upto(k.config.nodes * per_node - 1)), upto(15)};
  k.rank_dies = sometimes(0.1);
  k.rank_hangs = k.config.hang_timeout.count() > 0 || k.config.runs_trainer ? sometimes(0.03) : 0;
  k.start_fails = sometimes(0.02);
  k.agent_never_connects = sometimes(0.05);
  k.agent_dies_at_start = sometimes(0.05);
  k.agent_dies = sometimes(0.03);
  k.agent_freezes = sometimes(0.02);
  k.agent_falls_silent = sometimes(0.2);
  k.unkillable = sometimes(0.1);
  k.stale_echo = sometimes(0.3);
  k.user_stops = sometimes(0.03);
  k.preempted = sometimes(0.03);
  return k;
}

World::World(Knobs knobs)
    : knobs_(std::move(knobs)),
      random_(knobs_.seed),
      supervisor_(knobs_.config),
      replayed_(*supervisor_config_from_json(nlohmann::json::parse(to_json(knobs_.config).dump()))),
      agents_(knobs_.config.nodes),
      ranks_(knobs_.config.node_of_rank.size()) {}

Outcome World::run() {
  give(Event{.kind = EventKind::begin});
  while (!queue_.empty() && outcome_.violation.empty() && outcome_.events < kEventsMax && now_ < kTimeMax) {
    const Entry next = queue_.top();
    queue_.pop();
    now_ = next.at;
    next.action();
  }
  outcome_.state = supervisor_.state();
  outcome_.attempts = static_cast<int>(supervisor_.state().attempt);
  outcome_.causes = failed_with_cause_;
  return outcome_;
}

// --- the supervisor and what must hold ------------------------------------------------------------------------------

void World::give(const Event& event) {
  ++outcome_.events;
  const SupervisorState before = supervisor_.state();
  const Effects effects = supervisor_.step(event, now_);
  const Effects again = replayed_.step(*event_from_json(nlohmann::json::parse(to_json(event).dump())), now_);
  if (effects != again || !(supervisor_.state() == replayed_.state())) violated("S10: the replay differs");
  if (effects.empty() || effects[0].kind != EffectKind::log) violated("S1: the event is not logged first");
  if (before.state == State::ended && !(effects.size() == 1 || effects[1].kind == EffectKind::note)) {
    violated("S8: something follows the end");
  }
  check_effects(event, effects);
  for (const Effect& effect : effects) carry_out(effect);
}

void World::check_effects(const Event& event, const Effects& effects) {
  const SupervisorState& s = supervisor_.state();
  if (s.restarts > knobs_.config.restart.max_restarts) violated("S4: more restarts than allowed");
  if (s.restarts + 1 != static_cast<int>(s.attempt)) violated("attempts and restarts do not fit");
  if (event.kind == EventKind::user_stop || event.kind == EventKind::preempt) user_stopped_ = true;
  for (const Effect& effect : effects) {
    if (effect.kind == EffectKind::report_cause) {
      ++failed_with_cause_;
      if (!s.cause || s.cause->attempt <= last_cause_attempt_) violated("S3: a second first cause of an attempt");
      last_cause_attempt_ = s.cause->attempt;
    }
    if (effect.kind == EffectKind::send_start && user_stopped_) violated("S9, S11: an attempt after a stop");
  }
}

void World::carry_out(const Effect& effect) {
  switch (effect.kind) {
    case EffectKind::start_agent: return start_agent(effect.node);
    case EffectKind::send_start:
      for (const Rank& rank : ranks_) {
        if (rank.alive && rank.attempt != effect.attempt) violated("S2: a start while older ranks live");
      }
      return start_ranks(effect.node, effect.attempt);
    case EffectKind::send_stop: return stop_ranks(effect.node, effect.attempt, effect.drain + effect.grace);
    case EffectKind::send_kill:
      later(delay(3), [this, effect] {
        if (ranks_[effect.rank].alive) rank_exits(effect.rank, 0, effect.signal);
      });
      return;
    case EffectKind::send_goodbye:
      if (chance(knobs_.agent_falls_silent)) agents_[effect.node].silent = true;
      if (agents_[effect.node].silent) return;
      return later(delay(20), [this, node = effect.node] { end_agent(node, "connection closed"); });
    case EffectKind::kill_agent:
      if (chance(knobs_.unkillable)) {
        anything_unkillable_ = true;
        return;
      }
      return later(delay(20), [this, node = effect.node] { end_agent(node, "its process was killed"); });
    case EffectKind::arm_timer:
      return later(std::max(effect.at, now_) - now_, [this, timer = ++timer_] {
        if (timer == timer_) give(Event{.kind = EventKind::tick});
      });
    case EffectKind::end:
      if (outcome_.ended) violated("S8: a second end");
      outcome_.ended = true;
      outcome_.exit_code = effect.exit_code;
      if (any_rank_alive() && !anything_unkillable_) violated("S8: ranks live after the end");
      return;
    default:
      return;
  }
}

// --- agents and ranks -----------------------------------------------------------------------------------------------

void World::start_agent(int node) {
  AgentLife& agent = agents_[node];
  if (agent.alive) violated("an agent is started where one lives");
  if (any_rank_alive(node)) violated("S2: an agent is started on a node with living ranks");
  agent = AgentLife{.alive = true, .ever_told_gone = false};
  agent.last_delivery = now_;
  if (chance(knobs_.agent_never_connects)) {
    agent.silent = true;
    return;
  }
  later(delay(50), [this, node] {
    if (!agents_[node].alive || agents_[node].connected) return;
    if (chance(knobs_.agent_dies_at_start)) return end_agent(node, "its process exited with code 4");
    agents_[node].connected = true;
    tell(node, Event{.kind = EventKind::agent_joined, .node = node, .host = "host" + std::to_string(node / 2)});
  });
}

/// The agent, its guard and all its ranks end; both the connection's and the process' end are reported.
void World::end_agent(int node, const std::string& why) {
  AgentLife& agent = agents_[node];
  if (!agent.alive) return;
  agent.alive = agent.connected = false;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (knobs_.config.node_of_rank[r] == node) ranks_[r].alive = false;
  }
  const bool silent = std::exchange(agent.silent, false);
  if (!silent) tell(node, Event{.kind = EventKind::agent_lost, .node = node, .text = why});
  tell(node, Event{.kind = EventKind::agent_gone, .node = node});
}

void World::start_ranks(int node, uint32_t attempt) {
  if (!agents_[node].alive || agents_[node].silent) return;
  later(delay(5), [this, node, attempt] {
    if (!agents_[node].alive || agents_[node].silent) return;
    for (int r = 0; r < static_cast<int>(ranks_.size()); ++r) {
      if (knobs_.config.node_of_rank[r] != node) continue;
      if (chance(knobs_.start_fails)) {
        tell(node, Event{.kind = EventKind::start_failed, .attempt = attempt, .rank = r, .text = "no such program"});
        continue;
      }
      const int64_t from = supervisor_.state().checkpoint_step;
      ranks_[r] = Rank{.alive = true, .attempt = attempt, .step = std::max<int64_t>(0, from)};
      tell(node, Event{.kind = EventKind::rank_started, .attempt = attempt, .rank = r});
      later(delay(knobs_.step_ms_mean), [this, r, attempt] { work(r, attempt); });
    }
  });
}

void World::stop_ranks(int node, uint32_t attempt, TimePoint within) {
  if (chance(knobs_.agent_falls_silent)) agents_[node].silent = true;
  if (!agents_[node].alive || agents_[node].silent) return;
  const int64_t ms = std::chrono::duration_cast<milliseconds>(within).count();
  later(delay(std::min<int64_t>(ms, 3000)), [this, node, attempt] {
    if (!agents_[node].alive || agents_[node].silent) return;
    for (int r = 0; r < static_cast<int>(ranks_.size()); ++r) {
      if (ranks_[r].alive && knobs_.config.node_of_rank[r] == node) rank_exits(r, 0, SIGTERM);
    }
    tell(node, Event{.kind = EventKind::ranks_stopped, .attempt = attempt, .node = node});
  });
}

/// Its connection stays; the head misses its heartbeats.
void World::freeze_agent(int node) {
  agents_[node].silent = true;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (knobs_.config.node_of_rank[r] == node) ranks_[r].hangs = true;
  }
  later(kSilenceLimit, [this, node] {
    if (!agents_[node].alive || !agents_[node].silent) return;
    give(Event{.kind = EventKind::agent_silent, .node = node, .text = "no heartbeat for 15 s"});
  });
}

/// One step of one rank; rank 0 speaks for all.
void World::work(int rank, uint32_t attempt) {
  Rank& me = ranks_[rank];
  const int node = knobs_.config.node_of_rank[rank];
  if (!me.alive || me.attempt != attempt || me.hangs) return;
  if (chance(knobs_.rank_hangs)) {
    for (Rank& other : ranks_) other.hangs = true;
    return;
  }
  if (chance(knobs_.agent_dies)) return end_agent(node, "connection reset");
  if (chance(knobs_.agent_freezes)) return freeze_agent(node);
  if (chance(knobs_.user_stops)) give(Event{.kind = EventKind::user_stop, .signal = chance(0.5) ? SIGINT : SIGTERM});
  if (chance(knobs_.preempted)) give(Event{.kind = EventKind::preempt, .signal = chance(0.5) ? SIGUSR1 : SIGTERM});
  if (!me.alive) return;
  if (chance(knobs_.rank_dies)) return chance(0.5) ? rank_exits(rank, 0, SIGKILL) : rank_exits(rank, 1, 0);
  ++me.step;
  if (rank == 0) {
    tell(node, Event{.kind = EventKind::progress, .attempt = attempt, .rank = 0, .step = me.step});
    if (me.step % knobs_.checkpoint_interval == 0) {
      tell(node, Event{.kind = EventKind::checkpoint, .attempt = attempt, .rank = 0, .step = me.step,
                       .text = "step-" + std::to_string(me.step)});
    }
  }
  if (me.step >= knobs_.steps) return rank_exits(rank, 0, 0);
  later(delay(2 * knobs_.step_ms_mean), [this, rank, attempt] { work(rank, attempt); });
}

void World::rank_exits(int rank, int exit_code, int signal) {
  ranks_[rank].alive = false;
  Event event{.kind = EventKind::rank_exited, .attempt = ranks_[rank].attempt, .rank = rank, .signal = signal};
  if (signal == 0) event.exit_code = exit_code;
  event.detected_us = now_.count();
  event.tail = {"last line of rank " + std::to_string(rank)};
  tell(knobs_.config.node_of_rank[rank], event);
}

bool World::any_rank_alive(int node) const {
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (ranks_[r].alive && (node < 0 || knobs_.config.node_of_rank[r] == node)) return true;
  }
  return false;
}

// --- clock and network ----------------------------------------------------------------------------------------------

bool World::chance(double probability) {
  return probability > 0 && std::uniform_real_distribution<>(0, 1)(random_) < probability;
}

TimePoint World::delay(int64_t ms_max) {
  return TimePoint(std::uniform_int_distribution<int64_t>(0, ms_max * 1000)(random_));
}

void World::later(TimePoint after, std::function<void()> action) {
  queue_.push(Entry{now_ + after, order_++, std::move(action)});
}

/// Messages of one node arrive late, but in order; some of them are heard again much later.
void World::tell(int node, Event event) {
  AgentLife& agent = agents_[node];
  agent.last_delivery = std::max(agent.last_delivery, now_ + delay(5));
  queue_.push(Entry{agent.last_delivery, order_++, [this, event] { give(event); }});
  const bool of_attempt = event.rank >= 0 || event.kind == EventKind::ranks_stopped;
  if (!of_attempt || !chance(knobs_.stale_echo)) return;
  later(delay(60'000), [this, event] {
    if (event.attempt != supervisor_.state().attempt) give(event);
  });
}

void World::violated(const std::string& text) {
  if (outcome_.violation.empty()) {
    outcome_.violation = text + " at " + std::to_string(now_.count()) + " us in state " +
                         launcher::to_string(supervisor_.state().state);
  }
}

}  // namespace mds::simulation
