// Traffic: how much ranks send to each other and what it costs, to compare placements with. Relative figures: the cost
// model of a step's time is topology/cost.
//
// Between nodes every group is a ring in the order of its ranks (NCCL's all-reduce, all-gather and reduce-scatter, ring
// attention): each member sends to the next one. Inside a node NCCL finds the best rings itself, so that all pairs of a
// group's members there count equally. Pipelines are chains. A placement costs the sum over all these pairs of
// bytes / bandwidth.
#pragma once

#include <vector>

#include "topology/cluster.hpp"
#include "topology/fabric/node_order.hpp"
#include "topology/paths.hpp"
#include "topology/rank_grid.hpp"

namespace mds::topology {

struct Placement;

/// What a rank sends to its neighbour along each axis in a step, relative to each other. The defaults are a large
/// transformer's, of the order of LLaMA-70B on tp = pp = 8 with 64 micro batches of s = 4096 tokens, width h = 8192,
/// bf16, grouped-query attention, 10 layers a stage:
/// tensor    4 all-reduces of s h a layer and micro batch, 2 (t-1)/t of it sent:   ~300 GB
/// context   keys and values (2 s h / 8) passed round forwards, twice backwards:    ~32 GB
/// data      gradients and parameters of the rank once a step, 6 bytes each:         ~7 GB
/// pipeline  s h a micro batch, both ways, divided by the tensor ranks:              ~1 GB
struct TrafficWeights {
  double tensor = 256;
  double context = 32;
  double data = 8;
  double pipeline = 1;
};

/// Bytes between two ranks, in the weights' unit.
struct Flow {
  int from = 0, to = 0;  ///< ranks
  double bytes = 0;
};

/// All flows of a grid whose rank r sits on node `node_of_rank[r]`, in the order of axes and ranks. Requires that the
/// ranks of a node are consecutive. At most 4 x (ranks of a node) a rank.
std::vector<Flow> traffic_flows(const RankGrid& grid, const TrafficWeights& weights,
                                const std::vector<int>& node_of_rank);

/// Cost of a byte between two GPUs of a machine: 1 / (GB/s), and 2 % more for each class that the path is worse, so
/// that of equal bandwidths the shorter way wins. Through another GPU (NVB) it is twice that: two links are busy.
double gpu_cost(const Path& path);
/// The mean of both ways.
double gpu_cost(const Paths& paths, int gpu_a, int gpu_b);

/// Cost of a byte between two nodes. All ranks of a node share what its NICs carry, as NCCL forwards to the NIC of
/// another GPU; inside an NVLink domain they have their NVLinks. Each level of switches above the leaf halves the
/// bandwidth: trees that are thinned out are so by about 2:1, and full ones lose to collisions on the way.
class NodeNetwork {
 public:
  /// `ranks_per_node` >= 1. `cluster` must outlive it.
  NodeNetwork(const Cluster& cluster, int ranks_per_node);
  /// 1 / (GB/s of one rank). Requires different nodes (indices into Cluster::nodes).
  double cost(int node_a, int node_b) const;
  const NodeDistances& distances() const { return distances_; }

 private:
  struct Speed {
    double nics = 0, nvlinks = 0;  ///< GB/s of one rank
  };
  std::vector<Speed> speeds_;  // by node
  NodeDistances distances_;
};

/// What a placement costs: the sum of bytes x cost over all flows. For tests and reports: it examines every machine.
double traffic_cost(const Cluster& cluster, const Placement& placement, const RankGrid& grid,
                    const TrafficWeights& weights = {});

}  // namespace mds::topology
