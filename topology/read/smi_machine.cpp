#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <set>

#include "topology/read/nccl_cpus.hpp"
#include "topology/read/read_machine.hpp"
#include "topology/read/smi_matrix.hpp"

namespace mds::topology {
namespace {

constexpr int kNvlinksMax = 18;  // of one GPU, up to Blackwell
constexpr size_t kContradictionsMax = 8;

/// Sets of devices that are joined by some relation.
class Groups {
 public:
  explicit Groups(size_t count) : leader_(count) { std::iota(leader_.begin(), leader_.end(), size_t{0}); }
  size_t of(size_t device) {
    while (leader_[device] != device) device = leader_[device] = leader_[leader_[device]];
    return device;
  }
  void join(size_t a, size_t b) { leader_[std::max(of(a), of(b))] = std::min(of(a), of(b)); }

 private:
  std::vector<size_t> leader_;
};

/// nvidia-smi says how pairs of devices reach each other; this makes up a machine in which they do: a switch for what
/// is PIX to each other, a switch above switches for PXB, a NUMA node for PHB and NODE (NCCL does not tell these two
/// apart), another for SYS. Bus ids, link speeds and GPU types are not known. Only classes count, bandwidths are NCCL's
/// defaults for what is unknown.
class SmiMachine {
 public:
  SmiMachine(SmiMatrix matrix, const std::string& host)
      : matrix_(std::move(matrix)), devices_(matrix_.devices), near_(devices_.size()) {
    machine_.host = host;
    machine_.notes = std::move(matrix_.notes);
  }

  Machine make() {
    add_numa_nodes();
    group_by_numa();
    add_devices();
    add_switches();
    add_nvlinks();
    compare();
    return std::move(machine_);
  }

 private:
  PathClass between(size_t a, size_t b) const { return devices_[a].cells[b].kind; }

  bool pci_within(size_t a, size_t b, PathClass widest) const {
    return between(a, b) >= PathClass::pix && between(a, b) <= widest;
  }

  /// The NUMA nodes of the affinity columns; without these, one for each different set of CPUs.
  void add_numa_nodes() {
    std::map<int, std::set<int>> cpus;
    std::map<std::vector<int>, int> by_cpus;
    own_numa_.assign(devices_.size(), -1);
    for (const SmiDevice& device : devices_) {
      for (const int node : device.numa) cpus[node];
    }
    for (const SmiDevice& device : devices_) {
      if (device.numa.empty() && !device.cpus.empty() && cpus.empty()) by_cpus.emplace(device.cpus, 0);
    }
    int next = 0;
    for (auto& [list, node] : by_cpus) node = next++;
    if (by_cpus.size() > 1) machine_.notes.push_back("nvidia-smi names no NUMA nodes: numbered by their first CPU");
    for (size_t i = 0; i < devices_.size(); ++i) {
      const SmiDevice& device = devices_[i];
      if (!device.numa.empty()) own_numa_[i] = device.numa.front();
      if (const auto found = by_cpus.find(device.cpus); found != by_cpus.end()) own_numa_[i] = found->second;
      if (own_numa_[i] >= 0) cpus[own_numa_[i]].insert(device.cpus.begin(), device.cpus.end());
    }
    std::vector<NumaCpus> nodes;
    for (const auto& [node, list] : cpus) {
      const int package = static_cast<int>(machine_.numa.size());
      machine_.packages.push_back({package, {}, {}, 0, 0});
      machine_.numa.push_back({node, package, 0});
      nodes.push_back({node, package, {list.begin(), list.end()}});
    }
    machine_.cores = guess_cores(std::move(nodes));
  }

