#include "launcher/plan_environment_nccl.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "launcher/job_nearest.hpp"
#include "topology/read/read_machine.hpp"

namespace mds::launcher {
namespace {

using topology::Cluster;
using topology::Machine;
using topology::Nic;
using topology::NodePlacement;
using topology::Placement;

const Machine& machine_of(const Cluster& cluster, const NodePlacement& node) {
  return cluster.nodes[static_cast<size_t>(node.node)];
}

/// NCCL's own InfiniBand and RoCE transport finds it.
bool has_verbs(const Nic& nic) {
  const auto begins = [&](const char* prefix) { return nic.name.rfind(prefix, 0) == 0; };
  return nic.rdma && !nic.name.empty() && !begins("cxi") && !begins("rdmap") && !begins("efa");
}

/// The kernel's interfaces of a machine, each with how well it suits: less is better.
std::map<std::string, std::tuple<bool, bool, double>> interfaces(const Machine& machine) {
  std::map<std::string, std::tuple<bool, bool, double>> found;
  for (const Nic& nic : machine.nics) {
    const std::string& name = nic.rdma ? nic.interface : nic.name;
    if (!name.empty()) found.emplace(name, std::tuple(nic.rdma, nic.bus_id.empty(), -nic.gbps));
  }
  for (const Nic& nic : machine.nics) {  // an RDMA device's interface may be listed for itself, too
    if (nic.rdma && !nic.interface.empty()) std::get<0>(found.at(nic.interface)) = true;
  }
  return found;
}

/// True where every host of the job has each of its NICs on a leaf of its own, and no leaf has two of a host or NICs of
/// different names.
bool rail_optimised(const Cluster& cluster, const Placement& placement) {
  std::unordered_map<std::string, std::set<int>> leaves;  // by host
  for (const NodePlacement& node : placement.nodes) leaves[machine_of(cluster, node).host];
  std::map<int, std::string> rail;  // by leaf
  for (const topology::FabricPort& port : cluster.fabric.ports) {
    const auto host = leaves.find(port.host);
    if (host == leaves.end()) continue;
    if (!host->second.insert(port.leaf).second) return false;
    if (rail.try_emplace(port.leaf, port.nic).first->second != port.nic) return false;
  }
  return std::all_of(leaves.begin(), leaves.end(), [](const auto& host) { return host.second.size() > 1; });
}

/// A bridge between a GPU and its NUMA node that no hardware has: no vendor, or in a domain of its own (ffff).
bool has_invented_bridges(const Machine& machine) {
  for (const topology::Gpu& gpu : machine.gpus) {
    if (gpu.pci < 0) continue;
    for (int at = machine.pci[static_cast<size_t>(gpu.pci)].parent; at >= 0;) {
      const topology::PciDevice& bridge = machine.pci[static_cast<size_t>(at)];
      if (bridge.vendor == "0x0000" || bridge.bus_id.rfind("ffff:", 0) == 0) return true;
      at = bridge.parent;
    }
  }
  return false;
}

}  // namespace

NcclEnvironment::NcclEnvironment(const Cluster& cluster, const Placement& placement, bool one_machine,
                                 const std::string& run_folder)
    : nodes_(placement.nodes.size()), adapters_(placement.nodes.size()) {
  const bool gpus = placement.ranks.front().gpu >= 0;
  if (gpus) write_topologies(cluster, placement, run_folder);
  if (one_machine) {
    for (Environment& env : nodes_) env["NCCL_SOCKET_IFNAME"] = env["GLOO_SOCKET_IFNAME"] = "lo";
    return;
  }
  choose_interface(cluster, placement);
  if (!gpus) return;
  choose_crossing(cluster, placement);
  collect_adapters(cluster, placement);
}

void NcclEnvironment::choose_interface(const Cluster& cluster, const Placement& placement) {
  auto shared = interfaces(machine_of(cluster, placement.nodes.front()));
  const bool any = !shared.empty();
  for (const NodePlacement& node : placement.nodes) {
    if (&node == &placement.nodes.front()) continue;
    const auto here = interfaces(machine_of(cluster, node));
    std::erase_if(shared, [&](const auto& entry) { return !here.contains(entry.first); });
  }
  if (shared.empty()) {
    if (any) reasons_.push_back("no network interface has the same name on all nodes: NCCL chooses its own for TCP");
    return;
  }
  const auto best =
      std::min_element(shared.begin(), shared.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  for (Environment& env : nodes_) {
    env["NCCL_SOCKET_IFNAME"] = "=" + best->first;
    env["GLOO_SOCKET_IFNAME"] = best->first;
  }
  reasons_.push_back("ranks find each other through " + best->first + ", which all nodes have");
}

void NcclEnvironment::choose_crossing(const Cluster& cluster, const Placement& placement) {
  if (placement.nodes.size() < 2 || !rail_optimised(cluster, placement)) return;
  for (Environment& env : nodes_) env["NCCL_CROSS_NIC"] = "0";
  reasons_.push_back("the fabric is rail-optimised: NCCL_CROSS_NIC=0 keeps rings on their rail, off the spine");
}

void NcclEnvironment::write_topologies(const Cluster& cluster, const Placement& placement,
                                       const std::string& run_folder) {
  std::map<std::string, std::string> path_of;  // by content
  for (size_t i = 0; i < placement.nodes.size(); ++i) {
    Machine machine = machine_of(cluster, placement.nodes[i]);
    if (!has_invented_bridges(machine)) continue;
    const std::string host = std::exchange(machine.host, "");  // equal machines share a file
    const Result<std::string> text = topology::write_nccl_xml(machine);
    if (!text) {
      reasons_.push_back(host + " gets no NCCL_TOPO_FILE: " + text.error().message);
      continue;
    }
    const auto [entry, is_new] = path_of.try_emplace(*text, "topology/nccl-" + std::to_string(path_of.size()) + ".xml");
    if (is_new) files_[entry->second] = *text;
    nodes_[i]["NCCL_TOPO_FILE"] = run_folder + "/" + entry->second;
  }
  if (files_.empty()) return;
  reasons_.push_back("NCCL gets the recorded topology (NCCL_TOPO_FILE): the virtual machine hides which NICs are near");
}

void NcclEnvironment::collect_adapters(const Cluster& cluster, const Placement& placement) {
  for (size_t i = 0; i < placement.nodes.size(); ++i) {
    const NodePlacement& node = placement.nodes[i];
    const Machine& machine = machine_of(cluster, node);
    const bool any_active = std::any_of(machine.nics.begin(), machine.nics.end(),
                                        [](const Nic& nic) { return has_verbs(nic) && nic.active; });
    std::map<std::string, std::string> usable;  // name -> "name:port"; NCCL leaves InfiniBand if all it may use is down
    for (const Nic& nic : machine.nics) {
      if (has_verbs(nic) && (nic.active || !any_active)) usable[nic.name] = nic.name + ":" + std::to_string(nic.port);
    }
    std::set<std::string> wanted;
    for (int local = 0; local < node.ranks; ++local) {
      const auto& rank = placement.ranks[static_cast<size_t>(node.first_rank + local)];
      bool any = false;
      for (size_t nic = 0; nic < rank.nics.size() && (!any || static_cast<int>(nic) < rank.best_nics); ++nic) {
        if (!usable.contains(rank.nics[nic])) continue;
        any = true;
        wanted.insert(rank.nics[nic]);
      }
    }
    for (const Nic& nic : machine.nics) {
      const auto found = usable.find(nic.name);
      if (found != usable.end() && wanted.contains(nic.name)) adapters_[i].emplace_back(*found);
    }
  }
}

void NcclEnvironment::add_adapters(Environment& env, const topology::RankPlacement& rank) const {
  std::vector<std::pair<size_t, std::string>> sorted;
  for (const auto& [name, port] : adapters_[static_cast<size_t>(rank.node_rank)]) {
    const auto at = std::find(rank.nics.begin(), rank.nics.end(), name);
    sorted.emplace_back(static_cast<size_t>(at - rank.nics.begin()), port);
  }
  if (sorted.empty()) return;
  std::stable_sort(sorted.begin(), sorted.end(), [](auto& a, auto& b) { return a.first < b.first; });
  std::vector<std::string> ports;
  for (const auto& [place, port] : sorted) ports.push_back(port);
  ports.erase(std::unique(ports.begin(), ports.end()), ports.end());  // a NIC that is listed twice
  env["NCCL_IB_HCA"] = "=" + join_names(ports, ",");
}

}  // namespace mds::launcher
