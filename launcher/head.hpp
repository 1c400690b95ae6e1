// Head: carries out what the supervisor decides. Listens for the run's agents, turns their messages into events, logs
// each event, and executes the effects in their order, all on one thread.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/credentials.hpp"
#include "agent/rank_spec.hpp"
#include "agent/secure_channel.hpp"
#include "launcher/backend.hpp"
#include "launcher/event_log.hpp"
#include "launcher/head_messages.hpp"
#include "launcher/rendezvous.hpp"
#include "launcher/supervisor.hpp"

namespace mds::launcher {

struct HeadOptions {
  SupervisorConfig supervisor;
  Backend backend = Backend::automatic;
  BackendOptions backend_options;
  std::string address = "127.0.0.1";       ///< of the interface that agents reach; only this one is bound
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
};

class Head {
 public:
  /// Binds the listener, creates <run_folder>/events.jsonl and takes over SIGINT, SIGTERM and SIGHUP.
  static Result<std::unique_ptr<Head>> open(HeadOptions options, HeadObserver observer);
  Head(const Head&) = delete;
  Head& operator=(const Head&) = delete;
  ~Head();

  /// Runs the job to its end and returns the exit code. Call once.
  int run();

  const SupervisorState& state() const { return supervisor_.state(); }
  TimePoint now() const;

 private:
  struct Connection {
    std::shared_ptr<agent::Channel> channel;
    int node = -1;                         ///< -1 before its hello
  };
  struct AgentLife {
    Connection* connection = nullptr;      ///< the one that said hello for this node
    bool process_ended = true;
    std::string how_it_ended{};
  };

  Head(HeadOptions options, HeadObserver observer);
  Status open_parts();

  void handle(Event event);
  void execute(const Effect& effect);
  void await_signal();
  void arm_timer(TimePoint at);
  void start_agent(int node);
  void send_start(int node, uint32_t attempt);
  void send(int node, agent::MessageType type, uint32_t attempt, const nlohmann::json& body);

  void on_channel(std::shared_ptr<agent::Channel> channel);
  void on_message(Connection& connection, agent::Message message);
  void on_hello(Connection& connection, const agent::Message& message);
  void on_closed(Connection& connection, const std::string& why);
  void on_process_ended(int node, const std::string& how);
  void on_exchange(int node, const agent::Message& message);
  void drop(Connection& connection, const std::string& why);
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
  std::unique_ptr<agent::Listener> listener_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<AgentLife> agents_;
  std::deque<Event> pending_;              ///< events that arose while another was being handled
  bool handling_ = false;
  bool log_failed_ = false;
  int64_t started_attempt_ = -1;           ///< that master_port_ and the rendezvous belong to
  int master_port_ = 0;
  int exit_code_ = 0;
};

/// A TCP port that is free on `address` now. It is not held: a program that takes it before rank 0 listens makes that
/// attempt fail, and the next attempt gets another port. 0: none was found.
int free_port(const std::string& address);

}  // namespace mds::launcher
