// A head for the agent's tests: listens, starts real agents, keeps what they say, waits for events with a time limit.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "agent/bootstrap.hpp"
#include "agent/secure_channel.hpp"
#include "agent/unique_fd.hpp"
#include "tests/agent/temporary_folder.hpp"

class TestHead {
 public:
  struct Agent {
    pid_t guard = -1;                 // the process that was started
    mds::agent::UniqueFd guard_pidfd;
    pid_t agent = -1;                 // from its hello
    std::shared_ptr<mds::agent::Channel> channel;
    bool closed = false;
  };
  struct Received {
    int node = 0;
    mds::agent::Message message;
  };

  TestHead();
  ~TestHead();  ///< ends every agent; fails the test if one does not leave

  /// Starts an agent and waits for its hello.
  Agent& start_agent(int node, bool discover = false);
  /// Starts one without waiting, its line as given.
  static Agent spawn(const std::string& bootstrap_line);
  mds::agent::Bootstrap bootstrap(int node) const;

  void start_ranks(int node, const std::vector<mds::agent::RankSpec>& ranks, uint32_t attempt = 1);
  void send(int node, mds::agent::MessageType type, const nlohmann::json& body = nlohmann::json::object(),
            uint32_t attempt = 1);

  using Condition = std::function<bool(const mds::agent::Message&)>;
  /// The first message (not taken yet) of a type that meets the condition; fails the test after 20 s.
  mds::agent::Message await(mds::agent::MessageType type, const Condition& condition = nullptr);
  /// The first output line of a rank that begins with `prefix`, without it.
  std::string await_line(int rank, const std::string& prefix);
  /// Has such a message come (and not been taken)?
  bool has(mds::agent::MessageType type, const Condition& condition = nullptr) const;
  /// Waits for the agent's process and returns its exit status as a shell shows it.
  int await_exit(Agent& agent);
  /// Runs the event loop until `done`; fails the test after 20 s.
  void run_until(const std::function<bool()>& done, const std::string& what);

  boost::asio::io_context io;
  TemporaryFolder folder;
  mds::agent::Credentials credentials;
  std::unique_ptr<mds::agent::Listener> listener;
  std::vector<std::unique_ptr<Agent>> agents;   // by node
  std::vector<Received> received;               // not taken yet

 private:
  void greet(const std::shared_ptr<mds::agent::Channel>& channel);
  void on_message(const std::shared_ptr<mds::agent::Channel>& channel, mds::agent::Message message);

  std::vector<std::shared_ptr<mds::agent::Channel>> strangers_;   // before their hello
};

/// A rank that runs a shell script, with PATH and nothing else in its environment but `env`.
mds::agent::RankSpec shell_rank(int rank, const std::string& script, std::map<std::string, std::string> env = {});

/// Waits (20 s at most) for the end of a process that need not be a child; false when it still runs.
bool await_end_of(pid_t pid);
bool is_alive(pid_t pid);
