#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "topology/paths_pci.hpp"
#include "topology/read/gpus_pci_ids.hpp"
#include "topology/read/nccl_cpus.hpp"
#include "topology/read/read_machine.hpp"

namespace mds::topology {
namespace {

constexpr size_t kElementsMax = 255;  // NCCL has room for 256 and asks for one more before it sees the last end
constexpr size_t kAttributesMax = 16;
constexpr int kSwitchLevelsMax = 56;    // so that our own reader takes it with all that stands around
constexpr size_t kCharactersMax = 253;  // with quote and end in 255

struct Element {
  std::string name;
  std::vector<std::pair<std::string, std::string>> attributes{};
  std::vector<Element> children{};

  void set(const char* key, const std::string& value) { attributes.emplace_back(key, value); }
  void set(const char* key, int64_t value) { set(key, std::to_string(value)); }
  /// Leaves out what is not known.
  void set_known(const char* key, const std::string& value) {
    if (!value.empty()) set(key, value);
  }
};

/// Our own writer, as NCCL's parser is not XML's: it takes neither a declaration nor "a />", and one space between
/// attributes, no tabs.
void print(const Element& element, const std::string& indent, std::string& out) {
  out += indent + "<" + element.name;
  for (const auto& [key, value] : element.attributes) {
    out += " " + key + "=\"";
    for (const char c : value) {
      out += c == '"' ? "&quot;" : c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
    }
    out += '"';
  }
  if (element.children.empty()) {
    out += "/>\n";
    return;
  }
  out += ">\n";
  for (const Element& child : element.children) print(child, indent + "  ", out);
  out += indent + "</" + element.name + ">\n";
}

size_t count(const Element& element) {
  size_t elements = 1;
  for (const Element& child : element.children) elements += count(child);
  return elements;
}

std::string hex(uint32_t number) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%06x", number);
  return text;
}

std::string speed_text(double gtps) {
  if (!(gtps > 0)) return "";
  char text[32];
  std::snprintf(text, sizeof text, "%.1f GT/s PCIe", gtps);
  return text;
}

int64_t whole(double number) { return static_cast<int64_t>(std::clamp(number, 0.0, 1e12) + 0.5); }

/// What RCCL calls `sm`: compute units, of the largest product with that architecture.
int compute_units(const std::string& gcn) {
  static constexpr std::pair<const char*, int> kUnits[] = {{"gfx906", 64},  {"gfx908", 120}, {"gfx90a", 110},
                                                           {"gfx942", 304}, {"gfx940", 228}, {"gfx950", 256}};
  for (const auto& [name, units] : kUnits) {
    if (gcn == name) return units;
  }
  return 64;
}

class NcclWriter {
 public:
  explicit NcclWriter(const Machine& machine) : machine_(machine), parents_(switch_parents(machine.pci)) {
    for (const Gpu& gpu : machine.gpus) amd_ |= !gpu.gcn.empty();
  }

  Result<std::string> write() {
    find_needed_devices();
    bare_gpus_ = only_places_known();
    if (const Status known = check_bus_ids(); !known) return known.error();
    if (const Status depth = check_depth(); !depth) return depth.error();
    Element system = make_system();
    if (count(system) > kElementsMax) {
      leave_out_chains();
      system = make_system();
    }
    if (const size_t elements = count(system); elements > kElementsMax) {
      return infeasible("the topology of " + machine_.host + " takes " + std::to_string(elements) +
                        " XML elements; NCCL reads at most " + std::to_string(kElementsMax));
    }
    if (const Status fits = check(system); !fits) return fits.error();
    std::string text;
    print(system, "", text);
    return text;
  }

 private:
  bool known(int pci) const { return pci >= 0 && static_cast<size_t>(pci) < machine_.pci.size(); }

