#include "topology/fabric/node_groups.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "topology/fabric/natural_order.hpp"

namespace mds::topology {
namespace {

std::string short_name(const std::string& host) { return host.substr(0, host.find('.')); }

/// Disjoint sets of numbers; the smallest of a set speaks for it.
class Sets {
 public:
  explicit Sets(size_t count) : parent_(count) { std::iota(parent_.begin(), parent_.end(), 0); }
  int find(int i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  void join(int a, int b) {
    a = find(a), b = find(b);
    parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<int> parent_;
};

/// The leaves of every host, distinct, in the order of its ports. A fabric from JSON may have its ports in any order.
std::vector<std::vector<int>> leaves_by_host(const Fabric& fabric) {
  std::unordered_map<std::string_view, size_t> numbers;
  std::vector<std::vector<int>> leaves;
  std::set<std::pair<size_t, int>> seen;
  for (const FabricPort& port : fabric.ports) {
    const size_t host = numbers.try_emplace(port.host, leaves.size()).first->second;
    if (host == leaves.size()) leaves.emplace_back();
    if (seen.insert({host, port.leaf}).second) leaves[host].push_back(port.leaf);
  }
  return leaves;
}

/// For every switch its place in the natural order of the names.
std::vector<int> natural_ranks(const std::vector<FabricSwitch>& switches) {
  std::vector<int> order(switches.size()), rank(switches.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int a, int b) { return natural_less(switches[a].name, switches[b].name); });
  for (size_t i = 0; i < order.size(); ++i) rank[order[i]] = static_cast<int>(i);
  return rank;
}

/// The unit in which most cables of each node end; the lower number where two have as many.
std::vector<int> unit_of_nodes(const Cluster& cluster, const NodesByHost& hosts, const LeafUnits& units) {
  std::vector<std::map<int, int>> cables(cluster.nodes.size());
  for (const FabricPort& port : cluster.fabric.ports) {
    for (const int node : hosts.find(port.host)) ++cables[node][units.unit_of_switch[port.leaf]];
  }
  std::vector<int> unit_of(cluster.nodes.size(), -1);
  for (size_t node = 0; node < cables.size(); ++node) {
    int most = 0;
    for (const auto& [unit, count] : cables[node]) {
      if (count > most) most = count, unit_of[node] = unit;
    }
  }
  return unit_of;
}

/// Replaces the switch that speaks for each set by the place of the set's first leaf in the natural order.
std::vector<int> by_first_leaf(const std::vector<FabricSwitch>& switches, const std::vector<int>& rank, Sets& sets,
                               const std::vector<int>& unit_of) {
  std::vector<int> first(switches.size(), std::numeric_limits<int>::max());
  for (const bool leaf : {true, false}) {
    for (size_t i = 0; i < switches.size(); ++i) {
      int& lowest = first[sets.find(static_cast<int>(i))];
      const bool counts = leaf == (switches[i].level == 0);
      // Switches above count only where there is no leaf; they stand behind all leaves.
      const int place = leaf ? rank[i] : rank[i] + static_cast<int>(switches.size());
      if (counts) lowest = std::min(lowest, place);
    }
  }
  std::vector<int> group_of(unit_of.size(), -1);
  for (size_t node = 0; node < unit_of.size(); ++node) {
    if (unit_of[node] >= 0) group_of[node] = first[sets.find(unit_of[node])];
  }
  return group_of;
}

std::vector<std::vector<int>> levels_of(const Cluster& cluster, const NodesByHost& hosts) {
  const auto& switches = cluster.fabric.switches;
  if (switches.empty()) return {};
  const LeafUnits units = leaf_units(cluster.fabric);
  const std::vector<int> unit_of = unit_of_nodes(cluster, hosts, units), rank = natural_ranks(switches);
  Sets sets(switches.size());
  int top = 0;
  for (size_t i = 0; i < switches.size(); ++i) {
    sets.join(static_cast<int>(i), units.unit_of_switch[i]);
    top = std::max(top, switches[i].level);
  }
  std::vector<std::vector<std::pair<int, int>>> cables(top + 1);  // by level of the upper switch
  for (size_t i = 0; i < switches.size(); ++i) {
    for (const int parent : switches[i].parents)
      cables[switches[parent].level].push_back({static_cast<int>(i), parent});
  }
  std::vector<std::vector<int>> levels;
  for (const auto& level : cables) {
    for (const auto& [child, parent] : level) sets.join(child, parent);
    levels.push_back(by_first_leaf(switches, rank, sets, unit_of));
  }
  return levels;
}

std::vector<NodeBlock> blocks_of(const Cluster& cluster, const NodesByHost& hosts) {
  std::map<std::string, std::set<int>> domains;
  for (size_t node = 0; node < cluster.nodes.size(); ++node) {
    for (const Gpu& gpu : cluster.nodes[node].gpus) {
      if (!gpu.nvlink_domain.empty()) domains[gpu.nvlink_domain].insert(static_cast<int>(node));
    }
  }
  std::vector<NodeBlock> blocks;
  std::set<std::vector<int>> seen;  // a fabric may tell what the GPUs told already
  for (const auto& [name, nodes] : domains) {
    blocks.push_back({name, true, {nodes.begin(), nodes.end()}});
    seen.insert(blocks.back().nodes);
  }
  for (const FabricBlock& block : cluster.fabric.blocks) {
    std::set<int> nodes;
    for (const std::string& host : block.hosts) {
      const auto& found = hosts.find(host);
      nodes.insert(found.begin(), found.end());
    }
    if (nodes.empty() || !seen.insert({nodes.begin(), nodes.end()}).second) continue;
    blocks.push_back({block.name, false, {nodes.begin(), nodes.end()}});
  }
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const NodeBlock& a, const NodeBlock& b) { return natural_less(a.name, b.name); });
  return blocks;
}

}  // namespace

