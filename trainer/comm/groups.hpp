// Builds the process groups of one rank from its place in the grid.
#pragma once

#include "agent/rank_control.hpp"
#include "topology/rank_grid.hpp"
#include "topology/result.hpp"
#include "trainer/comm/communicator.hpp"
#include "trainer/comm/connect.hpp"
#include "trainer/device.hpp"

namespace mds::trainer {

struct GroupOptions {
  ConnectOptions connect;
  const CudaPlugin* cuda = nullptr;      ///< null: CPU communicators; else NCCL, and a CPU one over all ranks
  bool tied_embeddings = false;          ///< make the embedding group
};

/// Collective over the world. A world of one needs no peer and no socket. Errors: as connect_groups.
Result<ProcessGroups> make_groups(const topology::RankGrid& grid, int rank, agent::RankControl& control,
                                  const GroupOptions& options);

}  // namespace mds::trainer
