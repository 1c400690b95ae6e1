// MPI world: the ranks of one attempt as an MPI library counts them. Ranks are numbered node after node, as many on
// each.
#pragma once

#include <string>

#include "agent/rank_spec.hpp"
#include "topology/result.hpp"

namespace mds::agent {

struct MpiWorld {
  std::string job{};       ///< a name that no other attempt of any run has
  int size = 0;            ///< ranks
  int nodes = 0;
  int node = 0;            ///< this one, by which its ranks are counted
  int ranks_per_node = 0;

  int first_rank() const { return node * ranks_per_node; }
};

/// The exit code that MPI_Abort stands for: the last 8 bits, as of any process, but never the 0 of success.
inline int exit_code_of_abort(int code) { return (code & 255) == 0 ? 1 : code & 255; }

/// Where PMIx and the ranks' shared memory store what they need: "/dev/shm/mds-RUN.ATTEMPT-nNODE".
std::string mpi_folder(const MpiWorld& world);

/// Removes those of all attempts and nodes of a run that are on this machine: the launcher's last look, for where agent
/// and guard were both killed.
void remove_mpi_folders(const std::string& run_id);

/// From what the ranks' own environment says of it. Requires a rank. Errors: bad_input.
Result<MpiWorld> mpi_world(const NodeStart& start);

}  // namespace mds::agent
