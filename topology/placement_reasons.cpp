#include "topology/placement_reasons.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "topology/core_shares.hpp"
#include "topology/placement_seats.hpp"

namespace mds::topology {
namespace {

using Seats = std::vector<Seat>;

/// "14 cores", or "10 to 11 cores" where ranks differ.
std::string core_range(size_t least, size_t most) {
  return least == most ? counted(least, "core") : std::to_string(least) + " to " + counted(most, "core");
}

std::string explain_cores(const Machine& machine, const Seats& seats) {
  if (machine.cores.empty()) return "no core is known, so ranks are not bound to any";
  std::map<int, const Core*> core_of_cpu;
  for (const Core& core : machine.cores) {
    for (const int cpu : core.cpus) core_of_cpu[cpu] = &core;
  }
  size_t least = machine.cores.size(), most = 0, sharing = 0, straddling = 0;
  std::set<const Core*> used;
  for (const Seat& seat : seats) {
    std::set<const Core*> cores;
    std::set<int> numa;
    for (const int cpu : seat.cpus) {
      cores.insert(core_of_cpu.at(cpu));
      numa.insert(core_of_cpu.at(cpu)->numa);
    }
    least = std::min(least, cores.size());
    most = std::max(most, cores.size());
    sharing += seat.shares_cores;
    straddling += numa.size() > 1;
    used.insert(cores.begin(), cores.end());
  }
  if (sharing > 0) {
    return counted(seats.size(), "rank") + " on " + counted(used.size(), "core") + ": " + std::to_string(sharing) +
           " share a core with others, because there are fewer cores than ranks";
  }
  std::string reason = seats.size() == 1 ? "its rank has " : "each rank has ";
  reason += core_range(least, most) + " of its own, shared with no other";
  if (straddling > 0) {
    reason += "; " + counted(straddling, "rank") + (straddling == 1 ? " has" : " have") +
              " cores of several NUMA nodes, because a share within one would be too small";
  }
  return reason;
}

/// Where the cores of GPU ranks are.
std::string explain_nearness(const Machine& machine, const Seats& seats) {
  std::map<int, int> numa_of_cpu;
  for (const Core& core : machine.cores) {
    for (const int cpu : core.cpus) numa_of_cpu[cpu] = core.numa;
  }
  size_t unknown = 0, coreless = 0, far = 0;
  for (const Seat& seat : seats) {
    const int numa = machine.gpus[static_cast<size_t>(seat.gpu)].numa;
    const int home = numa_with_cores(machine, numa);
    unknown += numa < 0;
    coreless += home != numa;
    far += numa >= 0 && numa_of_cpu.at(seat.cpus.front()) != home;
  }
  if (unknown > 0) return "the system does not say which NUMA node is nearest to its GPUs: cores are divided evenly";
  if (far > 0) {
    return counted(far, "rank") + (far == 1 ? " has" : " have") +
           " cores of another NUMA node than the GPU's, because that has too few that may be used";
  }
  if (coreless > 0) {
    return counted(coreless, "GPU") + (coreless == 1 ? " is" : " are") +
           " on a NUMA node without cores: the ranks have those of the nearest that has some";
  }
  return "each rank's cores are those of the NUMA node nearest to its GPU";
}

/// Nothing where the GPUs are taken in their own order, which needs no reason.
void explain_order(const Machine& machine, const Seats& seats, std::vector<std::string>& reasons) {
  bool in_order = true;
  std::string list;
  for (size_t i = 0; i < seats.size(); ++i) {
    in_order = in_order && (i == 0 || seats[i - 1].gpu < seats[i].gpu);
    list += (i > 0 ? ", " : "") + std::to_string(machine.gpus[static_cast<size_t>(seats[i].gpu)].index);
  }
  if (in_order) return;
  reasons.push_back("local ranks have GPUs " + list + ", so that those that talk most have the best paths");
}

std::string explain_memory(const Seats& seats) {
  const auto unbound = std::count_if(seats.begin(), seats.end(), [](auto& seat) { return seat.memory_nodes.empty(); });
  if (unbound == 0) return "memory is bound to the NUMA nodes of each rank's cores";
  return "memory of " + counted(static_cast<size_t>(unbound), "rank") +
         " is not bound: the NUMA nodes of its cores may not be used";
}

std::string explain_nics(const Machine& machine, const Seats& seats) {
  std::map<std::string, size_t> users;
  for (const Seat& seat : seats) {
    if (!seat.nics.empty()) ++users[seat.nics.front()];
  }
  if (users.empty()) return "there is no network interface but loopback";
  if (users.size() == 1) {
    return "all ranks use " + users.begin()->first +
           (machine.nics.size() > 1 ? ", the nearest and fastest" : ", the only one");
  }
  std::string reason = counted(users.size(), "network device") + " are used, each rank's nearest first";
  const auto most = std::max_element(users.begin(), users.end(), [](auto& a, auto& b) { return a.second < b.second; });
  if (most->second > 1) reason += "; up to " + counted(most->second, "rank") + " share one (" + most->first + ")";
  return reason;
}

/// How far the nodes of the groups along an axis are from each other.
struct Span {
  size_t nodes = 1;  ///< of the widest group
  int distance = 0;  ///< fabric_distance() between neighbours, at most
};

Span span_of(const RankGrid& grid, Axis axis, const std::vector<int>& node_of_rank, const NodeDistances& distances) {
  Span span;
  for (int rank = 0; rank < grid.world_size(); ++rank) {
    if (rank / grid.stride(axis) % grid.size(axis) != 0) continue;  // each group once
    std::set<int> nodes;
    int last = -1;
    for (int i = 0; i < grid.size(axis); ++i) {
      const int node = node_of_rank[static_cast<size_t>(rank + i * grid.stride(axis))];
      if (last >= 0 && node != last) span.distance = std::max(span.distance, distances(last, node));
      nodes.insert(last = node);
    }
    span.nodes = std::max(span.nodes, nodes.size());
  }
  return span;
}

/// What lies between nodes at this fabric_distance().
std::string extent(int distance) {
  if (distance <= 1) return " of one NVLink domain";
  if (distance == 2) return " of one leaf switch";
  return ", through " + counted(static_cast<size_t>(distance - 2), "level") + " of switches above the leaves";
}

}  // namespace

std::string counted(size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

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

std::vector<std::string> seat_reasons(const Machine& machine, DeviceKind device, const std::vector<Seat>& seats) {
  std::vector<std::string> reasons{explain_cores(machine, seats)};
  if (device == DeviceKind::cuda) {
    if (!machine.cores.empty()) reasons.push_back(explain_nearness(machine, seats));
    explain_order(machine, seats, reasons);
  }
  if (!machine.cores.empty()) reasons.push_back(explain_memory(seats));
  reasons.push_back(explain_nics(machine, seats));
  return reasons;
}

std::vector<std::string> axis_reasons(const Cluster& cluster, const PlacementRequest& request,
                                      const std::vector<NodePlacement>& nodes) {
  constexpr std::pair<Axis, const char*> kAxes[] = {
      {Axis::tensor, "tensor"}, {Axis::context, "context"}, {Axis::data, "data"}, {Axis::pipeline, "pipeline"}};
  const RankGrid& grid = request.grid;
  const NodeDistances distances(cluster);
  std::vector<int> node_of_rank;
  int widest = 0;
  for (const NodePlacement& node : nodes) {
    node_of_rank.insert(node_of_rank.end(), static_cast<size_t>(node.ranks), node.node);
    widest = std::max(widest, node.ranks);
  }
  std::vector<std::string> reasons;
  for (const auto& [axis, name] : kAxes) {
    if (grid.size(axis) == 1) continue;
    const Span span = span_of(grid, axis, node_of_rank, distances);
    const size_t size = static_cast<size_t>(grid.size(axis));
    std::string reason = std::string(name) + "-parallel groups (" + counted(size, "rank") + " each) ";
    reason += span.nodes == 1 ? "stay inside a node" : "span " + counted(span.nodes, "node");
    if (span.nodes > 1 && request.nodes_share_machine) reason += " of the one machine";
    const bool apart = span.nodes > 1 && !request.nodes_share_machine;
    if (apart && (!cluster.fabric.empty() || span.distance <= 1)) reason += extent(span.distance);
    if (axis == Axis::tensor && apart && span.distance > 1) {
      reason += ": tp=" + std::to_string(size) + " on nodes of " + counted(static_cast<size_t>(widest), "rank") +
                " crosses nodes; their traffic is the heaviest, so a tensor size that divides " +
                std::to_string(widest) + " would be faster";
    }
    reasons.push_back(reason);
  }
  return reasons;
}

}  // namespace mds::topology
