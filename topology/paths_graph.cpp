#include "topology/paths_graph.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "topology/paths_pci.hpp"

namespace mds::topology {
namespace {

constexpr double kUnlimited = 5000;  // NCCL's LOC_BW

/// Builds the graph in NCCL's order: NUMA nodes with what hangs on them, then NVLinks and C2C, then the sockets' links.
class Builder {
 public:
  explicit Builder(const Machine& machine)
      : machine_(machine), parents_(flatten_switches(machine.pci, switch_parents(machine.pci))) {}

  Graph build() {
    find_used_devices();
    place_on_numa_nodes();
    add_pci_tree();
    add_gpus();
    add_nics();
    add_gpu_links();
    add_socket_links();
    sort_links();
    return std::move(graph_);
  }

 private:
  bool known_device(int pci) const { return pci >= 0 && static_cast<size_t>(pci) < machine_.pci.size(); }

  /// Devices without a GPU or NIC at or below them are not in NCCL's graph.
  void find_used_devices() {
    const size_t count = machine_.pci.size();
    std::vector<bool> endpoint(count), used(count);
    root_numa_.assign(count, -1);
    const auto mark = [&](int pci, int numa) {
      if (!known_device(pci)) return;
      endpoint[static_cast<size_t>(pci)] = used[static_cast<size_t>(pci)] = true;
      int& own = root_numa_[static_cast<size_t>(pci)];
      if (own < 0) own = numa;
    };
    for (const Gpu& gpu : machine_.gpus) mark(gpu.pci, gpu.numa);
    for (const Nic& nic : machine_.nics) mark(nic.pci, nic.numa);
    is_switch_.assign(count, false);
    for (size_t i = count; i-- > 0;) {  // children before parents
      if (machine_.pci[i].numa >= 0) root_numa_[i] = machine_.pci[i].numa;
      is_switch_[i] = used[i] && !endpoint[i];
      const int parent = parents_[i];
      if (parent < 0 || !used[i]) continue;
      used[static_cast<size_t>(parent)] = true;
      if (root_numa_[static_cast<size_t>(parent)] < 0) root_numa_[static_cast<size_t>(parent)] = root_numa_[i];
    }
    // What hangs below a GPU or NIC in a strange recording hangs beside it, as NCCL has no children there.
    for (size_t i = 0; i < count; ++i) {
      int& parent = parents_[i];
      while (parent >= 0 && !is_switch_[static_cast<size_t>(parent)]) parent = parents_[static_cast<size_t>(parent)];
    }
  }

  /// -1 (unknown) means the only NUMA node where there is but one, else a place of its own.
  int numa_key(int numa) const {
    return numa < 0 && machine_.numa.size() == 1 ? machine_.numa.front().os_index : std::max(numa, -1);
  }

  void place_on_numa_nodes() {
    std::set<int> keys;
    for (const Gpu& gpu : machine_.gpus) keys.insert(numa_of(gpu.pci, gpu.numa));
    for (const Nic& nic : machine_.nics) keys.insert(numa_of(nic.pci, nic.numa));
    for (const int key : keys) {
      cpu_of_numa_[key] = add_node(GraphNodeKind::cpu);
      graph_.cpus.push_back(cpu_of_numa_[key]);
      graph_.cpu_numa.push_back(key);
    }
  }

  int root_of(int pci) const {
    while (parents_[static_cast<size_t>(pci)] >= 0) pci = parents_[static_cast<size_t>(pci)];
    return pci;
  }

  int numa_of(int pci, int numa) const {
    if (known_device(pci)) {
      const int root = root_numa_[static_cast<size_t>(root_of(pci))];
      if (root >= 0) numa = root;
    }
    return numa_key(numa);
  }

  /// The switch or NUMA node that a device's link leads to.
  int above(int pci, int numa) const {
    if (known_device(pci) && parents_[static_cast<size_t>(pci)] >= 0) {
      return node_of_pci_[static_cast<size_t>(parents_[static_cast<size_t>(pci)])];
    }
    return cpu_of_numa_.at(numa_of(pci, numa));
  }

  void add_pci_tree() {
    node_of_pci_.assign(machine_.pci.size(), -1);
    for (size_t i = 0; i < machine_.pci.size(); ++i) {
      if (!is_switch_[i]) continue;
      const int up = above(static_cast<int>(i), root_numa_[i]);
      node_of_pci_[i] = add_node(GraphNodeKind::pci);
      connect_up(node_of_pci_[i], up, device_gb_per_s(static_cast<int>(i)));
    }
  }

