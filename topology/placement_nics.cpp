#include "topology/placement_nics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

namespace mds::topology {
namespace {

constexpr double kSameBandwidth = 1e-6;  // GB/s; below this, two sums of the same figures differ

/// NICs in order of `key`, and how many tie for the first place.
template <typename Key>
std::pair<std::vector<size_t>, size_t> ranked(const std::vector<size_t>& nics, const Key& key) {
  std::vector<size_t> order = nics;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
  const auto worse = [&](size_t nic) { return key(nic) != key(order.front()); };
  return {order, static_cast<size_t>(std::find_if(order.begin(), order.end(), worse) - order.begin())};
}

/// A dual-ported adapter may stand there once a port, under one name. One without a name goes by its bus id.
std::vector<std::string> names_of(const Machine& machine, const std::vector<size_t>& nics) {
  std::vector<std::string> names;
  for (const size_t nic : nics) {
    const std::string& name = machine.nics[nic].name.empty() ? machine.nics[nic].bus_id : machine.nics[nic].name;
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

}  // namespace

std::vector<RankNics> gpu_rank_nics(const Machine& machine, const Paths& paths, const std::vector<int>& gpu_of_rank) {
  const size_t ranks = gpu_of_rank.size();
  std::vector<size_t> all(machine.nics.size());
  std::iota(all.begin(), all.end(), size_t{0});
  std::vector<std::vector<size_t>> order(ranks);
  std::vector<size_t> best(ranks);
  for (size_t rank = 0; rank < ranks; ++rank) {
    const auto key = [&](size_t nic) {
      const Path& path = paths.to_nic(static_cast<size_t>(gpu_of_rank[rank]), nic);
      return std::tuple(!machine.nics[nic].rdma, -std::round(path.gb_per_s / kSameBandwidth), path.kind);
    };
    std::tie(order[rank], best[rank]) = ranked(all, key);
  }
  std::vector<size_t> turn(ranks);
  std::iota(turn.begin(), turn.end(), size_t{0});
  std::stable_sort(turn.begin(), turn.end(), [&](size_t a, size_t b) { return best[a] < best[b]; });
  std::vector<int> users(machine.nics.size());
  for (const size_t rank : turn) {
    if (best[rank] == 0) continue;
    const auto begin = order[rank].begin(), end = begin + static_cast<std::ptrdiff_t>(best[rank]);
    const auto least = std::min_element(begin, end, [&](size_t a, size_t b) { return users[a] < users[b]; });
    ++users[*least];
    std::rotate(begin, least, end);
  }
  std::vector<RankNics> out(ranks);
  for (size_t rank = 0; rank < ranks; ++rank) {
    const auto first = std::vector<size_t>(order[rank].begin(), order[rank].begin() + static_cast<long>(best[rank]));
    out[rank] = {names_of(machine, order[rank]), static_cast<int>(names_of(machine, first).size())};
  }
  return out;
}

std::vector<RankNics> cpu_rank_nics(const Machine& machine, const std::vector<int>& numa_of_rank) {
  std::vector<size_t> tcp;
  for (size_t nic = 0; nic < machine.nics.size(); ++nic) {
    if (!machine.nics[nic].rdma) tcp.push_back(nic);
  }
  std::vector<RankNics> out;
  for (const int numa : numa_of_rank) {
    const auto key = [&](size_t index) {
      const Nic& nic = machine.nics[index];
      return std::pair(nic.numa == numa ? 0 : nic.numa < 0 || numa < 0 ? 1 : 2, -nic.gbps);
    };
    const auto [order, best] = ranked(tcp, key);
    out.push_back({names_of(machine, order), static_cast<int>(best)});
  }
  return out;
}

}  // namespace mds::topology
