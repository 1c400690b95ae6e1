// Remote back ends: one ssh, or one mpirun, for each node, with the bootstrap line on its standard input.
//
// Of the start programs of MPI only the first process reads standard input (Open MPI 4.1's --stdin all loses it, Hydra
// has no such option), so each node gets an mpirun of its own. ssh joins its arguments into one text for the remote
// user's shell: nothing but the agent's path goes there, and only if no letter of it means anything to a shell.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "launcher/backend.hpp"
#include "launcher/backend_child.hpp"

namespace mds::launcher {

enum class MpiKind { open_mpi, hydra, intel };

/// Of what `mpirun --version` prints. Errors: bad_input with the versions that are known.
Result<MpiKind> mpi_kind(const std::string& version_text);

/// The words that copy `program` to one host, as `copy`. Errors: bad_input (a host or path that is no plain word).
Result<std::vector<std::string>> scp_words(const std::string& scp, const std::string& config,
                                           const std::string& program, const std::string& host,
                                           const std::string& copy);

/// The words that start `program` on one host. Errors: bad_input (a host or program that is no plain word).
Result<std::vector<std::string>> ssh_words(const std::string& ssh, const std::string& config, const std::string& host,
                                           const std::string& program);
Result<std::vector<std::string>> mpirun_words(const std::string& mpirun, MpiKind kind, const std::string& host,
                                              const std::string& program);

class RemoteBackend : public AgentBackend {
 public:
  static constexpr size_t kConnectingMax = 32;  ///< sshd refuses more at once, and name servers like it no better
  using Words = std::function<Result<std::vector<std::string>>(const std::string& host, const std::string& program)>;
  /// How an agent is started and, where its program is sent first, how that is done. `program` is its path there.
  struct Ways {
    std::string name;  ///< "ssh", for messages
    Words start;
    Words copy{};
  };

  RemoteBackend(boost::asio::io_context& io, BackendOptions options, Ways ways, EndedHandler on_ended);
  /// Cuts every agent's standard input, which ends it wherever it is, and waits for the programs that started them.
  ~RemoteBackend() override;

  Status start_agent(const agent::Bootstrap& bootstrap) override;
  void kill_agent(int node) override;
  void joined(int node) override;

 private:
  void start_waiting();
  Status begin(const agent::Bootstrap& bootstrap);
  Status start(const agent::Bootstrap& bootstrap);
  Status copy(const agent::Bootstrap& bootstrap);
  Status start_child(const agent::Bootstrap& bootstrap, ChildSpec spec, std::function<void(const std::string&)> ended);
  std::string program_on(int node) const;
  void on_child_ended(int node, const std::string& how);
  void end_later(int node, const std::string& how);

  boost::asio::io_context& io_;
  BackendOptions options_;
  Ways ways_;
  EndedHandler on_ended_;
  std::deque<agent::Bootstrap> waiting_;
  std::map<int, std::unique_ptr<Child>> agents_;          ///< or what sends their program
  std::set<int> connecting_;                              ///< nodes whose agent has not said hello yet
  std::shared_ptr<int> alive_ = std::make_shared<int>();  ///< what is posted does nothing once this is gone
};

Result<std::unique_ptr<AgentBackend>> make_ssh_backend(boost::asio::io_context& io, const BackendOptions& options,
                                                       AgentBackend::EndedHandler on_ended);
Result<std::unique_ptr<AgentBackend>> make_mpi_backend(boost::asio::io_context& io, const BackendOptions& options,
                                                       AgentBackend::EndedHandler on_ended);

}  // namespace mds::launcher