  /// Devices that meet at a host bridge or nearer are on one NUMA node; what is SYS to each other is not, whatever the
  /// affinity columns say.
  void group_by_numa() {
    for (size_t a = 0; a < devices_.size(); ++a) {
      for (size_t b = 0; b < devices_.size(); ++b) {
        if (pci_within(a, b, PathClass::phb)) near_.join(a, b);
      }
    }
    std::map<size_t, int> numa_of_group;
    std::map<size_t, std::vector<size_t>> members;
    for (size_t i = 0; i < devices_.size(); ++i) {
      members[near_.of(i)].push_back(i);
      int& numa = numa_of_group.try_emplace(near_.of(i), -1).first->second;
      if (numa < 0) numa = own_numa_[i];
    }
    std::set<int> used;
    for (const auto& [leader, numa] : numa_of_group) used.insert(numa);
    used.insert(-1);
    std::map<int, std::vector<size_t>> groups_on;
    bool unknown_taken = false;
    for (auto& [leader, numa] : numa_of_group) {
      std::vector<size_t>& others = groups_on[numa];
      const bool apart = std::any_of(others.begin(), others.end(),
                                     [&, me = leader](size_t other) { return far_apart(members[me], members[other]); });
      // With a single NUMA node an unknown one would be taken for that.
      const bool would_be_taken =
          numa < 0 && (unknown_taken || (machine_.numa.size() == 1 && numa_of_group.size() > 1));
      if (apart || would_be_taken) {
        numa = 0;
        while (used.contains(numa)) ++numa;
        used.insert(numa);
        machine_.notes.push_back("NUMA node " + std::to_string(numa) + " stands for the unknown one of " +
                                 name_of(leader));
      }
      unknown_taken |= numa < 0;
      groups_on[numa].push_back(leader);
    }
    for (size_t i = 0; i < devices_.size(); ++i) place_.push_back(numa_of_group[near_.of(i)]);
  }

  bool far_apart(const std::vector<size_t>& group_a, const std::vector<size_t>& group_b) const {
    for (const size_t a : group_a) {
      for (const size_t b : group_b) {
        if (between(a, b) == PathClass::sys) return true;
      }
    }
    return false;
  }

  std::string name_of(size_t device) const {
    return devices_[device].gpu >= 0 ? "GPU " + std::to_string(devices_[device].gpu) : devices_[device].name;
  }

  void add_devices() {
    machine_of_.assign(devices_.size(), 0);
    std::vector<size_t> order(devices_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return devices_[a].gpu < devices_[b].gpu; });
    for (const size_t i : order) {
      const SmiDevice& device = devices_[i];
      const int numa = own_numa_[i] >= 0 ? own_numa_[i] : is_recorded(place_[i]) ? place_[i] : -1;
      if (device.gpu >= 0) {
        machine_of_[i] = machine_.gpus.size();
        Gpu gpu;
        gpu.index = device.gpu;
        gpu.numa = numa;
        machine_.gpus.push_back(std::move(gpu));
      } else {
        machine_of_[i] = machine_.nics.size();
        Nic nic;
        nic.name = device.name;
        nic.numa = numa;
        nic.rdma = nic.gdr = true;  // nvidia-smi lists RDMA devices only
        machine_.nics.push_back(std::move(nic));
      }
    }
  }

  bool is_recorded(int numa) const {
    return std::any_of(machine_.numa.begin(), machine_.numa.end(),
                       [&](const NumaNode& node) { return node.os_index == numa; });
  }

  int add_pci(int parent, int numa, uint32_t pci_class) {
    PciDevice device;
    if (pci_class == 0x060400) {
      char id[32];
      const unsigned number = switches_++;
      std::snprintf(id, sizeof id, "ffff:%02x:%02x.0", 0xff - (number >> 5 & 0xff), number & 0x1f);
      device.bus_id = id;
    }
    device.parent = parent;
    device.numa = numa;
    device.pci_class = pci_class;
    machine_.pci.push_back(std::move(device));
    return static_cast<int>(machine_.pci.size()) - 1;
  }

  void add_switches() {
    Groups one_switch(devices_.size()), switches(devices_.size());
    for (size_t a = 0; a < devices_.size(); ++a) {
      for (size_t b = 0; b < devices_.size(); ++b) {
        if (pci_within(a, b, PathClass::pix)) one_switch.join(a, b);
        if (pci_within(a, b, PathClass::pxb)) switches.join(a, b);
      }
    }
    std::map<size_t, std::set<size_t>> inner;  // of each outer switch: the inner ones
    std::map<size_t, size_t> size;             // devices at each inner switch
    for (size_t i = 0; i < devices_.size(); ++i) {
      inner[switches.of(i)].insert(one_switch.of(i));
      ++size[one_switch.of(i)];
    }
    std::map<size_t, int> outer_pci, inner_pci;
    for (size_t i = 0; i < devices_.size(); ++i) {
      const bool has_outer = inner[switches.of(i)].size() > 1;
      const bool has_inner = has_outer || size[one_switch.of(i)] > 1;
      int parent = -1;
      if (has_outer) {
        const auto [place, fresh] = outer_pci.try_emplace(switches.of(i), -1);
        if (fresh) place->second = add_pci(-1, place_[i], 0x060400);
        parent = place->second;
      }
      if (has_inner) {
        const auto [place, fresh] = inner_pci.try_emplace(one_switch.of(i), -1);
        if (fresh) place->second = add_pci(parent, place_[i], 0x060400);
        parent = place->second;
      }
      const bool gpu = devices_[i].gpu >= 0;
      const int pci = add_pci(parent, place_[i], gpu ? 0x030200 : 0x020700);
      (gpu ? machine_.gpus[machine_of_[i]].pci : machine_.nics[machine_of_[i]].pci) = pci;
    }
  }

