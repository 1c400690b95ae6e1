// The local back end: every (virtual) node's agent is a child process of the head.
#pragma once

#include <map>
#include <memory>

#include "launcher/backend.hpp"
#include "launcher/backend_child.hpp"

namespace mds::launcher {

class LocalBackend : public AgentBackend {
 public:
  LocalBackend(boost::asio::io_context& io, BackendOptions options, EndedHandler on_ended)
      : io_(io), options_(std::move(options)), on_ended_(std::move(on_ended)) {}

  Status start_agent(const agent::Bootstrap& bootstrap) override;
  void kill_agent(int node) override;

 private:
  boost::asio::io_context& io_;
  BackendOptions options_;
  EndedHandler on_ended_;
  std::map<int, std::unique_ptr<Child>> agents_;
};

}  // namespace mds::launcher
