// Thousands of simulated runs with random faults: none crashes (a crash fails the program), each ends (liveness), and
// the invariants of supervisor.hpp hold (correctness).
#include <array>
#include <cstdlib>
#include <fstream>
#include <random>

#include <nlohmann/json.hpp>

#include "launcher/run.hpp"
#include "tests/agent/random_seed.hpp"
#include "tests/agent/temporary_folder.hpp"
#include "tests/catch.hpp"
#include "tests/simulation/world.hpp"

using namespace mds;
using namespace mds::launcher;
using simulation::Knobs;
using simulation::Outcome;
using simulation::World;

namespace {

Event random_event(std::mt19937_64& random, const SupervisorConfig& config, uint32_t attempt) {
  const auto upto = [&](int64_t max) { return std::uniform_int_distribution<int64_t>(0, max)(random); };
  Event event;
  event.kind = static_cast<EventKind>(upto(kEventKinds - 1));
  event.attempt = upto(4) == 0 ? static_cast<uint32_t>(upto(3)) : attempt;
  event.node = static_cast<int>(upto(config.nodes + 1)) - 1;
  event.rank = static_cast<int>(upto(static_cast<int64_t>(config.node_of_rank.size()) + 1)) - 1;
  event.step = upto(50) - 1;
  if (upto(1)) event.exit_code = static_cast<int>(upto(3));
  if (!event.exit_code) event.signal = static_cast<int>(upto(15));
  event.host = "h" + std::to_string(upto(1));
  if (upto(1)) event.detected_us = upto(1000);
  event.text = "text";
  return event;
}

/// Events that bring a run in good order to one of its states: up to `phase` 0 idle, 1 waiting, 2 starting, 3 running,
/// 4 stopping, 5 the attempt after (backing off, starting or finishing).
std::vector<Event> orderly(const SupervisorConfig& config, int phase) {
  std::vector<Event> events;
  const int ranks = static_cast<int>(config.node_of_rank.size());
  if (phase >= 1) events.push_back({.kind = EventKind::begin});
  for (int n = 0; phase >= 2 && n < config.nodes; ++n) {
    events.push_back({.kind = EventKind::agent_joined, .node = n, .host = "h"});
  }
  for (int r = 0; phase >= 3 && r < ranks; ++r) {
    events.push_back({.kind = EventKind::rank_started, .attempt = kFirstAttempt, .rank = r});
  }
  if (phase >= 4) events.push_back({.kind = EventKind::rank_exited, .attempt = kFirstAttempt, .rank = 0, .signal = 9});
  for (int n = 0; phase >= 5 && n < config.nodes; ++n) {
    events.push_back({.kind = EventKind::ranks_stopped, .attempt = kFirstAttempt, .node = n});
  }
  return events;
}

}  // namespace

TEST_CASE("simulation: every run ends, within its budget, with one first cause for each failed attempt") {
  const uint64_t seed = fresh_seed();
  const int runs = std::getenv("MDS_SIMULATIONS") ? std::atoi(std::getenv("MDS_SIMULATIONS")) : 3000;
  std::mt19937_64 random(seed);
  int finished = 0, failed = 0, stopped = 0, restarted = 0, preempted = 0;
  for (int i = 0; i < runs; ++i) {
    const uint64_t run_seed = random();
    INFO("MDS_TEST_SEED=" << seed << ", run " << i << ", seed of its knobs " << run_seed);
    const Outcome outcome = World(simulation::random_knobs(run_seed)).run();
    INFO(outcome.events << " events, " << outcome.attempts << " attempts, state " << to_string(outcome.state.state));
    REQUIRE(outcome.violation == "");
    REQUIRE(outcome.ended);
    if (outcome.exit_code == 0) REQUIRE(outcome.causes == outcome.attempts - 1);
    if (outcome.exit_code == kExitRequeue) REQUIRE(outcome.state.checkpoint != "");
    const bool fails = outcome.exit_code > 0 && outcome.exit_code < 128 && outcome.exit_code != kExitRequeue;
    if (fails) {
      REQUIRE(outcome.causes == outcome.attempts);
      REQUIRE(outcome.state.verdict != "");
    }
    finished += outcome.exit_code == 0;
    failed += fails;
    preempted += outcome.exit_code == kExitRequeue;
    stopped += outcome.exit_code > 128;
    restarted += outcome.exit_code == 0 && outcome.attempts > 1;
  }
  // The knobs reach all kinds of ends; else the simulation tests less than it says.
  CHECK(finished > runs / 20);
  CHECK(failed > runs / 20);
  CHECK(stopped > runs / 100);
  CHECK(restarted > runs / 100);
  CHECK(preempted > runs / 100);
}

TEST_CASE("simulation: a run without faults finishes at the first attempt") {
  const uint64_t seed = fresh_seed();
  for (uint64_t i = 0; i < 100; ++i) {
    Knobs knobs = simulation::random_knobs(seed + i);
    INFO("MDS_TEST_SEED=" << seed << ", run " << i);
    knobs.rank_dies = knobs.rank_hangs = knobs.start_fails = knobs.agent_never_connects = knobs.agent_dies_at_start = 0;
    knobs.agent_dies = knobs.agent_freezes = 0;
    knobs.agent_falls_silent = knobs.unkillable = knobs.user_stops = knobs.preempted = 0;
    knobs.config.kill_rank.reset();
    const Outcome outcome = World(knobs).run();
    REQUIRE(outcome.violation == "");
    REQUIRE(outcome.exit_code == 0);
    REQUIRE(outcome.attempts == 1);
    REQUIRE(outcome.state.unexpected_events == 0);
  }
}