  /// Switches and endpoints with a GPU or a port in use at or below them.
  void find_needed_devices() {
    needed_.assign(machine_.pci.size(), false);
    gpus_of_.resize(machine_.pci.size());
    nics_of_.resize(machine_.pci.size());
    for (size_t i = 0; i < machine_.gpus.size(); ++i) {
      if (!known(machine_.gpus[i].pci)) continue;
      gpus_of_[static_cast<size_t>(machine_.gpus[i].pci)].push_back(i);
      needed_[static_cast<size_t>(machine_.gpus[i].pci)] = true;
    }
    for (size_t i = 0; i < machine_.nics.size(); ++i) {
      if (!known(machine_.nics[i].pci) || !machine_.nics[i].active) continue;
      nics_of_[static_cast<size_t>(machine_.nics[i].pci)].push_back(i);
      needed_[static_cast<size_t>(machine_.nics[i].pci)] = true;
    }
    for (size_t i = needed_.size(); i-- > 0;) {
      if (needed_[i] && parents_[i] >= 0) needed_[static_cast<size_t>(parents_[i])] = true;
    }
  }

  /// NCCL finds devices by their bus ids.
  Status check_bus_ids() const {
    const auto refuse = [&](const std::string& what, const std::string& bus_id) {
      return infeasible(what + " of " + machine_.host +
                        (bus_id.empty() ? " has no bus id" : " has the impossible bus id \"" + bus_id + "\"") +
                        ", and NCCL finds devices by that; add a recording that has it (hwloc, NCCL)");
    };
    for (const Gpu& gpu : machine_.gpus) {
      if (!parse_bus_id(gpu.bus_id)) return refuse("GPU " + std::to_string(gpu.index), gpu.bus_id);
    }
    for (const Nic& nic : machine_.nics) {
      const bool alone = !known(nic.pci) && !nic.bus_id.empty() && nic.active;
      if (alone && !parse_bus_id(nic.bus_id)) return refuse(nic.name, nic.bus_id);
    }
    for (size_t i = 0; i < needed_.size(); ++i) {
      if (needed_[i] && !parse_bus_id(machine_.pci[i].bus_id)) return refuse("a PCI device", machine_.pci[i].bus_id);
    }
    return {};
  }

  Status check_depth() const {
    std::vector<int> depth(parents_.size(), 0);
    for (size_t i = 0; i < parents_.size(); ++i) {
      if (parents_[i] < 0) continue;
      depth[i] = depth[static_cast<size_t>(parents_[i])] + 1;
      if (depth[i] > kSwitchLevelsMax) {
        return infeasible("the PCI tree of " + machine_.host + " has more than " + std::to_string(kSwitchLevelsMax) +
                          " levels of switches");
      }
    }
    return {};
  }

  /// A switch with one device below it, whose link is not the narrower of the two, changes nothing but hops.
  void leave_out_chains() {
    std::vector<int> children(machine_.pci.size());
    std::vector<size_t> only_child(machine_.pci.size());
    for (size_t i = 0; i < machine_.pci.size(); ++i) {
      if (!needed_[i] || parents_[i] < 0) continue;
      ++children[static_cast<size_t>(parents_[i])];
      only_child[static_cast<size_t>(parents_[i])] = i;
    }
    const auto rate = [](const PciLink& link) { return link.gtps * link.width; };
    for (size_t i = 0; i < machine_.pci.size(); ++i) {
      if (!needed_[i] || children[i] != 1 || !gpus_of_[i].empty() || !nics_of_[i].empty()) continue;
      if (rate(link_of(machine_.pci[i])) < rate(link_of(machine_.pci[only_child[i]]))) continue;
      needed_[i] = false;
      parents_[only_child[i]] = parents_[i];
    }
  }

  static const PciLink& link_of(const PciDevice& device) {
    return device.link_max.gtps > 0 && device.link_max.width > 0 ? device.link_max : device.link;
  }

