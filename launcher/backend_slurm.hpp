// The Slurm back end: inside an allocation one srun step brings up all agents, and one more those that start again.
//
// All start_agent() calls of one turn of the event loop become one group, a step. Every agent of it gets the same text
// on its standard input and finds its node by its place in the group. The program's end ends the whole group; the end
// of one agent is known by its connection alone. An agent that takes the place of another makes sure itself, on its
// node, that nothing of the other is left before it says hello (agent/node_lock.hpp).
#pragma once

#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "launcher/backend.hpp"
#include "launcher/backend_child.hpp"
#include "slurm/step.hpp"

namespace mds::launcher {

class SlurmBackend : public AgentBackend {
 public:
  /// Errors: bad_input (no srun in PATH).
  static Result<std::unique_ptr<AgentBackend>> make(boost::asio::io_context& io, const BackendOptions& options,
                                                    EndedHandler on_ended);
  /// Ends every group and waits for its program's end.
  ~SlurmBackend() override;

  Status start_agent(const agent::Bootstrap& bootstrap) override;
  void kill_agent(int node) override;
  void joined(int /*node*/) override { any_joined_ = true; }
  void disconnected(int node) override;

 private:
  struct Group {
    std::set<int> alive;           ///< nodes whose end is not reported yet
    std::unique_ptr<Child> child;  ///< gone when it has ended
  };

  SlurmBackend(boost::asio::io_context& io, BackendOptions options, EndedHandler on_ended)
      : io_(io), options_(std::move(options)), on_ended_(std::move(on_ended)) {}

  size_t component_of(int node) const;
  ChildSpec srun(const std::vector<int>& nodes) const;
  void flush();
  void start_group(const std::vector<int>& nodes);
  void end_group(std::list<Group>::iterator group, const std::string& how);
  std::string why_nobody_came() const;
  void end_later(int node, const std::string& how);
  std::list<Group>::iterator group_of(int node);
  std::string log_path() const;

  boost::asio::io_context& io_;
  BackendOptions options_;
  EndedHandler on_ended_;
  std::string srun_;
  bool any_joined_ = false;
  std::map<int, agent::Bootstrap> pending_;
  bool flush_posted_ = false;
  std::list<Group> groups_;
  std::shared_ptr<int> alive_ = std::make_shared<int>();  ///< what is posted does nothing once this is gone
};

}  // namespace mds::launcher
