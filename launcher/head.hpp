// Head: carries out what the supervisor decides. Listens for the run's agents, turns their messages into events, logs
// each event, and executes the effects in their order, all on one thread.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/credentials.hpp"
#include "agent/rank_spec.hpp"
#include "launcher/backend.hpp"
#include "launcher/event_log.hpp"
#include "launcher/head_control.hpp"
#include "launcher/head_messages.hpp"
#include "launcher/head_status.hpp"
#include "launcher/head_tree.hpp"
#include "launcher/head_web.hpp"
#include "launcher/rendezvous.hpp"
#include "launcher/supervisor.hpp"
#include "topology/cluster.hpp"

namespace mds::launcher {

struct HeadOptions {
  SupervisorConfig supervisor;
  Backend backend = Backend::automatic;
  BackendOptions backend_options;
  std::string address = "127.0.0.1";       ///< of the interface that agents reach; only this one is bound
  std::optional<LoggedRun> earlier{};      ///< the run is resumed: what its event log says so far
  bool preempt_on_term = false;            ///< SIGTERM is a preemption (as SIGUSR1 always is), not the user's stop
  int fan_out = HeadTree::kFanOut;         ///< connections of the head, and of each agent to agents below it
  WebOptions web{};
  int64_t steps = 0;                       ///< that the job asks for; 0: unknown
  std::function<double()> utilization_per_token{};  ///< see RunTitle; asked once the machines are known
  std::chrono::milliseconds silence_limit{15'000};  ///< without a heartbeat, then an agent is given up
  bool gather = false;                     ///< agents come first and bring their machines: gather(), then settle()
  bool gpus = false;                       ///< with `gather`: machines with their GPUs
  /// The stage_part that answers an agent's stage_ask.
  std::function<nlohmann::json(const nlohmann::json& ask)> stage_part{};
  /// The ranks of one node in one attempt; `master_port` was free on this machine a moment ago.
  std::function<agent::NodeStart(int node, uint32_t attempt, int master_port)> node_start;
};

/// Who watches the run. Called on the head's thread, after the supervisor's state has changed and before the effects
/// are carried out; must not call the head.
struct HeadObserver {
  std::function<void(const Event&, const Effects&, const SupervisorState&, TimePoint)> on_event;
  std::function<void(uint32_t attempt, const nlohmann::json& body, TimePoint)> on_progress;
  std::function<void(const Output&)> on_output;
  std::function<void(const std::string&)> on_note;     ///< diagnostics
  std::function<void()> on_resize{};                   ///< of the terminal
};

class Head {
 public:
  /// Binds the listener, creates (resumed: appends to) <run_folder>/events.jsonl and takes over SIGINT, SIGTERM, SIGHUP
  /// and SIGUSR1.
  static Result<std::unique_ptr<Head>> open(HeadOptions options, HeadObserver observer);
  Head(const Head&) = delete;
  Head& operator=(const Head&) = delete;
  ~Head();

  /// Only with HeadOptions::gather, where `supervisor` says but the number of nodes: starts every agent and waits until
  /// each has said hello with the machine that it found. Errors: unavailable (an agent ended or did not come, with the
  /// reason), denied (a signal: exit_signal() has it).
  Result<std::vector<topology::Machine>> gather();
  int exit_signal() const { return gather_signal_; }
  /// Nodes that do not see the run folder; known after gather().
  const std::vector<int>& blind_nodes() const { return blind_nodes_; }
  /// The node for whose agent gather() has failed; -1: none in particular.
  int missing_node() const { return gather_missing_; }
  /// What open() could not know before gather(): the rest of the options, and who watches.
  Status settle(SupervisorConfig supervisor, std::function<agent::NodeStart(int, uint32_t, int)> node_start,
                HeadObserver observer);

  /// Runs the job to its end and returns the exit code. Call once.
  int run();

  const SupervisorState& state() const { return supervisor_.state(); }
  /// Requires that the head has been opened, with gather() also settled.
  const HeadWeb& web() const { return *web_; }
  TimePoint now() const;

 private:
  struct AgentLife {
    bool process_ended = true;
    std::string how_it_ended{};
    std::string host{};                    ///< once it has said hello
  };

  Head(HeadOptions options, HeadObserver observer);
  Status open_parts();
  Status open_log();

  void open_control();
  nlohmann::json status() const;
  void handle(Event event);
  void execute(const Effect& effect);
  void await_signal();
  void arm_timer(TimePoint at);
  void start_agent(int node);
  void send_start(int node, uint32_t attempt);
  void send(int node, agent::MessageType type, uint32_t attempt, const nlohmann::json& body);

  Status open_tree();
  nlohmann::json start_body(int node, uint32_t attempt);
  void on_message(int node, agent::Message message);
  void on_heartbeat(int node, const nlohmann::json& body);
  void watch_silence();
  void on_notice(const agent::Message& message);
  void on_stage_ask(int node, const nlohmann::json& ask);
  void on_joined(int node, const agent::Message& hello);
  void on_lost(int node, const std::string& why);
  void on_process_ended(int node, const std::string& how);
  void on_exchange(int node, const agent::Message& message);
  void distrust(int node, const std::string& why);
  void note(const std::string& text);
  std::string last_words(int node) const;

  HeadOptions options_;
  HeadObserver observer_;
  std::chrono::steady_clock::time_point started_;
  boost::asio::io_context io_{1};
  boost::asio::steady_timer timer_{io_};
  boost::asio::signal_set signals_{io_};
  Supervisor supervisor_;
  Rendezvous rendezvous_;
  agent::Credentials credentials_;
  std::unique_ptr<EventLog> log_;
  std::unique_ptr<AgentBackend> backend_;
  std::unique_ptr<HeadTree> tree_;
  std::vector<AgentLife> agents_;
  HeadStatus status_;
  boost::asio::steady_timer silence_timer_{io_};
  std::unique_ptr<HeadControl> control_;
  std::unique_ptr<HeadWeb> web_;
  double utilization_per_token_ = 0;
  std::deque<Event> pending_;              ///< events that arose while another was being handled
  bool handling_ = false;
  bool log_failed_ = false;
  int64_t started_attempt_ = -1;           ///< that master_port_ and the rendezvous belong to
  int master_port_ = 0;
  int exit_code_ = 0;

  bool gathering_ = false;
  std::vector<std::optional<topology::Machine>> machines_;  ///< while gathering
  std::string gather_failure_;
  int gather_signal_ = 0;
  int gather_missing_ = -1;
  std::vector<int> blind_nodes_;
  void gathered(int node, const agent::Message& hello);
  void fail_gathering(const std::string& why, int node = -1);
};

/// A TCP port that is free on `address` now. It is not held: a program that takes it before rank 0 listens makes that
/// attempt fail, and the next attempt gets another port. 0: none was found.
int free_port(const std::string& address);

}  // namespace mds::launcher