  void add_gpus() {
    for (const Gpu& gpu : machine_.gpus) {
      const int up = above(gpu.pci, gpu.numa);
      graph_.gpus.push_back(add_node(GraphNodeKind::gpu));
      connect_up(graph_.gpus.back(), up, device_gb_per_s(gpu.pci));
    }
  }

  void add_nics() {
    std::map<int, int> node_of_device;  // the ports of one NIC share it
    for (const Nic& nic : machine_.nics) {
      const bool known = known_device(nic.pci);
      const auto [place, fresh] = node_of_device.try_emplace(known ? nic.pci : -1, -1);
      if (fresh || !known) {
        const int up = above(nic.pci, nic.numa);
        place->second = add_node(GraphNodeKind::nic);
        // NCCL hangs NICs without a PCI device on the first CPU, with no limit but their own rate.
        connect_up(place->second, up, known ? device_gb_per_s(nic.pci) : kUnlimited);
      }
      graph_.nets.push_back(add_node(GraphNodeKind::net));
      const double gb_per_s = nic.gbps > 0 ? nic.gbps / 8 : kUnlimited;
      connect(place->second, graph_.nets.back(), PathClass::net, gb_per_s);
      connect(graph_.nets.back(), place->second, PathClass::net, gb_per_s);
    }
  }

  double device_gb_per_s(int pci) const {
    if (!known_device(pci)) return pci_gb_per_s({});
    const PciDevice& device = machine_.pci[static_cast<size_t>(pci)];
    // NCCL takes what both ends could: links of idle GPUs train down to save power.
    const bool max_known = device.link_max.gtps > 0 && device.link_max.width > 0;
    return pci_gb_per_s(max_known ? device.link_max : device.link);
  }

  void add_gpu_links() {
    std::map<std::pair<size_t, size_t>, double> between;  // GPU to GPU, in one direction
    for (const GpuLink& link : machine_.links) {
      if (link.gpu < 0 || static_cast<size_t>(link.gpu) >= machine_.gpus.size()) continue;
      const auto gpu = static_cast<size_t>(link.gpu);
      const double gb_per_s = link.count * link.gb_per_s_each;
      if (!(gb_per_s > 0)) continue;
      if (link.end == LinkEnd::gpu) {
        if (link.peer < 0 || static_cast<size_t>(link.peer) >= machine_.gpus.size() || link.peer == link.gpu) continue;
        between[{gpu, static_cast<size_t>(link.peer)}] += gb_per_s;
      } else if (link.end == LinkEnd::nvswitch) {
        if (nvswitch_ < 0) nvswitch_ = add_node(GraphNodeKind::nvswitch);
        connect_both(graph_.gpus[gpu], nvswitch_, PathClass::nvl, gb_per_s);
      } else {
        const auto named = cpu_of_numa_.find(link.peer);
        const int cpu = link.peer >= 0 && named != cpu_of_numa_.end()
                            ? named->second
                            : cpu_of_numa_.at(numa_of(machine_.gpus[gpu].pci, machine_.gpus[gpu].numa));
        connect_both(graph_.gpus[gpu], cpu, link.kind == LinkKind::c2c ? PathClass::c2c : PathClass::nvl, gb_per_s);
      }
    }
    for (const auto& [pair, gb_per_s] : between) {
      if (!between.contains({pair.second, pair.first})) continue;  // NCCL gives up on links that only one end has
      connect(graph_.gpus[pair.first], graph_.gpus[pair.second], PathClass::nvl, gb_per_s);
    }
  }

  void add_socket_links() {
    for (size_t a = 0; a < graph_.cpus.size(); ++a) {
      const double gb_per_s = socket_gb_per_s(package_of(graph_.cpu_numa[a]));
      for (size_t b = 0; b < graph_.cpus.size(); ++b) {
        if (a != b)
          graph_.nodes[static_cast<size_t>(graph_.cpus[a])].links.push_back({graph_.cpus[b], PathClass::sys, gb_per_s});
      }
    }
  }

  Package package_of(int numa) const {
    int index = -1;
    for (const NumaNode& node : machine_.numa) index = node.os_index == numa ? node.package : index;
    for (const Package& package : machine_.packages) {
      if (package.index == index) return package;
    }
    return machine_.packages.empty() ? Package{} : machine_.packages.front();
  }

