#include "topology/doctor/fabric_checks.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "topology/doctor/fabric_cabling.hpp"
#include "topology/doctor/machine_checks.hpp"
#include "topology/fabric/host_ranges.hpp"

namespace mds::topology {
namespace doctor {
namespace {

std::vector<std::string> fabric_hosts(const Fabric& fabric) {
  std::set<std::string> hosts;
  for (const FabricPort& port : fabric.ports) hosts.insert(port.host);
  // Where there are switches, a host in a block alone hangs nowhere.
  if (fabric.switches.empty()) {
    for (const FabricBlock& block : fabric.blocks) hosts.insert(block.hosts.begin(), block.hosts.end());
  }
  return {hosts.begin(), hosts.end()};
}

/// True if the fabric has at least one of the nodes.
bool check_hosts_known(const Cluster& cluster, const NodesByHost& nodes, std::vector<Finding>& findings) {
  std::vector<std::string> strange, lost;
  std::vector<bool> known(cluster.nodes.size());
  const std::vector<std::string> hosts = fabric_hosts(cluster.fabric);
  for (const std::string& host : hosts) {
    const auto& found = nodes.find(host);
    for (const int node : found) known[node] = true;
    if (found.empty()) strange.push_back(host);
  }
  for (size_t node = 0; node < known.size(); ++node) {
    if (!known[node]) lost.push_back(cluster.nodes[node].host);
  }
  if (strange.size() == hosts.size()) {
    findings.push_back(
        {Severity::warning, "fabric-of-other-hosts", "", "fabric",
         hosts.empty() ? "no host hangs on any of its switches"
                       : "it knows none of the nodes (" + cluster.nodes.front().host + ", ...): its hosts are " +
                             hosts.front() + ", ...",
         "Give the fabric of these nodes; names must be those of the nodes, with or without the domain."});
    return false;
  }
  if (!lost.empty()) {
    findings.push_back({Severity::warning, "host-not-in-fabric", fold_hosts(lost), "node",
                        "the fabric does not know where " + amount(lost.size(), "node") + " hang" +
                            (lost.size() == 1 ? "s" : "") + ": ranks there are placed last",
                        "Add them to the fabric's file, or record it anew while their links are up."});
  }
  if (!strange.empty()) {
    findings.push_back({Severity::note, "fabric-host-without-node", "", "fabric",
                        amount(strange.size(), "host") + " of the fabric " + (strange.size() == 1 ? "is" : "are") +
                            " not among the nodes, for example " + strange.front(),
                        "Nothing to do where the job or the recording is of a part of the cluster."});
  }
  return true;
}

/// In a tree of Slurm or topograph, where cables have no names.
void check_two_leaves(const Cluster& cluster, std::vector<Finding>& findings) {
  std::map<std::string, std::set<int>> leaves;
  for (const FabricPort& port : cluster.fabric.ports) {
    if (port.nic.empty()) leaves[port.host].insert(port.leaf);
  }
  std::vector<const std::pair<const std::string, std::set<int>>*> doubled;
  for (const auto& entry : leaves) {
    if (entry.second.size() > 1) doubled.push_back(&entry);
  }
  if (2 * doubled.size() > leaves.size()) return;  // so it was meant
  for (const auto* entry : doubled) {
    std::vector<std::string> names;
    for (const int leaf : entry->second) names.push_back(cluster.fabric.switches[leaf].name);
    findings.push_back(
        {Severity::warning, "host-on-two-leaves", entry->first, "node",
         "it hangs on " + std::to_string(names.size()) + " leaves (" + fold_hosts(names) + "), all others on one",
         "Keep it in the list of the leaf that its cable ends at."});
  }
}

void check_blocks(const Cluster& cluster, const NodeGroups& groups, std::vector<Finding>& findings) {
  for (const FabricBlock& block : cluster.fabric.blocks) {
    if (!block.hosts.empty()) continue;
    findings.push_back({Severity::note, "empty-block", "", "block " + block.name, "no host belongs to it",
                        "Name its hosts, or drop it."});
  }
  if (groups.levels.empty()) return;
  const std::vector<int>& unit_of = groups.levels[0];
  std::map<int, size_t> unit_size;
  for (const int unit : unit_of) ++unit_size[unit];
  for (const NodeBlock& block : groups.blocks) {
    std::map<int, size_t> inside;
    for (const int node : block.nodes) {
      if (unit_of[node] >= 0) ++inside[unit_of[node]];
    }
    // A block of whole leaves is larger than a leaf, which is no fault.
    const bool torn = std::any_of(inside.begin(), inside.end(),
                                  [&](const auto& part) { return part.second < unit_size[part.first]; });
    if (inside.size() < 2 || !torn) continue;
    std::vector<std::string> hosts;
    for (const int node : block.nodes) hosts.push_back(cluster.nodes[node].host);
    findings.push_back({Severity::note, "domain-over-leaves", fold_hosts(hosts), "block " + block.name,
                        "its " + amount(block.nodes.size(), "node") + " are spread over " +
                            std::to_string(inside.size()) + " leaves, which they share with others",
                        "Nothing to do where that is how the racks are wired: ranks of a domain stay together."});
  }
}

}  // namespace
}  // namespace doctor

std::vector<Finding> examine_fabric(const Cluster& cluster) {
  std::vector<Finding> findings;
  if (cluster.fabric.empty() || cluster.nodes.empty()) return findings;
  const NodesByHost nodes(cluster);
  const NodeGroups groups = node_groups(cluster);
  if (doctor::check_hosts_known(cluster, nodes, findings) && !groups.levels.empty()) {
    const auto cables = doctor::cables_of(cluster, nodes, groups);
    doctor::check_rails(cluster, cables, findings);
    doctor::check_leaves(cluster, cables, findings);
    doctor::check_rates(cluster, cables, findings);
    doctor::check_islands(cluster, cables, findings);
  }
  doctor::check_two_leaves(cluster, findings);
  doctor::check_blocks(cluster, groups, findings);
  return findings;
}

}  // namespace mds::topology
