#include "topology/placement_seats.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "topology/core_shares.hpp"
#include "topology/placement_nics.hpp"
#include "topology/placement_reasons.hpp"

namespace mds::topology {
namespace {

/// GPUs in the order in which local ranks would take them if all were connected equally: those of one NUMA node side by
/// side.
std::vector<int> gpus_by_numa(const Machine& machine) {
  std::vector<int> order(machine.gpus.size());
  std::iota(order.begin(), order.end(), 0);
  std::map<int, int> first_of_numa;
  for (const int gpu : order) first_of_numa.try_emplace(machine.gpus[static_cast<size_t>(gpu)].numa, gpu);
  const auto key = [&](int gpu) { return first_of_numa.at(machine.gpus[static_cast<size_t>(gpu)].numa); };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return key(a) < key(b); });
  return order;
}

/// By local rank. Several starts besides the plain order would gain nothing: the search has a greedy one of its own.
std::vector<int> choose_gpus(const Machine& machine, const Paths& paths, size_t ranks,
                             const std::vector<Exchange>& traffic) {
  const std::vector<int> order = gpus_by_numa(machine);
  SeatingProblem problem{ranks, order.size(), traffic, {}};
  bool equal = true;
  double first = -1;
  for (const int a : order) {
    for (const int b : order) {
      problem.cost.push_back(a == b ? 0 : gpu_cost(paths, a, b));
      if (a == b) continue;
      if (first < 0) first = problem.cost.back();
      equal = equal && problem.cost.back() == first;
    }
  }
  Seating seating(ranks);
  std::iota(seating.begin(), seating.end(), 0);
  if (!equal && !traffic.empty()) seating = best_seating(problem, {seating});
  std::vector<int> gpus;
  for (const int seat : seating) gpus.push_back(order[static_cast<size_t>(seat)]);
  return gpus;
}

/// NUMA nodes of these cores that memory can be bound to. One without memory of its own gives way to its package's.
std::vector<int> memory_of(const Machine& machine, const std::vector<const Core*>& cores) {
  const bool sizes_known =
      std::any_of(machine.numa.begin(), machine.numa.end(), [](const NumaNode& node) { return node.memory_bytes > 0; });
  const auto has_memory = [&](const NumaNode& node) { return !sizes_known || node.memory_bytes > 0; };
  std::set<int> wanted;
  for (const Core* core : cores) wanted.insert(core->numa);
  std::vector<int> found;
  for (const NumaNode& node : machine.numa) {
    if (wanted.contains(node.os_index) && has_memory(node)) found.push_back(node.os_index);
  }
  if (!found.empty()) return found;
  for (const NumaNode& empty : machine.numa) {
    if (!wanted.contains(empty.os_index)) continue;
    for (const NumaNode& node : machine.numa) {
      if (node.package == empty.package && has_memory(node)) found.push_back(node.os_index);
    }
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

/// Equal but for what makes no difference to seats: host, UUIDs, GUIDs, cables, notes.
bool same_kind(const Machine& a, const Machine& b) {
  const auto same_gpu = [](const Gpu& x, const Gpu& y) {
    return std::tie(x.index, x.bus_id, x.numa, x.pci, x.sm, x.gdr) ==
           std::tie(y.index, y.bus_id, y.numa, y.pci, y.sm, y.gdr);
  };
  const auto same_nic = [](const Nic& x, const Nic& y) {
    return std::tie(x.name, x.bus_id, x.numa, x.gbps, x.rdma, x.pci, x.port, x.gdr) ==
           std::tie(y.name, y.bus_id, y.numa, y.gbps, y.rdma, y.pci, y.port, y.gdr);
  };
  return a.cores == b.cores && a.packages == b.packages && a.numa == b.numa && a.pci == b.pci && a.links == b.links &&
         std::equal(a.gpus.begin(), a.gpus.end(), b.gpus.begin(), b.gpus.end(), same_gpu) &&
         std::equal(a.nics.begin(), a.nics.end(), b.nics.begin(), b.nics.end(), same_nic);
}

/// Equal for machines of the same kind, and mostly different for others.
size_t fingerprint(const Machine& machine, size_t ranks) {
  size_t hash = ranks;
  const auto mix = [&](size_t value) { hash = hash * 1099511628211u + value; };
  for (const Core& core : machine.cores) mix(core.cpus.empty() ? 0 : static_cast<size_t>(core.cpus.front() + 1));
  for (const NumaNode& node : machine.numa) mix(node.memory_bytes);
  for (const Gpu& gpu : machine.gpus) mix(std::hash<std::string>()(gpu.bus_id));
  for (const Nic& nic : machine.nics) mix(std::hash<std::string>()(nic.name));
  return hash;
}

}  // namespace

SeatPlan seat_ranks(const Machine& machine, DeviceKind device, size_t ranks, const std::vector<Exchange>& traffic) {
  std::vector<int> gpus, nearest(ranks, -1);
  Paths paths;
  if (device == DeviceKind::cuda) {
    paths = find_paths(machine);
    gpus = choose_gpus(machine, paths, ranks, traffic);
    for (size_t i = 0; i < ranks; ++i) nearest[i] = machine.gpus[static_cast<size_t>(gpus[i])].numa;
  }
  const std::vector<CoreShare> shares =
      machine.cores.empty() ? std::vector<CoreShare>(ranks) : divide_cores(machine, nearest);
  SeatPlan plan;
  plan.seats.resize(ranks);
  for (size_t i = 0; i < ranks; ++i) {
    Seat& seat = plan.seats[i];
    if (!gpus.empty()) seat.gpu = gpus[i];
    for (const Core* core : shares[i].cores) seat.cpus.insert(seat.cpus.end(), core->cpus.begin(), core->cpus.end());
    std::sort(seat.cpus.begin(), seat.cpus.end());
    seat.cores = static_cast<int>(shares[i].cores.size());
    seat.shares_cores = shares[i].shared;
    seat.memory_nodes = memory_of(machine, shares[i].cores);
    if (nearest[i] < 0 && !shares[i].cores.empty()) nearest[i] = shares[i].cores.front()->numa;
  }
  std::vector<RankNics> nics =
      device == DeviceKind::cuda ? gpu_rank_nics(machine, paths, gpus) : cpu_rank_nics(machine, nearest);
  for (size_t i = 0; i < ranks; ++i) {
    plan.seats[i].nics = std::move(nics[i].names);
    plan.seats[i].best_nics = nics[i].best;
  }
  plan.reasons = seat_reasons(machine, device, plan.seats);
  return plan;
}

std::shared_ptr<const SeatPlan> SeatPlans::of(const Machine& machine, size_t ranks,
                                              const std::vector<Exchange>& traffic) {
  const size_t mark = fingerprint(machine, ranks);
  const auto [begin, end] = known_.equal_range(mark);
  for (auto it = begin; it != end; ++it) {
    const Known& known = it->second;
    if (known.plan->seats.size() == ranks && known.traffic == traffic && same_kind(*known.machine, machine)) {
      return known.plan;
    }
  }
  auto plan = std::make_shared<const SeatPlan>(seat_ranks(machine, device_, ranks, traffic));
  known_.emplace(mark, Known{&machine, traffic, plan});
  return plan;
}

}  // namespace mds::topology
