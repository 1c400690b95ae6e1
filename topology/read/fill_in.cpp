#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "topology/paths_pci.hpp"
#include "topology/read/read_machine.hpp"

namespace mds::topology {
namespace {

template <typename T>
void take(T& own, const T& theirs, const T& unknown = T{}) {
  if (own == unknown) own = theirs;
}

size_t count_switches(const Machine& machine) {
  std::set<int> parents;
  for (const PciDevice& device : machine.pci) parents.insert(device.parent);
  return parents.size();
}

/// Cores with hardware threads beat masks of them, and memory sizes show a source that looked at the machine itself.
int trust_in_cores(const Machine& machine) {
  if (machine.cores.empty()) return 0;
  const bool memory =
      std::any_of(machine.numa.begin(), machine.numa.end(), [](const NumaNode& node) { return node.memory_bytes > 0; });
  return memory ? 2 : 1;
}

class Merger {
 public:
  Merger(Machine& machine, const Machine& other) : machine_(machine), other_(other) {}

  void merge() {
    take(machine_.host, other_.host);
    merge_cores();
    merge_pci();
    merge_gpus();
    merge_links();
    merge_nics();
    place_on_only_node();
    for (const std::string& note : other_.notes) {
      if (std::find(machine_.notes.begin(), machine_.notes.end(), note) == machine_.notes.end()) {
        machine_.notes.push_back(note);
      }
    }
  }

 private:
  void merge_cores() {
    if (trust_in_cores(other_) > trust_in_cores(machine_)) {
      std::vector<Package> packages = other_.packages;
      for (Package& package : packages) describe(package, machine_.packages);
      machine_.cores = other_.cores;
      machine_.numa = other_.numa;
      machine_.packages = std::move(packages);
      return;
    }
    if (machine_.numa.empty()) machine_.numa = other_.numa;
    if (machine_.packages.empty()) machine_.packages = other_.packages;
    for (Package& package : machine_.packages) describe(package, other_.packages);
  }

  /// A machine's processors are alike: any description fits a package that has none.
  static void describe(Package& package, const std::vector<Package>& others) {
    for (const Package& other : others) {
      take(package.arch, other.arch);
      take(package.vendor, other.vendor);
      take(package.family, other.family);
      take(package.model, other.model);
    }
  }

  /// Where each device of `pci` is in `machine_.pci`, by bus id.
  static std::map<std::string, int> by_bus_id(const std::vector<PciDevice>& pci) {
    std::map<std::string, int> index;
    for (size_t i = 0; i < pci.size(); ++i) {
      if (!pci[i].bus_id.empty()) index.emplace(normal_bus_id(pci[i].bus_id), static_cast<int>(i));
    }
    return index;
  }

  void merge_pci() {
    const bool take_theirs =
        count_switches(other_) > count_switches(machine_) || (machine_.pci.empty() && !other_.pci.empty());
    const std::vector<PciDevice> rest = take_theirs ? std::exchange(machine_.pci, other_.pci) : other_.pci;
    auto index = by_bus_id(machine_.pci);
    for (const PciDevice& device : rest) {
      const auto found = index.find(normal_bus_id(device.bus_id));
      if (found == index.end()) continue;
      PciDevice& own = machine_.pci[static_cast<size_t>(found->second)];
      take(own.numa, device.numa, -1);
      take(own.pci_class, device.pci_class);
      take(own.vendor, device.vendor);
      take(own.device, device.device);
      take(own.subsystem_vendor, device.subsystem_vendor);
      take(own.subsystem_device, device.subsystem_device);
      fill_link(own.link, device.link);
      fill_link(own.link_max, device.link_max);
    }
    const auto in_rest = by_bus_id(rest);
    const auto adopt_all = [&](const auto& devices) {
      for (const auto& device : devices) adopt(rest, find(in_rest, device.bus_id), index);
    };
    adopt_all(machine_.gpus);
    adopt_all(other_.gpus);
    adopt_all(machine_.nics);
    adopt_all(other_.nics);
    if (!take_theirs) return;
    for (Gpu& gpu : machine_.gpus) gpu.pci = find(index, gpu.bus_id);
    for (Nic& nic : machine_.nics) nic.pci = find(index, nic.bus_id);
  }

