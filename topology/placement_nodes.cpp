#include "topology/placement_nodes.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <set>

#include "topology/placement_reasons.hpp"
#include "topology/placement_search.hpp"

namespace mds::topology {
namespace {

using Nodes = std::vector<int>;  // indices into Cluster::nodes

std::string described(const Cluster& cluster, int node) {
  return "node " + std::to_string(node) + " (" + cluster.nodes[static_cast<size_t>(node)].host + ")";
}

/// Why this machine cannot hold `wanted` ranks, and empty where it can. `nodes` share it.
std::string problem_of(const Machine& machine, const PlacementRequest& request, size_t wanted, size_t nodes) {
  if (request.device == DeviceKind::cpu) return machine.cores.empty() ? "has no core that may be used" : "";
  if (machine.gpus.size() >= wanted) return "";
  std::string problem = "has " + counted(machine.gpus.size(), "usable GPU") + ", but " + std::to_string(wanted) +
                        (wanted == 1 ? " is" : " are") + " needed, one a rank: ";
  for (const std::string& note : machine.notes) {
    if (note.find("GPU") != std::string::npos) problem += "(" + note + ") ";
  }
  const size_t fitting = machine.gpus.size() / nodes;
  if (fitting > 0) return problem + "use at most gpus_per_node = " + std::to_string(fitting);
  return problem + (machine.gpus.empty() ? "use devices = \"cpu\"" : "use fewer nodes");
}

/// What the nodes of the rank order send each other; `ranks_per_node` consecutive ranks each.
std::vector<Exchange> node_traffic(const PlacementRequest& request) {
  std::vector<int> node_of_rank;
  for (int rank = 0; rank < request.grid.world_size(); ++rank) node_of_rank.push_back(rank / request.ranks_per_node);
  std::vector<Exchange> traffic;
  for (const Flow& flow : traffic_flows(request.grid, request.traffic, node_of_rank)) {
    const int from = node_of_rank[static_cast<size_t>(flow.from)], to = node_of_rank[static_cast<size_t>(flow.to)];
    if (from != to) traffic.push_back({from, to, flow.bytes});
  }
  return merged(std::move(traffic));
}

/// Of nodes in fabric order, the `count` side by side that are nearest to each other.
Nodes closest(const Nodes& order, size_t count, const NodeDistances& distances) {
  std::vector<double> steps{0};  // sums; each level of the fabric weighs more than all steps below it in a window
  for (size_t i = 1; i < order.size(); ++i) {
    const int level = std::min(distances(order[i - 1], order[i]), 16);
    steps.push_back(steps.back() + static_cast<double>(uint64_t{1} << (2 * level)));
  }
  size_t best = 0;
  const auto width = [&](size_t first) { return steps[first + count - 1] - steps[first]; };
  for (size_t first = 1; first + count <= order.size(); ++first) {
    if (width(first) < width(best)) best = first;
  }
  const auto begin = order.begin() + static_cast<std::ptrdiff_t>(best);
  return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

/// Orders nodes so that blocks of `block` lie whole under one switch, as low in the fabric as can be: whole blocks of
/// each leaf first, then what is left over of the leaves below one spine, and so on up.
class Packer {
 public:
  Packer(const Nodes& order, size_t block, const NodeDistances& distances) : order_(order), block_(block) {
    for (size_t i = 1; i < order.size(); ++i) steps_.push_back(distances(order[i - 1], order[i]));
  }

  Nodes run() {
    const int top = steps_.empty() ? 0 : *std::max_element(steps_.begin(), steps_.end());
    const Nodes rest = pack(0, order_.size(), top);
    packed_.insert(packed_.end(), rest.begin(), rest.end());
    return std::move(packed_);
  }

 private:
  /// Puts the whole blocks of nodes [begin, end), at most `distance` apart, into packed_; returns the rest.
  Nodes pack(size_t begin, size_t end, int distance) {
    Nodes rest;
    for (size_t i = begin; distance == 0 && i < end; ++i) rest.push_back(order_[i]);
    for (size_t first = begin; distance > 0 && first < end;) {
      size_t last = first + 1;
      while (last < end && steps_[last - 1] < distance) ++last;
      const Nodes part = pack(first, last, distance - 1);
      rest.insert(rest.end(), part.begin(), part.end());
      first = last;
    }
    const auto whole = static_cast<std::ptrdiff_t>(rest.size() / block_ * block_);
    packed_.insert(packed_.end(), rest.begin(), rest.begin() + whole);
    rest.erase(rest.begin(), rest.begin() + whole);
    return rest;
  }

  const Nodes& order_;
  const size_t block_;
  std::vector<int> steps_;  // fabric distance between order_[i] and order_[i + 1]
  Nodes packed_;
};

/// How many nodes groups along one axis, or several inner ones, take: the block sizes that are worth packing.
std::set<size_t> block_sizes(const RankGrid& grid, int ranks_per_node) {
  std::set<size_t> sizes;
  for (const Axis axis : {Axis::tensor, Axis::context, Axis::data, Axis::pipeline}) {
    const size_t span = static_cast<size_t>(grid.stride(axis)) * static_cast<size_t>(grid.size(axis));
    const size_t nodes = (span + static_cast<size_t>(ranks_per_node) - 1) / static_cast<size_t>(ranks_per_node);
    if (nodes > 1 && span < static_cast<size_t>(grid.world_size())) sizes.insert(nodes);
  }
  return sizes;
}

Nodes searched(const std::vector<Nodes>& candidates, const Nodes& order, size_t count,
               const std::vector<Exchange>& traffic, const NodeNetwork& network) {
  SeatingProblem problem{count, order.size(), traffic, {}};
  for (const int a : order) {
    for (const int b : order) problem.cost.push_back(a == b ? 0 : network.cost(a, b));
  }
  std::vector<Seating> starts;
  for (const Nodes& candidate : candidates) {
    Seating& start = starts.emplace_back();
    for (const int node : candidate) {
      start.push_back(static_cast<int>(std::find(order.begin(), order.end(), node) - order.begin()));
    }
  }
  Nodes nodes;
  for (const int seat : best_seating(problem, starts)) nodes.push_back(order[static_cast<size_t>(seat)]);
  return nodes;
}

/// `count` of the nodes in `order` (the fabric's) for the positions of the rank order.
Nodes arrange(const Cluster& cluster, const PlacementRequest& request, const Nodes& order, size_t count) {
  const std::vector<Exchange> traffic = node_traffic(request);
  const NodeNetwork network(cluster, request.ranks_per_node);
  const Nodes plain = closest(order, count, network.distances());
  std::vector<Nodes> candidates{plain};
  for (const size_t block : block_sizes(request.grid, request.ranks_per_node)) {
    candidates.push_back(Packer(plain, block, network.distances()).run());
  }
  if (order.size() <= kSearchedNodesMax) return searched(candidates, order, count, traffic, network);
  double least = -1;
  const Nodes* best = &plain;
  for (const Nodes& nodes : candidates) {
    double cost = 0;
    for (const Exchange& e : traffic) {
      cost += e.bytes * network.cost(nodes[static_cast<size_t>(e.a)], nodes[static_cast<size_t>(e.b)]);
    }
    if (least >= 0 && cost >= least * (1 - 1e-9)) continue;
    least = cost;
    best = &nodes;
  }
  return *best;
}

/// Whether it makes a difference which node comes after which.
bool has_structure(const Cluster& cluster) {
  return !cluster.fabric.empty() || std::any_of(cluster.nodes.begin(), cluster.nodes.end(), [](const Machine& node) {
    return !node.gpus.empty() && !node.gpus.front().nvlink_domain.empty();
  });
}

void say_order(const Cluster& cluster, const NodeOrder& order, const Nodes& nodes,
               const std::vector<std::string>& unfit, std::vector<std::string>& reasons) {
  const size_t spare = cluster.nodes.size() - nodes.size() - unfit.size();
  if (spare > 0) reasons.push_back(counted(spare, "further node") + " not used");
  for (const std::string& problem : unfit) reasons.push_back("not used: " + problem);
  reasons.insert(reasons.end(), order.reasons.begin(), order.reasons.end());
  if (nodes.size() < 2) return;
  std::vector<bool> used(cluster.nodes.size());
  for (const int node : nodes) used[static_cast<size_t>(node)] = true;
  Nodes plain;
  std::copy_if(order.nodes.begin(), order.nodes.end(), std::back_inserter(plain),
               [&](int node) { return used[static_cast<size_t>(node)]; });
  if (plain != nodes) {
    reasons.push_back("nodes are not in the plain order of the fabric: this one keeps more traffic below the leaves");
  }
}

Result<NodeChoice> choose_even(const Cluster& cluster, const PlacementRequest& request) {
  const size_t world = static_cast<size_t>(request.grid.world_size());
  const size_t per_node = static_cast<size_t>(request.ranks_per_node);
  if (world % per_node != 0) {
    return infeasible(counted(world, "rank") + " do not divide into nodes of " + counted(per_node, "rank") +
                      ": choose parallel sizes whose product is a multiple of " + std::to_string(per_node));
  }
  const size_t needed = world / per_node, there = cluster.nodes.size();
  if (needed > there) {
    return infeasible(counted(world, "rank") + " at " + std::to_string(per_node) + " a node need " +
                      counted(needed, "node") + ", but there " + (there == 1 ? "is " : "are ") + std::to_string(there) +
                      ": reduce the parallel sizes to " + counted(there * per_node, "rank") +
                      " in all, or give more nodes");
  }
  const size_t wanted = request.nodes_share_machine ? world : per_node;
  const NodeOrder order = node_order(cluster);
  Nodes usable;
  std::vector<std::string> unfit;
  for (const int node : order.nodes) {
    const std::string problem =
        problem_of(cluster.nodes[static_cast<size_t>(node)], request, wanted, request.nodes_share_machine ? needed : 1);
    if (problem.empty())
      usable.push_back(node);
    else
      unfit.push_back(described(cluster, node) + " " + problem);
  }
  if (usable.size() < needed) {
    const bool some = !usable.empty() && there > 1;
    return infeasible(unfit.front() + (some ? "; " + counted(usable.size(), "node") + " of " + std::to_string(there) +
                                                  " can hold " + counted(per_node, "rank")
                                            : ""));
  }
  NodeChoice choice;
  Nodes nodes(usable.begin(), usable.begin() + static_cast<std::ptrdiff_t>(needed));
  if (has_structure(cluster) && !request.nodes_share_machine) nodes = arrange(cluster, request, usable, needed);
  for (const int node : nodes) {
    choice.nodes.push_back({node, static_cast<int>(choice.nodes.size() * per_node), request.ranks_per_node});
  }
  choice.reasons.push_back(counted(world, "rank") + " on " + counted(needed, "node") + ", " + std::to_string(per_node) +
                           " a node, in the order of the ranks");
  say_order(cluster, order, nodes, unfit, choice.reasons);
  return choice;
}

size_t capacity(const Machine& machine, DeviceKind device) {
  if (device == DeviceKind::cuda) return machine.gpus.size();
  std::set<int> numa;
  for (const Core& core : machine.cores) numa.insert(core.numa);
  return numa.size();
}

/// Nodes take what they can in whole tensor groups, in the order of the fabric.
Result<NodeChoice> choose_uneven(const Cluster& cluster, const PlacementRequest& request) {
  const RankGrid& grid = request.grid;
  const size_t world = static_cast<size_t>(grid.world_size());
  const size_t unit = static_cast<size_t>(grid.stride(Axis::tensor)) * static_cast<size_t>(grid.size(Axis::tensor));
  NodeChoice choice;
  size_t placed = 0, all = 0, largest = 0;
  const NodeOrder order = node_order(cluster);
  Nodes nodes;
  for (const int node : order.nodes) {
    const size_t room = capacity(cluster.nodes[static_cast<size_t>(node)], request.device);
    const size_t takes = std::min(room / unit * unit, world - placed);
    largest = std::max(largest, room);
    all += room / unit * unit;
    if (takes == 0) continue;
    choice.nodes.push_back({node, static_cast<int>(placed), static_cast<int>(takes)});
    nodes.push_back(node);
    placed += takes;
    const std::string left = room > takes ? " of " + std::to_string(room) + " that it could" : "";
    choice.reasons.push_back(described(cluster, node) + " takes " + counted(takes, "rank") + left);
  }
  if (placed < world) {
    const std::string groups = "tensor-parallel groups (" + counted(unit, "rank") + " side by side)";
    if (largest < unit) {
      return infeasible(groups + " fit into no node: the largest has room for " + std::to_string(largest) +
                        "; lower parallel.tensor");
    }
    return infeasible(counted(world, "rank") + " in whole " + groups + " do not fit: the nodes have room for " +
                      std::to_string(all) + "; reduce the parallel sizes, or give more nodes");
  }
  choice.reasons.insert(choice.reasons.begin(), counted(world, "rank") + " on " + counted(nodes.size(), "node") +
                                                    ", each as many as it has room for in whole tensor groups");
  say_order(cluster, order, nodes, {}, choice.reasons);
  return choice;
}

}  // namespace

Result<NodeChoice> choose_nodes(const Cluster& cluster, const PlacementRequest& request) {
  if (request.ranks_per_node < 0) return bad_input("ranks per node must be at least 1");
  return request.ranks_per_node > 0 ? choose_even(cluster, request) : choose_uneven(cluster, request);
}

}  // namespace mds::topology
