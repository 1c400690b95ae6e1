// PMIx server: the plug-in (agent/pmix_plugin.hpp) as part of the agent. What its threads say arrives on ours.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/mpi_world.hpp"

struct MdsPmixPlugin;

namespace mds::agent {

class PmixServer {
 public:
  struct Events {
    /// All ranks of this node are at fence `number`, 0-based: on_fence() with every node's value is awaited.
    std::function<void(uint64_t number, std::string value)> at_fence;
    /// It has called MPI_Abort, which exit code 1 to 255 stands for, and waits for ever to be killed.
    std::function<void(int rank, int code)> on_abort;
  };
  /// `folder`, on this node, is the library's own; it is made, and removed with this. Errors: unavailable (this build
  /// has no plug-in, the library is missing, or what it says).
  static Result<std::unique_ptr<PmixServer>> start(boost::asio::any_io_executor executor, const MpiWorld& world,
                                                   const std::string& folder, Events events);
  ~PmixServer();

  /// What a rank of this node finds in its environment. Errors: unavailable.
  Result<std::map<std::string, std::string>> environment(int rank) const;

  void on_fence(uint64_t number, const std::vector<std::string>& values);

 private:
  struct Shared;
  explicit PmixServer(Shared* shared) : shared_(shared) {}

  Shared* shared_;  ///< never goes
};

}  // namespace mds::agent