  /// A device in use that only the other tree has hangs on the nearest bridge that ours has, too.
  void adopt(const std::vector<PciDevice>& tree, int there, std::map<std::string, int>& own) {
    if (there < 0 || find(own, tree[static_cast<size_t>(there)].bus_id) >= 0) return;
    PciDevice device = tree[static_cast<size_t>(there)];
    int above = device.parent;
    while (above >= 0 && find(own, tree[static_cast<size_t>(above)].bus_id) < 0) {
      above = tree[static_cast<size_t>(above)].parent;
    }
    device.parent = above < 0 ? -1 : find(own, tree[static_cast<size_t>(above)].bus_id);
    own.emplace(normal_bus_id(device.bus_id), static_cast<int>(machine_.pci.size()));
    machine_.pci.push_back(std::move(device));
  }

  static void fill_link(PciLink& own, const PciLink& theirs) {
    // Speed and width belong together: hwloc knows their product only, and may have guessed both.
    if (own.gtps > 0 && own.width > 0) return;
    if (theirs.gtps > 0 && theirs.width > 0) {
      own = theirs;
      return;
    }
    take(own.gtps, theirs.gtps);
    take(own.width, theirs.width);
  }

  static int find(const std::map<std::string, int>& index, const std::string& bus_id) {
    const auto found = index.find(normal_bus_id(bus_id));
    return found == index.end() ? -1 : found->second;
  }

  /// Which of other's GPUs each of ours is, in the first way in which it can be told; -1 none.
  void match_gpus() {
    std::vector<bool> taken(machine_.gpus.size());
    own_gpu_.assign(other_.gpus.size(), -1);
    const auto match = [&](auto same) {
      for (size_t theirs = 0; theirs < other_.gpus.size(); ++theirs) {
        for (size_t own = 0; own < machine_.gpus.size() && own_gpu_[theirs] < 0; ++own) {
          if (taken[own] || !same(machine_.gpus[own], other_.gpus[theirs])) continue;
          own_gpu_[theirs] = static_cast<int>(own);
          taken[own] = true;
        }
      }
    };
    match([](const Gpu& a, const Gpu& b) {
      return !a.bus_id.empty() && normal_bus_id(a.bus_id) == normal_bus_id(b.bus_id);
    });
    match([](const Gpu& a, const Gpu& b) { return !a.uuid.empty() && a.uuid == b.uuid; });
    match([](const Gpu& a, const Gpu& b) { return a.index == b.index; });
  }

  void merge_gpus() {
    match_gpus();
    const auto index = by_bus_id(machine_.pci);
    for (size_t i = 0; i < other_.gpus.size(); ++i) {
      const Gpu& theirs = other_.gpus[i];
      if (own_gpu_[i] < 0) {
        own_gpu_[i] = static_cast<int>(machine_.gpus.size());
        machine_.gpus.push_back(theirs);
        machine_.gpus.back().pci = find(index, theirs.bus_id);
        continue;
      }
      Gpu& own = machine_.gpus[static_cast<size_t>(own_gpu_[i])];
      take(own.uuid, theirs.uuid);
      take(own.bus_id, theirs.bus_id);
      take(own.name, theirs.name);
      take(own.memory_bytes, theirs.memory_bytes);
      take(own.numa, theirs.numa, -1);
      take(own.sm, theirs.sm);
      take(own.gcn, theirs.gcn);
      take(own.nvlink_domain, theirs.nvlink_domain);
      own.gdr = own.gdr && theirs.gdr;  // only a source that knows says no
      if (own.pci < 0) own.pci = find(index, own.bus_id);
    }
  }