  Element make_system() {
    Element system{"system"};
    system.set("version", amd_ ? 2 : 1);  // RCCL's files count on their own
    system.set_known("host", machine_.host);
    std::vector<NumaCpus> nodes = numa_nodes();
    const Siblings siblings = siblings_to_tell(cores_only(nodes), machine_.cores);
    children_.assign(machine_.pci.size(), {});
    if (nodes.empty() && machine_.gpus.empty() && machine_.nics.empty()) nodes.push_back({-1, 0, {}});
    std::map<int, Element> cpus;
    for (const NumaCpus& node : nodes) cpus[node.numa] = make_cpu(node, siblings);
    for (size_t i = 0; i < machine_.pci.size(); ++i) {
      if (needed_[i] && parents_[i] >= 0) children_[static_cast<size_t>(parents_[i])].push_back(i);
    }
    for (size_t i = 0; i < machine_.pci.size(); ++i) {
      if (needed_[i] && parents_[i] < 0) cpus[numa_key(root_numa(i))].children.push_back(make_pci(i));
    }
    for (size_t i = 0; i < machine_.gpus.size(); ++i) {
      if (!known(machine_.gpus[i].pci)) cpus[numa_key(machine_.gpus[i].numa)].children.push_back(make_lone_gpu(i));
    }
    for (size_t i = 0; i < machine_.nics.size(); ++i) {
      const Nic& nic = machine_.nics[i];
      if (!known(nic.pci) && nic.active) cpus[numa_key(nic.numa)].children.push_back(make_lone_nic(i));
    }
    for (auto& [numa, cpu] : cpus) {
      if (cpu.name.empty()) cpu = with_children(make_cpu({numa, 0, {}}, {}), std::move(cpu.children));
      system.children.push_back(std::move(cpu));
    }
    return system;
  }

  static Element with_children(Element element, std::vector<Element> children) {
    element.children = std::move(children);
    return element;
  }

  static std::vector<NumaCpus> cores_only(std::vector<NumaCpus> nodes) {
    std::erase_if(nodes, [](const NumaCpus& node) { return node.numa < 0; });
    return nodes;
  }

  std::vector<NumaCpus> numa_nodes() const {
    std::map<int, NumaCpus> nodes;
    for (const NumaNode& numa : machine_.numa) nodes[numa.os_index] = {numa.os_index, numa.package, {}};
    for (const Core& core : machine_.cores) {
      NumaCpus& node = nodes.try_emplace(core.numa, NumaCpus{core.numa, core.package, {}}).first->second;
      node.cpus.insert(node.cpus.end(), core.cpus.begin(), core.cpus.end());
    }
    std::vector<NumaCpus> list;
    for (auto& [numa, node] : nodes) {
      std::sort(node.cpus.begin(), node.cpus.end());
      node.arch = package(node.package).arch;
      list.push_back(std::move(node));
    }
    return list;
  }

  Package package(int index) const {
    for (const Package& one : machine_.packages) {
      if (one.index == index) return one;
    }
    return machine_.packages.empty() ? Package{} : machine_.packages.front();
  }

  int numa_key(int numa) const {
    return numa < 0 && machine_.numa.size() == 1 ? machine_.numa.front().os_index : std::max(numa, -1);
  }

  int root_numa(size_t pci) const {
    if (machine_.pci[pci].numa >= 0) return machine_.pci[pci].numa;
    for (const size_t gpu : gpus_of_[pci]) return machine_.gpus[gpu].numa;
    for (const size_t nic : nics_of_[pci]) return machine_.nics[nic].numa;
    return -1;
  }

  Element make_cpu(const NumaCpus& node, const Siblings& siblings) const {
    Element cpu{"cpu"};
    const Package of = package(node.package);
    cpu.set("numaid", node.numa);
    const std::string mask = mask_of_cpus(node.cpus);
    if (!node.cpus.empty() && mask.size() <= kCharactersMax) cpu.set("affinity", mask);
    cpu.set_known("arch", of.arch);
    if (!of.vendor.empty()) {
      cpu.set("vendor", of.vendor);
      cpu.set("familyid", of.family > 15 ? 15 + (of.family - 15) * 16 : of.family);
      cpu.set("modelid", of.model);
    }
    cpu.set("package", node.package);
    if (siblings.threads > 0) {
      cpu.set("smt_threads", siblings.threads);
      cpu.set("smt_stride", siblings.stride);
    }
    for (const NumaNode& numa : machine_.numa) {
      if (numa.os_index == node.numa && numa.memory_bytes > 0) {
        cpu.set("memory", static_cast<int64_t>(numa.memory_bytes));
      }
    }
    return cpu;
  }

