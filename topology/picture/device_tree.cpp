#include "topology/picture/device_tree.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <set>
#include <tuple>

namespace mds::topology::picture {
namespace {

/// A bus id without its function: what sits in one slot.
std::string slot_of(const std::string& bus_id) { return bus_id.substr(0, bus_id.rfind('.')); }

class TreeBuilder {
 public:
  explicit TreeBuilder(const Machine& machine) : machine_(machine), below_(machine.pci.size()) {
    for (size_t i = 0; i < machine.gpus.size(); ++i) attach(machine.gpus[i].pci, static_cast<int>(i), gpus_at_);
    for (size_t i = 0; i < machine.nics.size(); ++i) attach(machine.nics[i].pci, static_cast<int>(i), nics_at_);
  }

  /// What hangs on a NUMA node: devices whose PCI root says so, and those without a PCI device that say so themselves.
  DeviceNode on(int numa) const {
    DeviceNode node;
    for (const int root : roots_) {
      if (numa_of_root(root) == numa) add(root, node);
    }
    for (size_t i = 0; i < machine_.gpus.size(); ++i) {
      if (!valid(machine_.gpus[i].pci) && machine_.gpus[i].numa == numa) node.gpus.push_back(static_cast<int>(i));
    }
    for (size_t i = 0; i < machine_.nics.size(); ++i) {
      const Nic& nic = machine_.nics[i];
      const bool visible = !nic.bus_id.empty() || is_alone_;  // virtual ones only where there is nothing else
      if (!valid(nic.pci) && nic.numa == numa && visible) add_nic(static_cast<int>(i), node);
    }
    return node;
  }

  std::set<int> numa_nodes() const {
    std::set<int> nodes;
    for (const int root : roots_) nodes.insert(numa_of_root(root));
    for (const Gpu& gpu : machine_.gpus) {
      if (!valid(gpu.pci)) nodes.insert(gpu.numa);
    }
    for (const Nic& nic : machine_.nics) {
      if (!valid(nic.pci) && !nic.bus_id.empty()) nodes.insert(nic.numa);
    }
    return nodes;
  }

 private:
  bool valid(int device) const { return device >= 0 && device < static_cast<int>(machine_.pci.size()); }

  void attach(int device, int index, std::map<int, std::vector<int>>& at) {
    if (!valid(device)) return;
    at[device].push_back(index);
    is_alone_ = false;
    for (int below = device;;) {
      const int above = machine_.pci[static_cast<size_t>(below)].parent;
      if (above < 0 || above >= below) {
        roots_.insert(below);
        return;
      }
      below_[static_cast<size_t>(above)].insert(below);
      below = above;
    }
  }

  /// The node that the devices below say, which a source may know better than the root's own.
  int numa_of_root(int root) const {
    for (int at = root;;) {
      if (const auto gpus = gpus_at_.find(at); gpus != gpus_at_.end()) {
        const int numa = machine_.gpus[static_cast<size_t>(gpus->second.front())].numa;
        if (numa >= 0) return numa;
      }
      if (const auto nics = nics_at_.find(at); nics != nics_at_.end()) {
        const int numa = machine_.nics[static_cast<size_t>(nics->second.front())].numa;
        if (numa >= 0) return numa;
      }
      const auto& below = below_[static_cast<size_t>(at)];
      if (below.empty()) return machine_.pci[static_cast<size_t>(root)].numa;
      at = *below.begin();
    }
  }

  void add_nic(int nic, DeviceNode& node) const {
    const std::string slot = slot_of(machine_.nics[static_cast<size_t>(nic)].bus_id);
    for (auto& adapter : node.nics) {
      const Nic& first = machine_.nics[static_cast<size_t>(adapter.front())];
      if (!slot.empty() && slot_of(first.bus_id) == slot) return adapter.push_back(nic);
    }
    node.nics.push_back({nic});
  }

  void add(int device, DeviceNode& node) const {
    if (const auto gpus = gpus_at_.find(device); gpus != gpus_at_.end()) {
      node.gpus.insert(node.gpus.end(), gpus->second.begin(), gpus->second.end());
    }
    if (const auto nics = nics_at_.find(device); nics != nics_at_.end()) {
      for (const int nic : nics->second) add_nic(nic, node);
    }
    std::set<std::string> slots;
    const auto& below = below_[static_cast<size_t>(device)];
    for (const int child : below) slots.insert(slot_of(machine_.pci[static_cast<size_t>(child)].bus_id));
    if (slots.size() < 2) {
      for (const int child : below) add(child, node);
      return;
    }
    DeviceNode branch;
    branch.pci = device;
    for (const int child : below) add(child, branch);
    node.switches.push_back(std::move(branch));
  }