  /// Links of one kind come from one source: two half sets would count twice.
  void merge_links() {
    std::set<std::pair<int, LinkKind>> known;
    for (const GpuLink& link : machine_.links) known.insert({link.gpu, link.kind});
    for (GpuLink link : other_.links) {
      link.gpu = own_gpu(link.gpu);
      if (link.gpu < 0 || known.contains({link.gpu, link.kind})) continue;
      if (link.end == LinkEnd::gpu && link.peer >= 0) link.peer = own_gpu(link.peer);
      machine_.links.push_back(std::move(link));
    }
    for (GpuLink& link : machine_.links) {  // to a GPU that only the other recording has
      if (link.end == LinkEnd::gpu && link.peer < 0) link.peer = gpu_at(link.peer_bus_id);
    }
    std::stable_sort(machine_.links.begin(), machine_.links.end(),
                     [](const GpuLink& a, const GpuLink& b) { return a.gpu < b.gpu; });
  }

  int gpu_at(const std::string& bus_id) const {
    for (size_t i = 0; i < machine_.gpus.size() && !bus_id.empty(); ++i) {
      if (normal_bus_id(machine_.gpus[i].bus_id) == normal_bus_id(bus_id)) return static_cast<int>(i);
    }
    return -1;
  }

  int own_gpu(int theirs) const {
    return theirs >= 0 && static_cast<size_t>(theirs) < own_gpu_.size() ? own_gpu_[static_cast<size_t>(theirs)] : -1;
  }

  Nic* match_nic(const Nic& theirs, const std::vector<bool>& taken) {
    for (size_t i = 0; i < taken.size(); ++i) {
      if (!taken[i] && !theirs.name.empty() && machine_.nics[i].name == theirs.name) return &machine_.nics[i];
    }
    for (size_t i = 0; i < taken.size(); ++i) {
      const Nic& own = machine_.nics[i];
      const bool same_device = !own.bus_id.empty() && normal_bus_id(own.bus_id) == normal_bus_id(theirs.bus_id);
      // Two names at one device are two ports, or an RDMA device and its kernel interface.
      const bool one_name = own.name.empty() || theirs.name.empty() || own.interface == theirs.name;
      if (!taken[i] && same_device && one_name && own.port == theirs.port) return &machine_.nics[i];
    }
    return nullptr;
  }

  void merge_nics() {
    const auto index = by_bus_id(machine_.pci);
    std::vector<bool> taken(machine_.nics.size());
    for (const Nic& theirs : other_.nics) {
      Nic* own = match_nic(theirs, taken);
      if (!own) {
        machine_.nics.push_back(theirs);
        machine_.nics.back().pci = find(index, theirs.bus_id);
        continue;
      }
      taken[static_cast<size_t>(own - machine_.nics.data())] = true;
      take(own->name, theirs.name);
      take(own->bus_id, theirs.bus_id);
      take(own->numa, theirs.numa, -1);
      take(own->gbps, theirs.gbps);
      take(own->guid, theirs.guid);
      take(own->interface, theirs.interface);
      own->gdr = own->rdma && theirs.rdma ? own->gdr && theirs.gdr : own->gdr || theirs.gdr;
      own->rdma = own->rdma || theirs.rdma;
      own->active = own->active && theirs.active;
      if (own->pci < 0) own->pci = find(index, own->bus_id);
    }
  }

  /// NCCL in a virtual machine knows no NUMA node; where the other source saw a single one, that is it.
  void place_on_only_node() {
    if (machine_.numa.size() != 1) return;
    const int only = machine_.numa.front().os_index;
    for (PciDevice& device : machine_.pci) take(device.numa, only, -1);
    for (Gpu& gpu : machine_.gpus) take(gpu.numa, only, -1);
    for (Nic& nic : machine_.nics) take(nic.numa, only, -1);
  }

  Machine& machine_;
  const Machine& other_;
  std::vector<int> own_gpu_;  // of each of other's GPUs: the index of ours
};

}  // namespace

void fill_in(Machine& machine, const Machine& other) { Merger(machine, other).merge(); }

}  // namespace mds::topology