  /// More links to all peers together than a GPU has can only be the same links, through a switch.
  void add_nvlinks() {
    for (size_t a = 0; a < devices_.size(); ++a) {
      if (devices_[a].gpu < 0) continue;
      int sum = 0, most = 0;
      for (size_t b = 0; b < devices_.size(); ++b) {
        if (devices_[b].gpu < 0 || b == a) continue;
        sum += devices_[a].cells[b].nvlinks;
        most = std::max(most, devices_[a].cells[b].nvlinks);
      }
      GpuLink link;
      link.gpu = static_cast<int>(machine_of_[a]);
      link.gb_per_s_each = nvlink_gb_per_s(0);
      if (sum > kNvlinksMax && sum > most) {
        link.end = LinkEnd::nvswitch;
        link.count = most;
        machine_.links.push_back(link);
        continue;
      }
      for (size_t b = 0; b < devices_.size(); ++b) {
        if (devices_[b].gpu < 0 || b == a || devices_[a].cells[b].nvlinks == 0) continue;
        link.peer = static_cast<int>(machine_of_[b]);
        link.count = devices_[a].cells[b].nvlinks;
        machine_.links.push_back(link);
      }
    }
    std::stable_sort(machine_.links.begin(), machine_.links.end(),
                     [](const GpuLink& a, const GpuLink& b) { return a.gpu < b.gpu; });
  }

  /// A matrix that no tree can have (or that NCCL would see otherwise) is told of, not hidden.
  void compare() {
    if (!check_size(machine_)) return;
    const Paths paths = find_paths(machine_);
    size_t contradictions = 0;
    for (size_t a = 0; a < devices_.size(); ++a) {
      for (size_t b = 0; b < devices_.size(); ++b) {
        if (devices_[a].gpu < 0 || a == b || between(a, b) == PathClass::dis) continue;
        const bool gpu = devices_[b].gpu >= 0;
        const PathClass found =
            (gpu ? paths.between_gpus(machine_of_[a], machine_of_[b]) : paths.to_nic(machine_of_[a], machine_of_[b]))
                .kind;
        // NCCL may well relay over NVLink what nvidia-smi shows as the way over the host.
        const bool relayed = found == PathClass::pxn || found == PathClass::nvb;
        if (found == between(a, b) || relayed || ++contradictions > kContradictionsMax) continue;
        machine_.notes.push_back("nvidia-smi shows " + std::string(to_string(between(a, b))) + " between " +
                                 name_of(a) + " and " + name_of(b) + ", the rest of its matrix makes it " +
                                 to_string(found));
      }
    }
  }

  SmiMatrix matrix_;
  const std::vector<SmiDevice>& devices_;
  Groups near_;                        // on one NUMA node
  std::vector<int> own_numa_, place_;  // of each device: as recorded; where its PCI root is put
  std::vector<size_t> machine_of_;     // of each device: index into gpus or nics
  unsigned switches_ = 1;
  Machine machine_;
};

}  // namespace

Result<Machine> read_nvidia_smi(std::string_view text, const std::string& host) {
  auto matrix = read_smi_matrix(text);
  if (!matrix) return matrix.error();
  if (matrix->devices.size() > kGpusMax + kNicsMax) return bad_input("has more devices than any machine");
  Machine machine = SmiMachine(*std::move(matrix), host).make();
  if (const Status size = check_size(machine); !size) return size.error();
  return machine;
}

}  // namespace mds::topology