  Element make_pci(size_t index) const {
    const PciDevice& device = machine_.pci[index];
    Element pci{"pci"};
    pci.set("busid", device.bus_id);
    pci.set("class", hex(device.pci_class != 0 ? device.pci_class : default_class(index)));
    pci.set_known("vendor", device.vendor);
    pci.set_known("device", device.device);
    pci.set_known("subsystem_vendor", device.subsystem_vendor);
    pci.set_known("subsystem_device", device.subsystem_device);
    const PciLink& link = link_of(device);
    pci.set("link_speed", speed_text(link.gtps));
    pci.set("link_width", link.width);
    for (const size_t gpu : gpus_of_[index]) add_gpu(pci, gpu);
    // A port without a name is known by its class alone; NCCL finds the names itself.
    std::vector<size_t> named = nics_of_[index];
    std::erase_if(named, [&](size_t nic) { return machine_.nics[nic].name.empty(); });
    if (!named.empty()) pci.children.push_back(make_nic(named));
    for (const size_t child : children_[index]) pci.children.push_back(make_pci(child));
    return pci;
  }

  uint32_t default_class(size_t index) const {
    return !gpus_of_[index].empty()   ? gpu_class(gpus_of_[index].front())
           : !nics_of_[index].empty() ? 0x020000
                                      : 0x060400;
  }

  uint32_t gpu_class(size_t index) const {
    const Gpu& gpu = machine_.gpus[index];
    const uint32_t recorded = known(gpu.pci) ? machine_.pci[static_cast<size_t>(gpu.pci)].pci_class : 0;
    return recorded != 0 ? recorded : gpu.gcn.empty() ? 0x030200 : 0x120000;
  }

  Element make_endpoint(const std::string& bus_id, uint32_t pci_class) const {
    Element pci{"pci"};
    pci.set("busid", bus_id);
    pci.set("class", hex(pci_class));
    pci.set("link_speed", "");
    pci.set("link_width", 0);
    return pci;
  }

  Element make_lone_gpu(size_t index) const {
    Element pci = make_endpoint(machine_.gpus[index].bus_id, gpu_class(index));
    add_gpu(pci, index);
    return pci;
  }

  Element make_lone_nic(size_t index) const {
    if (machine_.nics[index].bus_id.empty()) return make_nic({index});
    Element pci = make_endpoint(machine_.nics[index].bus_id, 0x020000);
    pci.children.push_back(make_nic({index}));
    return pci;
  }

  /// GPUs of which nothing is known but their place stay without <gpu>, and NCCL asks the driver for all of them.
  void add_gpu(Element& pci, size_t index) const {
    if (!bare_gpus_) pci.children.push_back(make_gpu(index));
  }

  bool only_places_known() const {
    if (!machine_.links.empty()) return false;
    for (size_t i = 0; i < machine_.gpus.size(); ++i) {
      const Gpu& gpu = machine_.gpus[i];
      if (gpu.sm != 0 || !gpu.gcn.empty() || !gpu.uuid.empty() || !gpu.name.empty() || gpu.memory_bytes > 0 ||
          !gpu.gdr || !gpu.nvlink_domain.empty() || gpu.index != static_cast<int>(i) ||
          (i > 0 && machine_.gpus[i - 1].bus_id > gpu.bus_id) ||
          !shows_gpu(gpu_class(i), known(gpu.pci) ? machine_.pci[static_cast<size_t>(gpu.pci)].vendor : "") ||
          (known(gpu.pci) && !nics_of_[static_cast<size_t>(gpu.pci)].empty())) {
        return false;
      }
    }
    return true;
  }