NodesByHost::NodesByHost(const Cluster& cluster) {
  for (size_t node = 0; node < cluster.nodes.size(); ++node) {
    const std::string& host = cluster.nodes[node].host;
    exact_[host].push_back(static_cast<int>(node));
    short_[short_name(host)].push_back(static_cast<int>(node));
  }
}

const std::vector<int>& NodesByHost::find(const std::string& host) const {
  static const std::vector<int> kNone;
  if (const auto found = exact_.find(host); found != exact_.end()) return found->second;
  // "n1.a" and "n1.b" are two hosts; "n1" may be either's short name only where one of the two names is short.
  const std::string name = short_name(host);
  if (name.size() == host.size()) {
    const auto found = short_.find(name);
    return found == short_.end() ? kNone : found->second;
  }
  const auto found = exact_.find(name);
  return found == exact_.end() ? kNone : found->second;
}

LeafUnits leaf_units(const Fabric& fabric) {
  std::vector<int> hosts(fabric.switches.size());
  std::map<std::pair<int, int>, int> shared;
  for (const std::vector<int>& leaves : leaves_by_host(fabric)) {
    for (const int leaf : leaves) {
      ++hosts[leaf];
      if (leaf != leaves.front()) ++shared[std::minmax(leaf, leaves.front())];
    }
  }
  Sets sets(fabric.switches.size());
  for (const auto& [pair, count] : shared) {
    if (2 * count >= std::max(hosts[pair.first], hosts[pair.second])) sets.join(pair.first, pair.second);
  }
  LeafUnits units;
  for (size_t i = 0; i < fabric.switches.size(); ++i) units.unit_of_switch.push_back(sets.find(static_cast<int>(i)));
  return units;
}

NodeGroups node_groups(const Cluster& cluster) {
  const NodesByHost hosts(cluster);
  return {levels_of(cluster, hosts), blocks_of(cluster, hosts)};
}

}  // namespace mds::topology
