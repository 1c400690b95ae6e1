#include "topology/placement_reasons.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <utility>

namespace mds::topology {
namespace {

/// "14 cores", or "10 to 11 cores" where ranks differ.
std::string core_range(size_t least, size_t most) {
  return least == most ? counted(least, "core") : std::to_string(least) + " to " + counted(most, "core");
}

/// "node 2" or "nodes 0-3, 5".
std::string node_list(const std::vector<int>& nodes) {
  std::string text = nodes.size() == 1 ? "node " : "nodes ";
  for (size_t i = 0; i < nodes.size();) {
    size_t end = i;
    while (end + 1 < nodes.size() && nodes[end + 1] == nodes[end] + 1) ++end;
    if (i > 0) text += ", ";
    text += std::to_string(nodes[i]);
    if (end > i) text.append("-").append(std::to_string(nodes[end]));
    i = end + 1;
  }
  return text;
}

/// Which axes stay inside a node and which cross the network.
void explain_axes(const PlacementRequest& request, std::vector<std::string>& reasons) {
  constexpr std::pair<Axis, const char*> kAxes[] = {
      {Axis::tensor, "tensor"}, {Axis::context, "context"}, {Axis::data, "data"}, {Axis::pipeline, "pipeline"}};
  const RankGrid& grid = request.grid;
  for (const auto& [axis, name] : kAxes) {
    if (grid.size(axis) == 1) continue;
    size_t span = 1;
    for (int rank = 0; rank < grid.world_size(); ++rank) {
      const auto group = grid.group(axis, rank);
      if (group.front() != rank) continue;  // each group once
      std::set<int> nodes;
      for (const int peer : group) nodes.insert(peer / request.ranks_per_node);
      span = std::max(span, nodes.size());
    }
    std::string reason = std::string(name) + "-parallel groups (" + counted(grid.size(axis), "rank") + " each) ";
    reason += span == 1 ? "stay inside a node" : "span " + counted(span, "node");
    if (span > 1 && axis == Axis::tensor) {
      reason += ": their traffic is the heaviest, so a tensor size of at most " +
                std::to_string(request.ranks_per_node) + " would be faster";
    }
    reasons.push_back(reason);
  }
}

using Ranks = std::vector<const RankPlacement*>;  // those of one real machine

std::string explain_cores(const Machine& machine, const Ranks& ranks) {
  std::map<int, const Core*> core_of_cpu;
  for (const Core& core : machine.cores) {
    for (const int cpu : core.cpus) core_of_cpu[cpu] = &core;
  }
  size_t least = machine.cores.size(), most = 0, sharing = 0, straddling = 0;
  std::set<const Core*> used;
  for (const RankPlacement* rank : ranks) {
    std::set<const Core*> cores;
    std::set<int> numa;
    for (const int cpu : rank->cpus) {
      cores.insert(core_of_cpu.at(cpu));
      numa.insert(core_of_cpu.at(cpu)->numa);
    }
    least = std::min(least, cores.size());
    most = std::max(most, cores.size());
    sharing += rank->shares_cores;
    straddling += numa.size() > 1;
    used.insert(cores.begin(), cores.end());
  }
  if (sharing > 0) {
    return counted(ranks.size(), "rank") + " on " + counted(used.size(), "core") + ": " + std::to_string(sharing) +
           " share a core with others, because there are fewer cores than ranks";
  }
  std::string reason = ranks.size() == 1 ? "its rank has " : "each rank has ";
  reason += core_range(least, most) + " of its own, shared with no other";
  if (straddling > 0) {
    reason += "; " + counted(straddling, "rank") + (straddling == 1 ? " has" : " have") +
              " cores of several NUMA nodes, because a share within one would be too small";
  }
  return reason;
}

std::string explain_gpus(const Machine& machine, const Ranks& ranks) {
  std::map<int, int> numa_of_cpu;
  for (const Core& core : machine.cores) {
    for (const int cpu : core.cpus) numa_of_cpu[cpu] = core.numa;
  }
  size_t unknown = 0, far = 0;
  for (const RankPlacement* rank : ranks) {
    const int numa = machine.gpus[rank->gpu].numa;
    if (numa < 0) {
      ++unknown;
    } else {
      far += numa_of_cpu[rank->cpus.front()] != numa;
    }
  }
  if (unknown > 0) return "the system does not say which NUMA node is nearest to its GPUs: cores are divided evenly";
  if (far > 0) {
    return counted(far, "rank") + (far == 1 ? " has" : " have") +
           " cores of another NUMA node than the GPU's, because that has too few that may be used";
  }
  return "each rank's cores are those of the NUMA node nearest to its GPU";
}

std::string explain_memory(const Ranks& ranks) {
  const auto unbound = std::count_if(ranks.begin(), ranks.end(), [](auto* rank) { return rank->memory_nodes.empty(); });
  if (unbound == 0) return "memory is bound to the NUMA nodes of each rank's cores";
  return "memory of " + counted(unbound, "rank") + " is not bound: the NUMA nodes of its cores may not be used";
}

std::string explain_nics(const Machine& machine, const Ranks& ranks) {
  std::set<std::string> first;
  for (const RankPlacement* rank : ranks) {
    if (!rank->nics.empty()) first.insert(rank->nics.front());
  }
  if (first.empty()) return "there is no network interface but loopback";
  if (first.size() > 1) return counted(first.size(), "network device") + " are used, each rank's nearest first";
  const auto nic = std::find_if(machine.nics.begin(), machine.nics.end(),
                                [&](const Nic& candidate) { return candidate.name == *first.begin(); });
  return "all ranks use " + nic->name + (machine.nics.size() > 1 ? ", the nearest and fastest" : ", the only one");
}

}  // namespace

std::string counted(size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::vector<std::string> placement_reasons(const Cluster& cluster, const PlacementRequest& request,
                                           const std::vector<RankPlacement>& ranks) {
  std::vector<std::string> reasons;
  const size_t nodes = ranks.back().node + 1;
  reasons.push_back(
      counted(ranks.size(), "rank") + " on " + counted(nodes, "node") + ", " + std::to_string(request.ranks_per_node) +
      " a node, in the order of the ranks" +
      (nodes < cluster.nodes.size() ? "; " + counted(cluster.nodes.size() - nodes, "further node") + " not used" : ""));
  if (request.nodes_share_machine && nodes > 1) {
    reasons.push_back("the " + counted(nodes, "node") + " are virtual: they divide the one machine " +
                      cluster.nodes.front().host);
  }
  explain_axes(request, reasons);

  // Sentences in the order in which they first occur, with the nodes that they are true of.
  std::vector<std::pair<std::string, std::vector<int>>> said;
  const auto say = [&](const std::vector<int>& where, const std::string& sentence) {
    auto found = std::find_if(said.begin(), said.end(), [&](const auto& s) { return s.first == sentence; });
    if (found == said.end()) found = said.insert(said.end(), {sentence, {}});
    found->second.insert(found->second.end(), where.begin(), where.end());
  };
  const size_t per_machine = request.nodes_share_machine ? ranks.size() : request.ranks_per_node;
  for (size_t first = 0; first < ranks.size(); first += per_machine) {
    Ranks here;
    for (size_t i = 0; i < per_machine; ++i) here.push_back(&ranks[first + i]);
    std::vector<int> where(per_machine / request.ranks_per_node);
    std::iota(where.begin(), where.end(), here.front()->node);
    const Machine& machine = cluster.nodes[where.front()];
    say(where, explain_cores(machine, here));
    if (request.device == DeviceKind::cuda) say(where, explain_gpus(machine, here));
    say(where, explain_memory(here));
    say(where, explain_nics(machine, here));
  }
  for (const auto& [sentence, where] : said) reasons.push_back(node_list(where) + ": " + sentence);
  return reasons;
}

}  // namespace mds::topology
