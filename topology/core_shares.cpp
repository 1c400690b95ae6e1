#include "topology/core_shares.hpp"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>
#include <tuple>

namespace mds::topology {
namespace {

/// A NUMA node's cores and the ranks that it gets.
struct Domain {
  std::vector<const Core*> cores;
  std::vector<size_t> ranks;
};
using Domains = std::map<int, Domain>;  // by OS index of the NUMA node

std::vector<const Core*> ordered_cores(const Machine& machine) {
  std::vector<const Core*> cores;
  for (const Core& core : machine.cores) cores.push_back(&core);
  std::sort(cores.begin(), cores.end(), [](const Core* a, const Core* b) {
    return std::tie(a->package, a->numa, a->index) < std::tie(b->package, b->numa, b->index);
  });
  return cores;
}

/// Consecutive ranks get consecutive cores; shares differ by one core at most.
void divide_evenly(const std::vector<const Core*>& cores, const std::vector<size_t>& ranks,
                   std::vector<CoreShare>& shares) {
  const size_t n = cores.size(), k = ranks.size();
  for (size_t i = 0; i < k; ++i) {
    CoreShare& share = shares[ranks[i]];
    if (n >= k) {
      share.cores.assign(cores.begin() + i * n / k, cores.begin() + (i + 1) * n / k);
    } else {
      share.cores = {cores[i % n]};
      share.shared = i % n + n < k || i >= n;
    }
  }
}

size_t room(const Domain& domain, size_t ranks_per_core_max) {
  const size_t places = domain.cores.size() * ranks_per_core_max;
  return places - std::min(places, domain.ranks.size());
}

/// Spreads `ranks` over `domains` so that the poorest rank has as many cores as can be: first how many each domain
/// gets, then which, so that neighbouring ranks stay together.
void spread(const std::vector<Domain*>& domains, const std::vector<size_t>& ranks) {
  std::vector<size_t> extra(domains.size());
  const auto poorer = [&](size_t a, size_t b) {
    const size_t ranks_a = domains[a]->ranks.size() + extra[a] + 1, ranks_b = domains[b]->ranks.size() + extra[b] + 1;
    return domains[a]->cores.size() * ranks_b < domains[b]->cores.size() * ranks_a;
  };
  std::vector<size_t> all(domains.size());
  std::iota(all.begin(), all.end(), size_t{0});
  for (size_t i = 0; i < ranks.size(); ++i) ++extra[*std::max_element(all.begin(), all.end(), poorer)];
  auto next = ranks.begin();
  for (const size_t i : all) {
    const auto end = next + static_cast<std::ptrdiff_t>(extra[i]);
    domains[i]->ranks.insert(domains[i]->ranks.end(), next, end);
    next = end;
  }
}

/// Ranks with a wish go where they wish as long as no core there gets more than `ranks_per_core_max` of them, those
/// that find no room there into the same package, and all others fill up evenly.
void assign(Domains& domains, const std::vector<int>& wishes, size_t ranks_per_core_max) {
  std::map<int, std::vector<size_t>> crowded_out;  // by package
  std::vector<size_t> anywhere;
  for (size_t rank = 0; rank < wishes.size(); ++rank) {
    const auto wish = domains.find(wishes[rank]);
    if (wish == domains.end()) {
      anywhere.push_back(rank);
    } else if (room(wish->second, ranks_per_core_max) > 0) {
      wish->second.ranks.push_back(rank);
    } else {
      crowded_out[wish->second.cores.front()->package].push_back(rank);
    }
  }
  for (auto& [package, ranks] : crowded_out) {
    std::vector<Domain*> near;
    size_t places = 0;
    for (auto& [numa, domain] : domains) {
      if (domain.cores.front()->package != package || room(domain, ranks_per_core_max) == 0) continue;
      near.push_back(&domain);
      places += room(domain, ranks_per_core_max);
    }
    const auto end = ranks.begin() + static_cast<std::ptrdiff_t>(std::min(places, ranks.size()));
    if (!near.empty()) spread(near, {ranks.begin(), end});
    anywhere.insert(anywhere.end(), end, ranks.end());
  }
  std::sort(anywhere.begin(), anywhere.end());
  std::vector<Domain*> all;
  for (auto& [numa, domain] : domains) all.push_back(&domain);
  spread(all, anywhere);
}

/// Whether holding every rank inside one NUMA node leaves the poorest one well below an even share.
bool too_uneven(const Domains& domains, size_t cores, size_t ranks) {
  if (ranks < domains.size()) return true;
  size_t least = cores;
  for (const auto& [numa, domain] : domains) {
    if (!domain.ranks.empty()) least = std::min(least, domain.cores.size() / domain.ranks.size());
  }
  return 4 * least < 3 * (cores / ranks);
}

}  // namespace

int numa_with_cores(const Machine& machine, int numa) {
  const auto has_cores = [&](int os_index) {
    return std::any_of(machine.cores.begin(), machine.cores.end(), [&](auto& core) { return core.numa == os_index; });
  };
  if (numa < 0 || has_cores(numa)) return numa;
  const auto known = std::find_if(machine.numa.begin(), machine.numa.end(),
                                  [&](const NumaNode& node) { return node.os_index == numa; });
  const auto key = [&](const Core& core) {
    const bool other_package = known != machine.numa.end() && core.package != known->package;
    return std::tuple(other_package, std::abs(core.numa - numa), core.numa);
  };
  const auto nearest = std::min_element(machine.cores.begin(), machine.cores.end(),
                                        [&](const Core& a, const Core& b) { return key(a) < key(b); });
  return nearest == machine.cores.end() ? -1 : nearest->numa;
}

std::vector<CoreShare> divide_cores(const Machine& machine, const std::vector<int>& nearest) {
  const auto cores = ordered_cores(machine);
  const bool enough = cores.size() >= nearest.size();
  Domains domains;
  for (const Core* core : cores) domains[core->numa].cores.push_back(core);
  std::map<int, int> home;  // by NUMA node that is wished for
  std::vector<int> wishes;
  for (const int numa : nearest) {
    const auto [entry, is_new] = home.try_emplace(numa, -1);
    if (is_new) entry->second = numa_with_cores(machine, numa);
    wishes.push_back(entry->second);
  }
  const bool any_wish = std::any_of(wishes.begin(), wishes.end(), [](int numa) { return numa >= 0; });
  assign(domains, wishes, (nearest.size() + cores.size() - 1) / cores.size());

  std::vector<CoreShare> shares(nearest.size());
  if (!any_wish && enough && too_uneven(domains, cores.size(), nearest.size())) {
    std::vector<size_t> all(nearest.size());
    for (size_t rank = 0; rank < all.size(); ++rank) all[rank] = rank;
    divide_evenly(cores, all, shares);
    return shares;
  }
  for (const auto& [numa, domain] : domains) divide_evenly(domain.cores, domain.ranks, shares);
  return shares;
}

}  // namespace mds::topology
