// MPI wire: what the MPI libraries of this node's ranks want of the program that started them, so that MPI programs run
// under every back end. Both protocols are offered at once, as the libraries know which is theirs: PMI-1 and, where its
// library is installed, PMIx. Between nodes both need one thing only, an all-gather among the agents, which travels as
// the ranks' own exchanges do (launcher/rendezvous.hpp), under names that begin with kPrefix.
//
// Threads: the one that runs the io_context.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/mpi_world.hpp"
#include "agent/pmi_server.hpp"
#include "agent/pmix_server.hpp"

namespace mds::agent {

class MpiWire {
 public:
  static constexpr const char* kPrefix = "mpi/";

  struct Events {
    /// This node's part of an all-gather of `world.nodes` parts; on_exchange() is awaited.
    std::function<void(const std::string& name, const std::string& value)> exchange;
    std::function<void(const std::string& text)> on_note;
    /// It has called MPI_Abort, which exit code 1 to 255 stands for, and waits for ever to be killed.
    std::function<void(int rank, int code)> on_abort;
  };
  /// `folder`: for what the PMIx library and the ranks' shared memory store; it is made, and removed in the end.
  MpiWire(boost::asio::io_context& io, const MpiWorld& world, const std::string& folder, Events events);

  struct RankSide {
    UniqueFd socket;                                 ///< to be given to the rank under a number ...
    std::map<std::string, std::string> environment;  ///< ... that PMI_FD, which is not in here, says
  };
  /// Once for each rank of this node. Errors: unavailable.
  Result<RankSide> join(int rank);

  /// The parts of all nodes. Errors: corrupt.
  Status on_exchange(const std::string& name, const std::vector<std::string>& values);

  const MpiWorld& world() const { return world_; }

 private:
  const MpiWorld world_;
  const std::string folder_;
  Events events_;
  PmiServer pmi_;
  std::unique_ptr<PmixServer> pmix_;  ///< none: it could not be started, which the agent's log says
};

}  // namespace mds::agent