TEST_CASE("simulation: any event in any state is answered (S1, S6, S8), and stale ones only counted (S5)") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  std::array<std::array<int, kEventKinds>, kStates> met{};
  for (int run = 0; run < 3000; ++run) {
    SupervisorConfig config = simulation::random_knobs(random()).config;
    Supervisor supervisor(config);
    TimePoint now{0};
    int ends = 0;
    for (const Event& event : orderly(config, run % 6)) supervisor.step(event, now);
    for (int i = 0; i < 50; ++i) {
      now += std::chrono::milliseconds(random() % 4 == 0 ? random() % 40'000 : random() % 100);
      const Event event = random_event(random, config, supervisor.state().attempt);
      SupervisorState before = supervisor.state();
      ++met[static_cast<int>(before.state)][static_cast<int>(event.kind)];
      const Effects effects = supervisor.step(event, now);
      REQUIRE(!effects.empty());
      REQUIRE(effects[0].kind == EffectKind::log);
      for (const Effect& effect : effects) ends += effect.kind == EffectKind::end;
      if (supervisor.state().stale_events > before.stale_events) {
        ++before.stale_events;
        REQUIRE(before == supervisor.state());
        REQUIRE(effects.size() == 1);
      }
    }
    REQUIRE(ends <= 1);
  }
  for (int state = 0; state < kStates; ++state) {
    for (int kind = 0; kind < kEventKinds; ++kind) {
      INFO(to_string(static_cast<State>(state)) << " x " << to_string(static_cast<EventKind>(kind)));
      CHECK(met[state][kind] > 0);
    }
  }
}

TEST_CASE("simulation: the event log's file gives the live state back at every prefix (S10)") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  TemporaryFolder folder;
  const std::string path = folder.path() + "/events.jsonl";
  const SupervisorConfig config = simulation::random_knobs(random()).config;
  auto log = EventLog::create(path, config);
  REQUIRE(log.ok());
  Supervisor live(config);
  std::vector<SupervisorState> states{live.state()};
  TimePoint now{0};
  for (int i = 0; i < 400; ++i) {
    now += std::chrono::microseconds(random() % 5'000'000);
    const Event event = i == 0 ? Event{.kind = EventKind::begin} : random_event(random, config, live.state().attempt);
    const Effects effects = live.step(event, now);
    REQUIRE((*log)->append(event, now, effects, live.state()).ok());
    states.push_back(live.state());
  }
  REQUIRE((*log)->sync().ok());
  REQUIRE(is_being_written(path));
  log->reset();
  REQUIRE(!is_being_written(path));
  auto read = read_event_log(path);
  REQUIRE(read.ok());
  REQUIRE(read->events.size() == 400);
  for (size_t prefix = 0; prefix <= 400; prefix += 1 + random() % 40) {
    LoggedRun part{read->config, {read->events.begin(), read->events.begin() + static_cast<long>(prefix)}};
    REQUIRE(replay(part).state() == states[prefix]);
  }
  REQUIRE(replay(*read).state() == live.state());
}

TEST_CASE("simulation: a resumed run counts its attempts on, and its log replays across the resumption (S10)") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  TemporaryFolder folder;
  const std::string path = folder.path() + "/events.jsonl";
  SupervisorConfig config = simulation::random_knobs(random()).config;
  Supervisor live(config);
  TimePoint now{0};
  for (int life = 0; life < 5; ++life) {
    INFO("life " << life);
    auto log = life == 0 ? EventLog::create(path, config) : EventLog::append_to(path, config);
    REQUIRE(log.ok());
    REQUIRE(!EventLog::append_to(path, config).ok());  // another head
    const int events = 1 + static_cast<int>(random() % 60);
    for (int i = 0; i < events; ++i) {
      now += std::chrono::microseconds(random() % 5'000'000);
      const Event event = i == 0 ? Event{.kind = EventKind::begin} : random_event(random, config, live.state().attempt);
      const Effects effects = live.step(event, now);
      REQUIRE((*log)->append(event, now, effects, live.state()).ok());
    }
    log->reset();
    std::ofstream(path, std::ios::app) << "{\"event\": \"tick\", \"t_us";  // the head dies while it writes
    auto read = read_event_log(path);
    REQUIRE(read.ok());
    REQUIRE(read->resumptions.size() == static_cast<size_t>(life));
    REQUIRE(read->last_at() == now);
    const Supervisor replayed = replay(*read);
    REQUIRE(replayed.state() == live.state());
    config = simulation::random_knobs(random()).config;  // other nodes, other limits
    const SupervisorState before = live.state();
    live = Supervisor(config, before);
    REQUIRE(live.state().attempt == before.attempt + (before.attempt_started ? 1 : 0));
    REQUIRE(live.state().checkpoint == before.checkpoint);
    REQUIRE(live.state().user_signal == 0);
  }
}
