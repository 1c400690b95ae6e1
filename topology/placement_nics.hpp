// Which network adapters a rank uses, best first.
#pragma once

#include <string>
#include <vector>

#include "topology/paths.hpp"

namespace mds::topology {

struct RankNics {
  std::vector<std::string> names;  ///< best first, each once
  int best = 0;                    ///< the first so many are equally good
};

/// For GPU ranks, by rank: RDMA before others, then the bandwidth of the path to the GPU, then its class, as NCCL
/// chooses (`paths` are the machine's). Of equally good ones each rank starts with another, the rank with least choice
/// first, so that every GPU has a rail of its own as far as there are enough.
std::vector<RankNics> gpu_rank_nics(const Machine& machine, const Paths& paths, const std::vector<int>& gpu_of_rank);

/// For CPU ranks, by rank: they talk TCP, so no RDMA devices; those of the rank's NUMA node first, then the fast ones.
std::vector<RankNics> cpu_rank_nics(const Machine& machine, const std::vector<int>& numa_of_rank);

}  // namespace mds::topology
