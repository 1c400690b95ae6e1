// PMI server: the launcher's side of PMI-1, by which ranks of the MPICH family (MPICH, Intel MPI, MVAPICH) find each
// other. Each rank has a socket of its own (PMI_FD); a request is a line "cmd=put key=... value=..." and so is the
// answer. What ranks put becomes visible to all at a barrier, as the protocol has it: there the agents of all nodes
// exchange what is new.
//
// The protocol: "PMI: A Scalable Parallel Process-Management Interface for Extreme-Scale Systems" (Balaji et al.,
// EuroMPI 2010), version 1.1. Process groups that grow (spawn) and name publishing are refused.
//
// Threads: the executor's.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/mpi_world.hpp"
#include "agent/unique_fd.hpp"

namespace mds::agent {

class PmiServer {
 public:
  struct Events {
    /// All ranks of this node are at barrier `number`, 0-based: on_barrier() with every node's value is awaited.
    std::function<void(uint64_t number, std::string value)> at_barrier;
    std::function<void(const std::string& text)> on_note;
    /// It has called MPI_Abort, which exit code 1 to 255 stands for, and waits for ever to be killed.
    std::function<void(int rank, int code)> on_abort;
  };
  PmiServer(boost::asio::any_io_executor executor, MpiWorld world, Events events);
  ~PmiServer();

  /// The rank's end of a new socket. Errors: unavailable.
  Result<UniqueFd> connect(int rank);
  /// What that rank finds in its environment beside PMI_FD.
  std::map<std::string, std::string> environment(int rank) const;

  /// `values` of all nodes. Errors: corrupt.
  Status on_barrier(const std::vector<std::string>& values);

 private:
  struct Client;

  void wait(const std::shared_ptr<Client>& client);
  bool read(Client& client);
  Status obey(Client& client, const std::string& line);
  Status enter_barrier(Client& client);
  void answer(Client& client, const std::string& text);

  boost::asio::any_io_executor executor_;
  const MpiWorld world_;
  Events events_;
  std::vector<std::shared_ptr<Client>> clients_;
  std::map<std::string, std::string> seen_;  ///< by all ranks
  std::map<std::string, std::string> news_;  ///< put on this node since the last barrier
  uint64_t barriers_ = 0;
  std::shared_ptr<int> alive_ = std::make_shared<int>();
};

}  // namespace mds::agent
