// The local back end: every (virtual) node's agent is a child process of the head.
#pragma once

#include <map>
#include <memory>
#include <string>

#include <boost/asio/posix/stream_descriptor.hpp>

#include "launcher/backend.hpp"

namespace mds::launcher {

class LocalBackend : public AgentBackend {
 public:
  LocalBackend(boost::asio::io_context& io, BackendOptions options, EndedHandler on_ended);
  ~LocalBackend() override;

  Status start_agent(const agent::Bootstrap& bootstrap) override;
  void kill_agent(int node) override;

 private:
  struct Process {
    pid_t pid;
    boost::asio::posix::stream_descriptor pidfd;   ///< readable when the process has ended: no polling, no SIGCHLD
  };
  void on_ended(int node);

  boost::asio::io_context& io_;
  BackendOptions options_;
  EndedHandler on_ended_;
  std::map<int, Process> processes_;
};

}  // namespace mds::launcher
