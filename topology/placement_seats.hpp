// Seats: what the ranks of one machine get there. Machines of one kind are examined once.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "topology/placement.hpp"
#include "topology/placement_search.hpp"

namespace mds::topology {

/// What one local rank gets; fields as in RankPlacement.
struct Seat {
  int gpu = -1;
  int cores = 0;
  std::vector<int> cpus, memory_nodes;
  std::vector<std::string> nics;
  int best_nics = 0;
  bool shares_cores = false;
};

/// All seats of a machine by local rank, and a sentence on each decision.
struct SeatPlan {
  std::vector<Seat> seats;
  std::vector<std::string> reasons;
};

/// GPUs so that local ranks that exchange much have the best paths between them, in the order of NUMA nodes and indices
/// where all are equal; cores (core_shares.hpp) and memory next to the GPU; NICs as rank_nics() has them. `traffic`
/// is merged; its positions are local ranks. Requires enough GPUs (device cuda) and a core (device cpu).
SeatPlan seat_ranks(const Machine& machine, DeviceKind device, size_t ranks, const std::vector<Exchange>& traffic);

/// Remembers the plans of machines that differ in nothing but names, UUIDs and the like.
class SeatPlans {
 public:
  explicit SeatPlans(DeviceKind device) : device_(device) {}
  /// `machine` must outlive this.
  std::shared_ptr<const SeatPlan> of(const Machine& machine, size_t ranks, const std::vector<Exchange>& traffic);

 private:
  struct Known {
    const Machine* machine;
    std::vector<Exchange> traffic;
    std::shared_ptr<const SeatPlan> plan;
  };
  DeviceKind device_;
  std::multimap<size_t, Known> known_;  // by fingerprint
};

}  // namespace mds::topology
