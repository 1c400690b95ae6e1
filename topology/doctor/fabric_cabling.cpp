#include "topology/doctor/fabric_cabling.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "topology/doctor/machine_checks.hpp"
#include "topology/fabric/host_ranges.hpp"
#include "topology/fabric/natural_order.hpp"

namespace mds::topology::doctor {
namespace {

constexpr int kPeersMin = 3;  // two that differ do not say which of them is right

/// Whether `most` of `total` is a pattern from which the others are exceptions.
bool is_pattern(int most, int total) {
  const int others = total - most;
  return total >= kPeersMin && 2 * most > total && (others <= 1 || 4 * others <= total);
}

template <typename Key>
std::pair<Key, int> most_frequent(const std::map<Key, int>& counts) {
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return *most;
}

const std::string& name_of(const Cluster& cluster, int leaf) { return cluster.fabric.switches[leaf].name; }
const std::string& host_of(const Cluster& cluster, const Cable& cable) { return cluster.nodes[cable.node].host; }

/// Numbers for how nodes are built.
std::vector<int> kinds_of(const Cluster& cluster) {
  std::map<std::pair<size_t, std::vector<std::string>>, int> numbers;
  std::vector<int> kinds;
  for (const Machine& node : cluster.nodes) {
    std::vector<std::string> nics;
    for (const Nic& nic : node.nics) nics.push_back(nic.name);
    std::sort(nics.begin(), nics.end());
    const auto number = static_cast<int>(numbers.size());
    kinds.push_back(numbers.try_emplace({node.gpus.size(), std::move(nics)}, number).first->second);
  }
  return kinds;
}

/// Finds where the peers' cables of every NIC end, and sets `expected_leaf` of those that end elsewhere.
void expect_leaves(std::vector<Cable>& cables) {
  using Peers = std::tuple<int, int, std::string>;  // kind, unit, NIC
  const auto peers = [](const Cable& cable) { return Peers(cable.kind, cable.unit, cable.port->nic); };
  std::map<Peers, std::map<int, int>> leaves;
  for (const Cable& cable : cables) ++leaves[peers(cable)][cable.port->leaf];
  for (Cable& cable : cables) {
    if (cable.port->nic.empty()) continue;
    const auto& counts = leaves[peers(cable)];
    const auto [leaf, most] = most_frequent(counts);
    const int total =
        std::accumulate(counts.begin(), counts.end(), 0, [](int n, const auto& c) { return n + c.second; });
    if (is_pattern(most, total) && leaf != cable.port->leaf) cable.expected_leaf = leaf;
  }
}

/// For every switch a number of its island: switches that cables between switches join.
std::vector<int> islands_of(const std::vector<FabricSwitch>& switches) {
  std::vector<int> order(switches.size()), island(switches.size());
  std::iota(order.begin(), order.end(), 0);
  std::iota(island.begin(), island.end(), 0);
  const auto find = [&](int i) {
    while (island[i] != i) i = island[i] = island[island[i]];
    return i;
  };
  for (const int child : order) {
    for (const int parent : switches[child].parents) island[find(child)] = find(parent);
  }
  for (const int i : order) island[i] = find(i);
  return island;
}

/// The switch that stands highest in the island, first in natural order.
std::string top_of(const Cluster& cluster, const std::vector<int>& island, int number) {
  const FabricSwitch* top = nullptr;
  for (size_t i = 0; i < island.size(); ++i) {
    const FabricSwitch& s = cluster.fabric.switches[i];
    if (island[i] != number) continue;
    if (!top || s.level > top->level || (s.level == top->level && natural_less(s.name, top->name))) top = &s;
  }
  return top->name;
}

std::string text_of(const Cluster& cluster, const Cable& cable) {
  return host_of(cluster, cable) + " " + cable.port->nic + " ends at " + name_of(cluster, cable.port->leaf) +
         ", its peers' at " + name_of(cluster, cable.expected_leaf);
}

}  // namespace

std::vector<Cable> cables_of(const Cluster& cluster, const NodesByHost& nodes, const NodeGroups& groups) {
  const std::vector<int> kinds = kinds_of(cluster);
  std::vector<Cable> cables;
  for (const FabricPort& port : cluster.fabric.ports) {
    const auto& found = nodes.find(port.host);
    if (found.empty()) continue;  // virtual nodes share the first one's cables
    const int node = found.front();
    cables.push_back({&port, node, groups.levels[0][node], kinds[node], -1});
  }
  expect_leaves(cables);
  return cables;
}

void check_rails(const Cluster& cluster, const std::vector<Cable>& cables, std::vector<Finding>& findings) {
  struct Kind {
    std::map<int, std::set<std::string>> nics;  // by node
    std::map<std::string, int> nodes;           // how many have this NIC
  };
  std::map<int, Kind> kinds;
  for (const Cable& cable : cables) {
    Kind& kind = kinds[cable.kind];
    auto& own = kind.nics[cable.node];
    if (!cable.port->nic.empty() && own.insert(cable.port->nic).second) ++kind.nodes[cable.port->nic];
  }
  for (const auto& [number, kind] : kinds) {
    const auto total = static_cast<int>(kind.nics.size());
    for (const auto& [node, own] : kind.nics) {
      std::vector<std::string> missing;
      int peers = total;
      for (const auto& [nic, count] : kind.nodes) {
        if (own.contains(nic) || !is_pattern(count, total)) continue;
        missing.push_back(nic);
        peers = std::min(peers, count);
      }
      if (missing.empty() || own.empty()) continue;
      std::sort(missing.begin(), missing.end(), natural_less);
      std::string names;
      for (const std::string& nic : missing) names += (names.empty() ? "" : ", ") + nic;
      findings.push_back(
          {Severity::warning, "missing-rail", cluster.nodes[node].host,
           (missing.size() == 1 ? "nic " : "nics ") + names,
           "no cable of " + names + " is in the fabric, but " + amount(peers, "node") + " built alike " +
               (peers == 1 ? "has" : "have") + " it: its GPUs share the other rails",
           "See whether the link is up (ibstat, ip link) and the cable and the leaf's port are well; until "
           "then leave the node out of large jobs."});
    }
  }
}

void check_leaves(const Cluster& cluster, const std::vector<Cable>& cables, std::vector<Finding>& findings) {
  std::multimap<std::pair<int, int>, const Cable*> misplaced;  // (is at, should be at)
  for (const Cable& cable : cables) {
    if (cable.expected_leaf >= 0) misplaced.insert({{cable.port->leaf, cable.expected_leaf}, &cable});
  }
  const char* const remedy =
      "Swap the cables back, or correct the leaf's wiring list; until then traffic of one rail crosses the spine.";
  std::map<int, std::vector<const Cable*>> alone;  // by node
  while (!misplaced.empty()) {
    const Cable* first = misplaced.begin()->second;
    misplaced.erase(misplaced.begin());
    const auto [begin, end] = misplaced.equal_range({first->expected_leaf, first->port->leaf});
    if (begin == end) {
      alone[first->node].push_back(first);
      continue;
    }
    // Rather with another cable of the same node than with a stranger's.
    auto other = std::find_if(begin, end, [&](const auto& m) { return m.second->node == first->node; });
    if (other == end) other = begin;
    const Cable* second = other->second;
    misplaced.erase(other);
    if (std::pair(second->node, second->port) < std::pair(first->node, first->port)) std::swap(first, second);
    const std::string hosts = fold_hosts({host_of(cluster, *first), host_of(cluster, *second)});
    findings.push_back(
        {Severity::warning, "swapped-cables", hosts, "nics " + first->port->nic + ", " + second->port->nic,
         "two cables are swapped: " + text_of(cluster, *first) + "; " + text_of(cluster, *second), remedy});
  }
  for (const auto& [node, own] : alone) {
    std::string message, nics;
    for (const Cable* cable : own) {
      message += (message.empty() ? "" : "; ") + text_of(cluster, *cable);
      nics += (nics.empty() ? "" : ", ") + cable->port->nic;
    }
    findings.push_back({Severity::warning, "cable-on-wrong-leaf", cluster.nodes[node].host,
                        (own.size() == 1 ? "nic " : "nics ") + nics, message, remedy});
  }
}

void check_rates(const Cluster& cluster, const std::vector<Cable>& cables, std::vector<Finding>& findings) {
  using Peers = std::pair<int, std::string>;  // kind, NIC
  std::map<Peers, std::map<double, int>> rates;
  for (const Cable& cable : cables) {
    if (cable.port->gbps > 0) ++rates[{cable.kind, cable.port->nic}][cable.port->gbps];
  }
  for (const Cable& cable : cables) {
    if (cable.port->gbps <= 0) continue;
    const auto& counts = rates[{cable.kind, cable.port->nic}];
    const auto [rate, most] = most_frequent(counts);
    const int total =
        std::accumulate(counts.begin(), counts.end(), 0, [](int n, const auto& c) { return n + c.second; });
    if (!is_pattern(most, total) || cable.port->gbps >= rate) continue;
    findings.push_back(
        {Severity::warning, "slow-fabric-link", host_of(cluster, cable), "nic " + cable.port->nic,
         "its link to " + name_of(cluster, cable.port->leaf) + " runs at " + figure(cable.port->gbps) +
             " Gbit/s, those of " + amount(most, "peer") + " at " + figure(rate),
         "Look at the link's errors (mlxlink, ibqueryerrors), reseat or replace cable and transceiver."});
  }
}

void check_islands(const Cluster& cluster, const std::vector<Cable>& cables, std::vector<Finding>& findings) {
  const std::vector<int> island = islands_of(cluster.fabric.switches);
  std::map<int, std::set<int>> nodes_of;                            // island -> nodes
  std::map<std::pair<int, std::string>, std::set<int>> islands_by;  // kind and NIC -> islands
  for (const Cable& cable : cables) {
    if (cable.expected_leaf >= 0) continue;  // on a wrong leaf: said already
    nodes_of[island[cable.port->leaf]].insert(cable.node);
    islands_by[{cable.kind, cable.port->nic}].insert(island[cable.port->leaf]);
  }
  std::set<int> told;
  for (const auto& [nic, islands] : islands_by) {
    const auto larger = [&](int a, int b) { return nodes_of[a].size() < nodes_of[b].size(); };
    const int main = *std::max_element(islands.begin(), islands.end(), larger);
    for (const int other : islands) {
      // Planes and rails without a common spine are islands, too, but each holds all nodes.
      const auto shared = std::count_if(nodes_of[main].begin(), nodes_of[main].end(),
                                        [&](int node) { return nodes_of[other].contains(node); });
      if (other == main || 4 * static_cast<size_t>(shared) >= 3 * nodes_of[main].size() || !told.insert(other).second) {
        continue;
      }
      std::vector<std::string> hosts;
      for (const int node : nodes_of[other]) hosts.push_back(cluster.nodes[node].host);
      const std::string top = top_of(cluster, island, other);
      findings.push_back(
          {Severity::warning, "fabric-island", fold_hosts(hosts), "switch " + top,
           "nothing is above " + top + ": the " + amount(hosts.size(), "node") + " below it cannot reach " +
               "what is below " + top_of(cluster, island, main) + (nic.second.empty() ? "" : " through " + nic.second),
           "See whether the switch's uplinks are up; if the file is incomplete, add the switch above it."});
    }
  }
}

}  // namespace mds::topology::doctor
