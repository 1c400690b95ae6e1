#include "topology/traffic.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <unordered_map>

#include "topology/placement.hpp"

namespace mds::topology {
namespace {

constexpr double kUnknownNicsGbps = 100;  // any figure does: all that are unknown are equal
constexpr double kUnknownNvlinkGbPerS = 400;
constexpr double kSharedMemoryGbPerS = 32;  // between CPU ranks of one node
constexpr double kBrokenPathGbPerS = 1;     // no path at all: host memory and luck
constexpr int kSameLeaf = 2;                // fabric_distance() of two nodes on one leaf

/// GB/s of all NICs that ranks can use together: RDMA where there is any.
double nics_gb_per_s(const Machine& machine) {
  double rdma = 0, any = 0;
  for (const Nic& nic : machine.nics) {
    any += nic.gbps;
    if (nic.rdma) rdma += nic.gbps;
  }
  return (rdma > 0 ? rdma : any) / 8;
}

/// GB/s of the NVLinks of the GPU that has least.
double nvlinks_gb_per_s(const Machine& machine) {
  std::vector<double> sums(machine.gpus.size());
  for (const GpuLink& link : machine.links) {
    if (link.kind == LinkKind::c2c || link.gpu < 0 || static_cast<size_t>(link.gpu) >= sums.size()) continue;
    sums[static_cast<size_t>(link.gpu)] += link.count * link.gb_per_s_each;
  }
  const double least = sums.empty() ? 0 : *std::min_element(sums.begin(), sums.end());
  return least > 0 ? least : kUnknownNvlinkGbPerS;
}

/// GB/s of all cables of each host; 0 where one is unknown.
std::unordered_map<std::string, double> cables_gb_per_s(const Fabric& fabric) {
  std::unordered_map<std::string, double> sums;
  for (const FabricPort& port : fabric.ports) {
    double& sum = sums.try_emplace(port.host, 0).first->second;
    sum = port.gbps > 0 && sum >= 0 ? sum + port.gbps / 8 : -1;
  }
  for (auto& [host, sum] : sums) sum = std::max(sum, 0.0);
  return sums;
}

/// Ranks first, first + stride, ...
struct Group {
  int first = 0, stride = 1, size = 1;
  int rank(int i) const { return first + i * stride; }
};

/// m members on one node exchange what a ring of m would, m x bytes, spread over all pairs.
void add_group(const Group& group, double bytes, const std::vector<int>& node_of_rank, std::vector<Flow>& flows) {
  const auto node = [&](int i) { return node_of_rank[static_cast<size_t>(group.rank(i))]; };
  for (int begin = 0; begin < group.size;) {
    int end = begin + 1;
    while (end < group.size && node(end) == node(begin)) ++end;
    for (int a = begin; a < end; ++a) {
      for (int b = a + 1; b < end; ++b) flows.push_back({group.rank(a), group.rank(b), 2 * bytes / (end - begin - 1)});
    }
    const int next = end % group.size;
    if (node(next) != node(begin)) flows.push_back({group.rank(end - 1), group.rank(next), bytes});
    begin = end;
  }
}

}  // namespace

std::vector<Flow> traffic_flows(const RankGrid& grid, const TrafficWeights& weights,
                                const std::vector<int>& node_of_rank) {
  const std::pair<Axis, double> axes[] = {{Axis::tensor, weights.tensor},
                                          {Axis::context, weights.context},
                                          {Axis::data, weights.data},
                                          {Axis::pipeline, weights.pipeline}};
  std::vector<Flow> flows;
  for (const auto& [axis, bytes] : axes) {
    const int size = grid.size(axis), stride = grid.stride(axis);
    for (int first = 0; size > 1 && first < grid.world_size(); ++first) {
      if (first / stride % size != 0) continue;  // each group once
      if (axis == Axis::pipeline) {
        for (int i = 0; i + 1 < size; ++i) flows.push_back({first + i * stride, first + (i + 1) * stride, bytes});
      } else {
        add_group({first, stride, size}, bytes, node_of_rank, flows);
      }
    }
  }
  return flows;
}

double gpu_cost(const Path& path) {
  const double gb_per_s = path.kind == PathClass::dis || path.gb_per_s <= 0 ? kBrokenPathGbPerS : path.gb_per_s;
  const int links = path.kind == PathClass::nvb ? 2 : 1;
  return links * (1 + 0.02 * static_cast<int>(path.kind)) / gb_per_s;
}

double gpu_cost(const Paths& paths, int gpu_a, int gpu_b) {
  const auto a = static_cast<size_t>(gpu_a), b = static_cast<size_t>(gpu_b);
  return (gpu_cost(paths.between_gpus(a, b)) + gpu_cost(paths.between_gpus(b, a))) / 2;
}

NodeNetwork::NodeNetwork(const Cluster& cluster, int ranks_per_node) : distances_(cluster) {
  const auto cables = cables_gb_per_s(cluster.fabric);
  for (const Machine& machine : cluster.nodes) {
    const auto found = cables.find(machine.host);
    const double cable = found == cables.end() ? 0 : found->second;
    double nics = nics_gb_per_s(machine);
    if (cable > 0) nics = nics > 0 ? std::min(nics, cable) : cable;
    if (nics <= 0) nics = kUnknownNicsGbps / 8;
    speeds_.push_back({nics / ranks_per_node, nvlinks_gb_per_s(machine)});
  }
}

double NodeNetwork::cost(int node_a, int node_b) const {
  const int distance = distances_(node_a, node_b);
  const Speed &a = speeds_[static_cast<size_t>(node_a)], &b = speeds_[static_cast<size_t>(node_b)];
  if (distance < kSameLeaf) return 1 / std::min(a.nvlinks, b.nvlinks);
  return std::ldexp(1 / std::min(a.nics, b.nics), distance - kSameLeaf);
}

double traffic_cost(const Cluster& cluster, const Placement& placement, const RankGrid& grid,
                    const TrafficWeights& weights) {
  const NodeNetwork network(cluster, placement.nodes.front().ranks);
  std::map<int, Paths> paths;
  for (const NodePlacement& node : placement.nodes) {
    paths.emplace(node.node, find_paths(cluster.nodes[static_cast<size_t>(node.node)]));
  }
  std::vector<int> node_of_rank;
  for (const RankPlacement& rank : placement.ranks) node_of_rank.push_back(rank.node);
  double cost = 0;
  for (const Flow& flow : traffic_flows(grid, weights, node_of_rank)) {
    const RankPlacement& from = placement.ranks[static_cast<size_t>(flow.from)];
    const RankPlacement& to = placement.ranks[static_cast<size_t>(flow.to)];
    const bool gpus = from.gpu >= 0 && to.gpu >= 0;
    const bool here = from.node == to.node;
    cost += flow.bytes * (!here  ? network.cost(from.node, to.node)
                          : gpus ? gpu_cost(paths.at(from.node), from.gpu, to.gpu)
                                 : 1 / kSharedMemoryGbPerS);
  }
  return cost;
}

}  // namespace mds::topology
