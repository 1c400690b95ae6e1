#include "topology/core_shares.hpp"

#include <algorithm>
#include <map>
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

/// The domain whose ranks would still have the most cores each with one rank more.
Domain& richest(Domains& domains) {
  const auto poorer = [](const auto& a, const auto& b) {
    return a.second.cores.size() * (b.second.ranks.size() + 1) < b.second.cores.size() * (a.second.ranks.size() + 1);
  };
  return std::max_element(domains.begin(), domains.end(), poorer)->second;
}

/// Ranks with a wish go where they wish as long as no core there gets more than `ranks_per_core_max` of them; the
/// others fill up evenly.
void assign(Domains& domains, const std::vector<int>& nearest, size_t ranks_per_core_max) {
  std::vector<size_t> anywhere;
  for (size_t rank = 0; rank < nearest.size(); ++rank) {
    const auto wish = domains.find(nearest[rank]);
    if (wish != domains.end() && wish->second.ranks.size() < wish->second.cores.size() * ranks_per_core_max) {
      wish->second.ranks.push_back(rank);
    } else {
      anywhere.push_back(rank);
    }
  }
  // First how many each domain gets, then which: neighbouring ranks stay together.
  std::map<Domain*, size_t> extra;
  for (size_t i = 0; i < anywhere.size(); ++i) {
    Domain& domain = richest(domains);
    domain.ranks.push_back(anywhere[i]);
    ++extra[&domain];
  }
  auto next = anywhere.begin();
  for (auto& [numa, domain] : domains) {
    const size_t count = extra[&domain];
    std::copy_n(next, count, domain.ranks.end() - static_cast<std::ptrdiff_t>(count));
    next += static_cast<std::ptrdiff_t>(count);
  }
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

std::vector<CoreShare> divide_cores(const Machine& machine, const std::vector<int>& nearest) {
  const auto cores = ordered_cores(machine);
  const bool enough = cores.size() >= nearest.size();
  Domains domains;
  for (const Core* core : cores) domains[core->numa].cores.push_back(core);
  const bool wishes =
      std::any_of(nearest.begin(), nearest.end(), [&](int numa) { return domains.find(numa) != domains.end(); });
  assign(domains, nearest, (nearest.size() + cores.size() - 1) / cores.size());

  std::vector<CoreShare> shares(nearest.size());
  if (!wishes && enough && too_uneven(domains, cores.size(), nearest.size())) {
    std::vector<size_t> all(nearest.size());
    for (size_t rank = 0; rank < all.size(); ++rank) all[rank] = rank;
    divide_evenly(cores, all, shares);
    return shares;
  }
  for (const auto& [numa, domain] : domains) divide_evenly(domain.cores, domain.ranks, shares);
  return shares;
}

}  // namespace mds::topology
