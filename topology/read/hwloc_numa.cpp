#include "topology/read/hwloc_numa.hpp"

#include <algorithm>
#include <utility>

namespace mds::topology::hwloc {
namespace {

bool nearer(const NumaObject& a, const NumaObject& b) {
  return std::pair(a.rank, a.node.os_index) < std::pair(b.rank, b.node.os_index);
}

}  // namespace

bool NumaNodes::add(NumaObject numa) {
  const bool twice = std::any_of(nodes_.begin(), nodes_.end(), [&](const NumaObject& other) {
    return other.node.os_index == numa.node.os_index;
  });
  if (twice || nodes_.size() >= kMax) return false;
  numa.cpu_count = numa.cpus.count();
  nodes_.push_back(std::move(numa));
  return true;
}

/// One without CPUs, and a GPU's memory, are near to nobody.
template <typename Fits>
const NumaObject* NumaNodes::smallest(Fits fits) const {
  const NumaObject* best = nullptr;
  for (const NumaObject& numa : nodes_) {
    if (numa.gpu_memory || numa.cpu_count == 0 || !fits(numa)) continue;
    const bool smaller = !best || numa.cpu_count < best->cpu_count;
    if (smaller || (numa.cpu_count == best->cpu_count && nearer(numa, *best))) best = &numa;
  }
  return best;
}

int NumaNodes::of_cpu(int cpu) const {
  const auto* numa = smallest([&](const NumaObject& n) { return n.cpus.has(static_cast<size_t>(cpu)); });
  return numa ? numa->node.os_index : -1;
}

int NumaNodes::of_place(const Bitmap& cpus, const Bitmap& machine, std::vector<std::string>& notes) {
  const auto [known, fresh] = known_.try_emplace(&cpus, -1);
  if (!fresh) return known->second;
  if (const auto* around = smallest([&](const NumaObject& n) { return cpus.within(n.cpus); })) {
    return known->second = around->node.os_index;
  }
  const NumaObject* first = nullptr;
  for (const NumaObject& numa : nodes_) {
    if (numa.gpu_memory || !numa.cpus.meets(cpus)) continue;
    if (!first || nearer(numa, *first)) first = &numa;
  }
  if (!first || cpus == machine) return -1;
  const std::string note = "devices near several NUMA nodes (" + std::to_string(first->node.os_index) +
                           " and others) are taken to be near the first";
  if (noted_.insert(note).second) notes.push_back(note);
  return known->second = first->node.os_index;
}

}  // namespace mds::topology::hwloc