  const Machine& machine_;
  std::vector<std::set<int>> below_;  // devices on the way to a GPU or NIC
  std::set<int> roots_;
  std::map<int, std::vector<int>> gpus_at_;  // by PCI device
  std::map<int, std::vector<int>> nics_at_;
  bool is_alone_ = true;
};

Machine without_serials(const Machine& machine) {
  Machine copy = machine;
  copy.host.clear();
  copy.notes.clear();
  for (Gpu& gpu : copy.gpus) gpu.uuid.clear(), gpu.nvlink_domain.clear();
  for (Nic& nic : copy.nics) nic.guid.clear();
  // What firmware and kernel keep for themselves differs from node to node.
  for (NumaNode& node : copy.numa) node.memory_bytes = (node.memory_bytes + (1 << 29)) >> 30;
  return copy;
}

size_t digest_of(const Machine& machine) {
  std::string text;
  for (const Gpu& gpu : machine.gpus) text += gpu.bus_id + gpu.name;
  for (const Nic& nic : machine.nics) text += nic.bus_id + nic.name + std::to_string(nic.gbps);
  for (const NumaNode& node : machine.numa) text += std::to_string(node.memory_bytes) + " ";
  for (const PciDevice& device : machine.pci) text += std::to_string(device.link.gtps * device.link.width) + " ";
  return std::hash<std::string>()(text + std::to_string(machine.cores.size()) + std::to_string(machine.links.size()));
}

std::string short_number(double value) {
  char text[32];
  const bool whole = std::abs(value - std::round(value)) < 0.05 || value >= 100;
  std::snprintf(text, sizeof text, whole ? "%.0f" : "%.1f", value);
  return text;
}

}  // namespace

std::vector<NumaView> numa_views(const Machine& machine) {
  std::map<int, NumaView> views;  // by OS index
  for (const NumaNode& node : machine.numa) {
    views[node.os_index] = {node.os_index, node.package, node.memory_bytes, {}, {}};
  }
  for (const Core& core : machine.cores) {
    NumaView& view = views.try_emplace(core.numa, NumaView{core.numa, core.package, 0, {}, {}}).first->second;
    view.cores.push_back(&core);
  }
  const TreeBuilder builder(machine);
  const auto nodes = builder.numa_nodes();
  for (const int numa : nodes) views.try_emplace(numa, NumaView{numa, 0, 0, {}, {}});
  std::vector<NumaView> list;
  for (auto& [numa, view] : views) {
    view.devices = builder.on(numa);
    list.push_back(std::move(view));
  }
  std::stable_sort(list.begin(), list.end(), [](const NumaView& a, const NumaView& b) {
    return std::tuple(a.os_index < 0, a.package) < std::tuple(b.os_index < 0, b.package);
  });
  return list;
}

std::vector<MachineKind> machine_kinds(const Cluster& cluster) {
  std::vector<MachineKind> kinds;
  std::vector<Machine> plain;
  std::multimap<size_t, size_t> by_digest;  // kinds that may be the one, so that a motley cluster costs no n^2
  for (const Machine& node : cluster.nodes) {
    Machine copy = without_serials(node);
    const size_t digest = digest_of(copy);
    const auto [begin, end] = by_digest.equal_range(digest);
    const auto known = std::find_if(begin, end, [&](const auto& entry) { return plain[entry.second] == copy; });
    if (known != end) {
      kinds[known->second].hosts.push_back(node.host);
      continue;
    }
    by_digest.emplace(digest, kinds.size());
    plain.push_back(std::move(copy));
    kinds.push_back({&node, {node.host}});
  }
  return kinds;
}

std::string link_text(const PciLink& link) {
  std::string text = link.gtps > 0 ? short_number(link.gtps) + " GT/s" : "";
  if (link.width > 0) text += (text.empty() ? "x" : " x") + std::to_string(link.width);
  return text;
}

std::string memory_text(uint64_t bytes) {
  const double gib = static_cast<double>(bytes >> 20) / 1024;
  if (bytes == 0) return "";
  if (gib >= 2048) return short_number(gib / 1024) + " TiB";
  return short_number(gib) + " GiB";
}

std::string rate_text(double gbps) { return gbps > 0 ? short_number(gbps) + " Gbit/s" : ""; }

}  // namespace mds::topology::picture
