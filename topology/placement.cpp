#include "topology/placement.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "topology/placement_nodes.hpp"
#include "topology/placement_reasons.hpp"
#include "topology/placement_seats.hpp"

namespace mds::topology {
namespace {

/// What the ranks [first, first + count) send each other, for each such block of `blocks`.
std::vector<std::vector<Exchange>> traffic_inside(const PlacementRequest& request,
                                                  const std::vector<NodePlacement>& blocks) {
  std::vector<int> block_of_rank;
  for (const NodePlacement& block : blocks) {
    block_of_rank.insert(block_of_rank.end(), static_cast<size_t>(block.ranks),
                         static_cast<int>(&block - blocks.data()));
  }
  std::vector<std::vector<Exchange>> traffic(blocks.size());
  for (const Flow& flow : traffic_flows(request.grid, request.traffic, block_of_rank)) {
    const int block = block_of_rank[static_cast<size_t>(flow.from)];
    if (block != block_of_rank[static_cast<size_t>(flow.to)]) continue;
    const int first = blocks[static_cast<size_t>(block)].first_rank;
    traffic[static_cast<size_t>(block)].push_back({flow.from - first, flow.to - first, flow.bytes});
  }
  for (auto& inside : traffic) inside = merged(std::move(inside));
  return traffic;
}

void take(RankPlacement& rank, const Seat& seat) {
  rank.gpu = seat.gpu;
  rank.cpus = seat.cpus;
  rank.cores = seat.cores;
  rank.memory_nodes = seat.memory_nodes;
  rank.nics = seat.nics;
  rank.best_nics = seat.best_nics;
  rank.shares_cores = seat.shares_cores;
}

/// Sentences in the order in which they first occur, with the nodes that they are true of.
class Sentences {
 public:
  void add(const std::vector<std::string>& sentences, const std::vector<int>& nodes) {
    for (const std::string& sentence : sentences) {
      const auto [entry, is_new] = index_.try_emplace(sentence, said_.size());
      if (is_new) said_.push_back({sentence, {}});
      auto& where = said_[entry->second].second;
      where.insert(where.end(), nodes.begin(), nodes.end());
    }
  }
  void write(std::vector<std::string>& reasons) {
    for (auto& [sentence, where] : said_) {
      std::sort(where.begin(), where.end());
      reasons.push_back(node_list(where) + ": " + sentence);
    }
  }

 private:
  std::map<std::string, size_t> index_;
  std::vector<std::pair<std::string, std::vector<int>>> said_;
};

/// Gives every rank its GPU, cores, memory and NICs.
void seat(const Cluster& cluster, const PlacementRequest& request, Placement& placement) {
  std::vector<NodePlacement> machines = placement.nodes;  // virtual nodes are one
  if (request.nodes_share_machine) machines = {{0, 0, request.grid.world_size()}};
  std::vector<std::vector<Exchange>> traffic(machines.size());
  if (request.device == DeviceKind::cuda) traffic = traffic_inside(request, machines);  // it is only GPUs that it moves
  SeatPlans plans(request.device);
  Sentences sentences;
  for (size_t i = 0; i < machines.size(); ++i) {
    const NodePlacement& here = machines[i];
    const Machine& machine = cluster.nodes[static_cast<size_t>(here.node)];
    const auto plan = plans.of(machine, static_cast<size_t>(here.ranks), traffic[i]);
    for (int rank = 0; rank < here.ranks; ++rank) {
      take(placement.ranks[static_cast<size_t>(here.first_rank + rank)], plan->seats[static_cast<size_t>(rank)]);
    }
    std::vector<int> where{here.node};
    if (request.nodes_share_machine) {
      where.resize(placement.nodes.size());
      std::iota(where.begin(), where.end(), 0);
    }
    sentences.add(plan->reasons, where);
  }
  sentences.write(placement.reasons);
}

}  // namespace

Result<Placement> place(const Cluster& cluster, const PlacementRequest& request) {
  Result<NodeChoice> choice = choose_nodes(cluster, request);
  if (!choice) return choice.error();
  Placement placement;
  placement.nodes = std::move(choice->nodes);
  placement.reasons = std::move(choice->reasons);
  placement.ranks.resize(static_cast<size_t>(request.grid.world_size()));
  for (size_t node_rank = 0; node_rank < placement.nodes.size(); ++node_rank) {
    const NodePlacement& node = placement.nodes[node_rank];
    for (int local = 0; local < node.ranks; ++local) {
      RankPlacement& r = placement.ranks[static_cast<size_t>(node.first_rank + local)];
      r.rank = node.first_rank + local;
      r.node = node.node;
      r.node_rank = static_cast<int>(node_rank);
      r.local_rank = local;
      r.coordinates = request.grid.coordinates(r.rank);
    }
  }
  if (request.nodes_share_machine && placement.nodes.size() > 1) {
    placement.reasons.push_back("the " + counted(placement.nodes.size(), "node") +
                                " are virtual: they divide the one machine " + cluster.nodes.front().host);
  }
  for (std::string& reason : axis_reasons(cluster, request, placement.nodes)) {
    placement.reasons.push_back(std::move(reason));
  }
  seat(cluster, request, placement);
  return placement;
}

nlohmann::json to_json(const Placement& placement, const Cluster& cluster) {
  nlohmann::json ranks = nlohmann::json::array();
  for (const RankPlacement& r : placement.ranks) {
    const Machine& machine = cluster.nodes[static_cast<size_t>(r.node)];
    nlohmann::json rank = {{"rank", r.rank},
                           {"host", machine.host},
                           {"node", r.node},
                           {"node_rank", r.node_rank},
                           {"local_rank", r.local_rank},
                           {"tp", r.coordinates.tensor},
                           {"pp", r.coordinates.pipeline},
                           {"dp", r.coordinates.data},
                           {"cp", r.coordinates.context},
                           {"device", "cpu"},
                           {"cores", r.cpus},
                           {"shares_cores", r.shares_cores},
                           {"memory_nodes", r.memory_nodes},
                           {"nics", r.nics}};
    if (r.gpu >= 0) {
      const Gpu& gpu = machine.gpus[static_cast<size_t>(r.gpu)];
      rank["device"] = "cuda:" + std::to_string(gpu.index);
      rank["gpu"] = {{"index", gpu.index}, {"uuid", gpu.uuid}, {"bus_id", gpu.bus_id}, {"name", gpu.name}};
    }
    ranks.push_back(std::move(rank));
  }
  return {{"ranks", std::move(ranks)}, {"reasons", placement.reasons}};
}

}  // namespace mds::topology