  Element make_gpu(size_t index) const {
    const Gpu& gpu = machine_.gpus[index];
    Element element{"gpu"};
    element.set("dev", gpu.index);
    if (!gpu.gcn.empty()) {
      element.set("sm", compute_units(gpu.gcn));
      element.set("gcn", gpu.gcn);
      element.set("arch", 38911);  // RCCL's feature bits, the same on every recorded machine
    } else if (gpu.sm > 0) {
      element.set("sm", gpu.sm);
    }
    element.set("rank", static_cast<int64_t>(index));  // NCCL puts its own there
    element.set("gdr", gpu.gdr ? 1 : 0);
    element.set_known("uuid", gpu.uuid);
    element.set_known("name", gpu.name);
    if (gpu.memory_bytes > 0) element.set("memory", static_cast<int64_t>(gpu.memory_bytes));
    element.set_known("nvlink_domain", gpu.nvlink_domain);
    for (const GpuLink& link : machine_.links) {
      if (link.gpu == static_cast<int>(index)) element.children.push_back(make_link(link));
    }
    return element;
  }

  Element make_link(const GpuLink& link) const {
    if (link.kind == LinkKind::c2c) {
      Element c2c{"c2c"};
      c2c.set("bw", whole(link.gb_per_s_each * 1000));
      c2c.set("count", link.count);
      return c2c;
    }
    Element element{link.kind == LinkKind::xgmi ? "xgmi" : "nvlink"};
    const bool to_gpu = link.end == LinkEnd::gpu;
    const bool known_gpu = to_gpu && link.peer >= 0 && static_cast<size_t>(link.peer) < machine_.gpus.size();
    element.set("target", known_gpu                  ? machine_.gpus[static_cast<size_t>(link.peer)].bus_id
                          : link.peer_bus_id.empty() ? "fffffff:ffff:ff"
                                                     : link.peer_bus_id);
    element.set("count", link.count);
    const uint32_t peer_class = known_gpu ? gpu_class(static_cast<size_t>(link.peer)) : 0x030200;
    element.set("tclass", hex(to_gpu ? peer_class : link.end == LinkEnd::cpu ? 0x068001 : 0x068000));
    return element;
  }

  Element make_nic(const std::vector<size_t>& ports) const {
    Element nic{"nic"};
    for (const size_t index : ports) {
      const Nic& port = machine_.nics[index];
      Element net{"net"};
      net.set("name", port.name);
      net.set("dev", static_cast<int64_t>(index));
      if (port.gbps > 0) net.set("speed", whole(port.gbps * 1000));
      net.set("port", port.port);
      net.set_known("guid", port.guid);
      net.set("gdr", port.gdr ? 1 : 0);
      net.set("rdma", port.rdma ? 1 : 0);
      net.set_known("interface", port.interface);
      nic.children.push_back(std::move(net));
    }
    return nic;
  }

  Status check(const Element& element) const {
    if (element.attributes.size() > kAttributesMax) {
      return infeasible("<" + element.name + "> has more than 16 attributes");
    }
    for (const auto& [key, value] : element.attributes) {
      if (value.size() <= kCharactersMax) continue;
      return infeasible(key + "=\"" + value.substr(0, 40) + "...\" of " + machine_.host + " has " +
                        std::to_string(value.size()) + " characters; NCCL reads at most " +
                        std::to_string(kCharactersMax));
    }
    for (const Element& child : element.children) {
      if (const Status fits = check(child); !fits) return fits;
    }
    return {};
  }

  const Machine& machine_;
  std::vector<int> parents_;  // of each PCI device, as NCCL sees it
  std::vector<bool> needed_;
  std::vector<std::vector<size_t>> gpus_of_, nics_of_, children_;  // of each PCI device
  bool amd_ = false;
  bool bare_gpus_ = false;
};

}  // namespace

Result<std::string> write_nccl_xml(const Machine& machine) { return NcclWriter(machine).write(); }

}  // namespace mds::topology