  int add_node(GraphNodeKind kind) {
    graph_.nodes.push_back({kind});
    up_.push_back(-1);
    return static_cast<int>(graph_.nodes.size()) - 1;
  }

  /// Several links of one class between the same two nodes are one wider link.
  void connect(int from, int to, PathClass kind, double gb_per_s) {
    auto& links = graph_.nodes[static_cast<size_t>(from)].links;
    // Only NVLinks and C2C come more than once, and a GPU has few links; a switch or CPU may have very many.
    if (kind == PathClass::nvl || kind == PathClass::c2c) {
      for (GraphLink& link : links) {
        if (link.to == to && link.kind == kind) {
          link.gb_per_s += gb_per_s;
          return;
        }
      }
    }
    links.push_back({to, kind, gb_per_s});
  }

  void connect_both(int gpu, int peer, PathClass kind, double gb_per_s) {
    connect(gpu, peer, kind, gb_per_s);
    connect(peer, gpu, kind, gb_per_s);
  }

  void connect_up(int node, int up, double gb_per_s) {
    connect(up, node, PathClass::pix, gb_per_s);
    connect(node, up, PathClass::pix, gb_per_s);
    up_[static_cast<size_t>(node)] = up;
  }

  void sort_links() {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const auto is_up = [&](const GraphLink& link) { return link.kind == PathClass::pix && link.to == up_[i]; };
      std::stable_sort(graph_.nodes[i].links.begin(), graph_.nodes[i].links.end(),
                       [&](const GraphLink& a, const GraphLink& b) {
                         return is_up(a) != is_up(b) ? is_up(b) : a.gb_per_s > b.gb_per_s;
                       });
    }
  }

  const Machine& machine_;
  std::vector<int> parents_;     // of each PCI device: the switch above it
  std::vector<bool> is_switch_;  // it is in the graph, as a switch
  std::vector<int> root_numa_;   // NUMA node as far as the device itself or one below it knows
  std::vector<int> node_of_pci_;
  std::map<int, int> cpu_of_numa_;
  std::vector<int> up_;  // of each graph node
  int nvswitch_ = -1;
  Graph graph_;
};

}  // namespace

Graph build_graph(const Machine& machine) { return Builder(machine).build(); }

std::vector<Path> search(const Graph& graph, int base) {
  std::vector<Path> paths(graph.nodes.size());
  paths[static_cast<size_t>(base)] = {PathClass::loc, kUnlimited, 0};
  std::vector<int> level{base}, next;
  std::vector<bool> in_next(graph.nodes.size());
  for (; !level.empty(); level.swap(next), next.clear()) {
    for (const int from : level) {
      const GraphNode& node = graph.nodes[static_cast<size_t>(from)];
      const Path path = paths[static_cast<size_t>(from)];
      for (const GraphLink& link : node.links) {
        const GraphNodeKind to_kind = graph.nodes[static_cast<size_t>(link.to)].kind;
        // Through a GPU only from NVLink to NVLink, and through one at most.
        if (from != base && node.kind == GraphNodeKind::gpu &&
            (link.kind != PathClass::nvl || to_kind != GraphNodeKind::gpu || path.hops > 1)) {
          continue;
        }
        Path& to = paths[static_cast<size_t>(link.to)];
        const double gb_per_s = std::min(path.gb_per_s, link.gb_per_s);
        if ((to.gb_per_s > 0 && to.hops <= path.hops) || to.gb_per_s >= gb_per_s) continue;
        to.hops = path.hops + 1;
        to.gb_per_s = gb_per_s;
        PathClass kind = link.kind == PathClass::net ? PathClass::loc : link.kind;
        if (node.kind == GraphNodeKind::pci && to_kind == GraphNodeKind::pci) kind = PathClass::pxb;
        if (link.kind == PathClass::pix && (node.kind == GraphNodeKind::cpu || to_kind == GraphNodeKind::cpu)) {
          kind = PathClass::phb;
        }
        if (node.kind == GraphNodeKind::gpu && path.kind == PathClass::nvl && kind == PathClass::nvl && to.hops > 1) {
          kind = PathClass::nvb;
        }
        to.kind = std::max(path.kind, kind);
        if (!in_next[static_cast<size_t>(link.to)]) next.push_back(link.to);
        in_next[static_cast<size_t>(link.to)] = true;
      }
    }
    for (const int node : next) in_next[static_cast<size_t>(node)] = false;
  }
  return paths;
}

}  // namespace mds::topology
