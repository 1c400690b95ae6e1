// A simulated world around the supervisor: agents, ranks, a network with delays, faults of all kinds, and a clock that
// costs nothing. It carries out the effects as the head does and checks the invariants of supervisor.hpp all the time.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "launcher/event_log.hpp"
#include "launcher/supervisor.hpp"

namespace mds::simulation {

/// All knobs. Probabilities are per opportunity.
struct Knobs {
  uint64_t seed = 0;
  launcher::SupervisorConfig config;
  int64_t steps = 20;                    ///< a rank's work, one report of progress each
  int64_t step_ms_mean = 1000;
  int64_t checkpoint_interval = 5;
  double rank_dies = 0;                  ///< in a step
  double rank_hangs = 0;                 ///< in a step: it and all others report nothing any more
  double start_fails = 0;                ///< of a rank
  double agent_never_connects = 0;
  double agent_dies_at_start = 0;
  double agent_dies = 0;                 ///< in a step of the run
  double agent_freezes = 0;              ///< in a step of the run: connected, but says nothing more
  double agent_falls_silent = 0;         ///< when asked to stop or to leave
  double unkillable = 0;                 ///< a killed agent's end is never reported
  double stale_echo = 0;                 ///< a message is repeated after its attempt is over
  double user_stops = 0;                 ///< in a step of the run
  double preempted = 0;                  ///< in a step of the run
};

/// A random set of knobs: from no fault at all to many.
Knobs random_knobs(uint64_t seed);

struct Outcome {
  std::string violation;                 ///< empty: all invariants held
  bool ended = false;
  int exit_code = -1;
  int attempts = 0;
  int causes = 0;
  uint64_t events = 0;
  launcher::SupervisorState state;
};

class World {
 public:
  explicit World(Knobs knobs);
  Outcome run();

 private:
  struct AgentLife {
    bool alive = false;
    bool connected = false;
    bool silent = false;
    bool ever_told_gone = true;          ///< the supervisor has heard of its end
    launcher::TimePoint last_delivery{0};   ///< messages of one agent arrive in order
  };
  struct Rank {
    bool alive = false;
    uint32_t attempt = 0;
    int64_t step = 0;
    bool hangs = false;
  };
  struct Entry {
    launcher::TimePoint at;
    uint64_t order;
    std::function<void()> action;
    bool operator>(const Entry& other) const { return at != other.at ? at > other.at : order > other.order; }
  };

  bool chance(double probability);
  launcher::TimePoint delay(int64_t ms_max);
  void later(launcher::TimePoint after, std::function<void()> action);
  void tell(int node, launcher::Event event);
  void give(const launcher::Event& event);
  void carry_out(const launcher::Effect& effect);
  void check_effects(const launcher::Event& event, const launcher::Effects& effects);
  void violated(const std::string& text);

  void start_agent(int node);
  void start_ranks(int node, uint32_t attempt);
  void stop_ranks(int node, uint32_t attempt, launcher::TimePoint within);
  void end_agent(int node, const std::string& why);
  void freeze_agent(int node);
  void work(int rank, uint32_t attempt);
  void rank_exits(int rank, int exit_code, int signal);
  bool any_rank_alive(int node = -1) const;
  bool all_at_step(int64_t step) const;

  Knobs knobs_;
  std::mt19937_64 random_;
  launcher::Supervisor supervisor_;
  launcher::Supervisor replayed_;        ///< fed with what the event log would give back (S10)
  std::vector<AgentLife> agents_;
  std::vector<Rank> ranks_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue_;
  uint64_t order_ = 0;
  uint64_t timer_ = 0;                   ///< number of the timer that counts
  launcher::TimePoint now_{0};
  int failed_with_cause_ = 0;
  uint32_t last_cause_attempt_ = 0;
  bool user_stopped_ = false;            ///< or preempted
  bool anything_unkillable_ = false;
  Outcome outcome_;
};

}  // namespace mds::simulation
