// hwloc XML 2.x from a Machine, such as every hwloc from 2.0 on loads. What hwloc has no word for goes into tags
// (hwloc_tags.hpp), so that reading it again gives the same Machine but for its notes.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <pugixml.hpp>
#include <set>
#include <sstream>

#include "topology/paths_pci.hpp"
#include "topology/read/gpus_pci_ids.hpp"
#include "topology/read/hwloc_bitmap.hpp"
#include "topology/read/hwloc_tags.hpp"
#include "topology/read/read_machine.hpp"

namespace mds::topology {
namespace hwloc {
namespace {

std::string format(const char* pattern, auto... values) {
  char text[96];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

/// What is no bus id is written as 0000:00:00.0; its tag has it as it was.
PciAddress parse(const std::string& text) { return parse_bus_id(text).value_or(PciAddress{}); }

double gb_per_s(const PciLink& link) {
  const double payload = link.gtps <= 5 ? 0.8 : link.gtps < 64 ? 128.0 / 130 : 242.0 / 256;
  return link.gtps * payload * link.width / 8;
}

unsigned hex(const std::string& id) { return static_cast<unsigned>(std::strtoul(id.c_str(), nullptr, 16)) & 0xffff; }

/// An object with CPUs: the machine, a package, or a part of a package that shares a NUMA node.
struct Region {
  pugi::xml_node node;
  Bitmap cpus, nodes;
};

class Writer {
 public:
  explicit Writer(const Machine& machine) : machine_(machine) {
    document_.append_child(pugi::node_declaration).append_attribute("version") = "1.0";
    document_.first_child().append_attribute("encoding") = "UTF-8";
    document_.append_child(pugi::node_doctype).set_value("topology SYSTEM \"hwloc2.dtd\"");
    topology_ = document_.append_child("topology");
    topology_.append_attribute("version") = "2.0";
  }

  std::string run() {
    plan_regions();
    write_machine();
    for (const int package : package_order_) write_package(package);
    write_devices();
    write_matrix("NVLinkBandwidth", LinkKind::nvlink);
    write_matrix("XGMIBandwidth", LinkKind::xgmi);
    std::ostringstream out;
    document_.save(out, "  ", pugi::format_indent, pugi::encoding_utf8);
    return out.str();
  }

 private:
  static constexpr int kMachine = -1;

  pugi::xml_node add_object(pugi::xml_node parent, const char* type) {
    pugi::xml_node object = parent.append_child("object");
    object.append_attribute("type") = type;
    return object;
  }
  void add_gp(pugi::xml_node object) { object.append_attribute("gp_index") = next_gp_++; }
  static void add_info(pugi::xml_node object, const char* name, const std::string& value) {
    pugi::xml_node info = object.append_child("info");
    info.append_attribute("name") = name;
    info.append_attribute("value") = value.c_str();
  }
  static void add_tag(pugi::xml_node object, const std::pair<std::string, std::string>& tag) {
    add_info(object, tag.first.c_str(), tag.second);
  }
  static void add_sets(pugi::xml_node object, const Bitmap& cpus, const Bitmap& nodes) {
    object.append_attribute("cpuset") = cpus.to_string().c_str();
    object.append_attribute("complete_cpuset") = cpus.to_string().c_str();
    object.append_attribute("nodeset") = nodes.to_string().c_str();
    object.append_attribute("complete_nodeset") = nodes.to_string().c_str();
  }

  /// Cores by package and by NUMA node, and which object each NUMA node hangs on: the package or part of one whose
  /// cores it has, or else the machine.
  void plan_regions() {
    int cpu_max = -1;
    for (const Package& package : machine_.packages) cores_of_[package.index];
    for (const Core& core : machine_.cores) {
      cores_of_[core.package].push_back(&core);
      cpu_max = std::max(cpu_max, core.cpus.back());
      packages_of_numa_[core.numa].insert(core.package);
      ++cores_of_numa_[core.numa];
    }
    if (cores_of_.empty()) cores_of_[0];
    for (auto& [package, cores] : cores_of_) {
      std::sort(cores.begin(), cores.end(), [](auto* a, auto* b) { return a->cpus.front() < b->cpus.front(); });
      package_order_.push_back(package);
      // hwloc knows no package without a CPU.
      first_cpu_[package] = cores.empty() ? ++cpu_max : cores.front()->cpus.front();
    }
    std::sort(package_order_.begin(), package_order_.end(),
              [&](int a, int b) { return first_cpu_[a] < first_cpu_[b]; });
    for (const NumaNode& numa : machine_.numa) {
      all_.nodes.set(static_cast<size_t>(numa.os_index));
      const auto& packages = packages_of_numa_[numa.os_index];
      const bool whole = cores_of_numa_[numa.os_index] == machine_.cores.size();
      package_of_numa_[numa.os_index] = packages.size() == 1 && !whole ? *packages.begin() : kMachine;
    }
    if (machine_.numa.empty()) all_.nodes.set(0);
    for (const auto& [package, cores] : cores_of_) {
      for (const Core* core : cores) {
        for (const int cpu : core->cpus) all_.cpus.set(static_cast<size_t>(cpu));
      }
      if (cores.empty()) all_.cpus.set(static_cast<size_t>(first_cpu_[package]));
    }
  }

  void write_machine() {
    all_.node = add_object(topology_, "Machine");
    all_.node.append_attribute("os_index") = 0;
    add_sets(all_.node, all_.cpus, all_.nodes);
    all_.node.append_attribute("allowed_cpuset") = all_.cpus.to_string().c_str();
    all_.node.append_attribute("allowed_nodeset") = all_.nodes.to_string().c_str();
    add_gp(all_.node);
    add_info(all_.node, "HostName", machine_.host);
    if (!machine_.packages.empty()) add_info(all_.node, "Architecture", machine_.packages.front().arch);
    for (const NumaNode& numa : machine_.numa) {
      if (package_of_numa_[numa.os_index] == kMachine) write_numa(all_, numa);
    }
    if (!machine_.numa.empty()) return;
    pugi::xml_node placeholder = add_object(all_.node, "NUMANode");
    placeholder.append_attribute("os_index") = 0;
    add_sets(placeholder, all_.cpus, all_.nodes);
    add_gp(placeholder);
    placeholder.append_attribute("local_memory") = 0;
    add_info(placeholder, tags::kPlaceholder, "1");
  }

  void write_numa(const Region& region, const NumaNode& numa) {
    Bitmap self;
    self.set(static_cast<size_t>(numa.os_index));
    // One that no core is nearest to (memory of another kind) hangs on the machine without CPUs.
    const bool has_cores = cores_of_numa_[numa.os_index] > 0;
    pugi::xml_node node = add_object(region.node, "NUMANode");
    node.append_attribute("os_index") = numa.os_index;
    add_sets(node, has_cores ? region.cpus : Bitmap{}, self);
    numa_gp_[numa.os_index] = next_gp_;
    add_gp(node);
    node.append_attribute("local_memory") = static_cast<unsigned long long>(numa.memory_bytes);
    add_tag(node, tags::write(numa));
    if (has_cores) region_of_numa_[numa.os_index] = region.node;
  }

  void write_package(int index) {
    const auto& cores = cores_of_[index];
    Region region;
    std::map<int, size_t> cores_by_numa;
    for (const Core* core : cores) {
      ++cores_by_numa[core->numa];
      for (const int cpu : core->cpus) region.cpus.set(static_cast<size_t>(cpu));
    }
    if (cores.empty()) region.cpus.set(static_cast<size_t>(first_cpu_[index]));
    std::vector<const NumaNode*> here;
    for (const NumaNode& numa : machine_.numa) {
      const int package = package_of_numa_[numa.os_index];
      if (package == index) here.push_back(&numa);
      if (package == index || package == kMachine) region.nodes.set(static_cast<size_t>(numa.os_index));
    }
    if (machine_.numa.empty()) region.nodes.set(0);
    open_package(index, region);
    const bool one_part = here.size() == 1 && cores_by_numa.size() == 1;
    if (one_part) write_numa(region, *here.front());
    std::map<int, Region> parts;
    for (const NumaNode* numa : here) {
      if (!one_part) parts.emplace(numa->os_index, part_of(cores, *numa));
    }
    for (const Core* core : cores) {
      const auto part = parts.find(core->numa);
      Region& home = part == parts.end() ? region : part->second;
      if (!home.node) open_part(region, home, core->numa);
      write_core(home, *core);
    }
    if (cores.empty()) write_placeholder_core(region, first_cpu_[index]);
  }

  void open_package(int index, Region& region) {
    const auto found = std::find_if(machine_.packages.begin(), machine_.packages.end(),
                                    [&](const Package& package) { return package.index == index; });
    region.node = add_object(all_.node, "Package");
    region.node.append_attribute("os_index") = index;
    add_sets(region.node, region.cpus, region.nodes);
    add_gp(region.node);
    if (found == machine_.packages.end()) {
      add_info(region.node, tags::kPlaceholder, "1");
      return;
    }
    add_info(region.node, "CPUVendor", found->vendor);
    add_info(region.node, "CPUFamilyNumber", std::to_string(found->family));
    add_info(region.node, "CPUModelNumber", std::to_string(found->model));
    add_tag(region.node, tags::write(*found));
    package_ordinal_[index] = packages_written_++;
  }

  static Region part_of(const std::vector<const Core*>& cores, const NumaNode& numa) {
    Region part;
    part.nodes.set(static_cast<size_t>(numa.os_index));
    for (const Core* core : cores) {
      if (core->numa != numa.os_index) continue;
      for (const int cpu : core->cpus) part.cpus.set(static_cast<size_t>(cpu));
    }
    return part;
  }

  void open_part(const Region& package, Region& part, int numa_index) {
    constexpr int kMemoryGroup = 1001;  // hwloc's own kind for the locality of memory
    part.node = add_object(package.node, "Group");
    add_sets(part.node, part.cpus, part.nodes);
    add_gp(part.node);
    part.node.append_attribute("kind") = kMemoryGroup;
    part.node.append_attribute("subkind") = 0;
    for (const NumaNode& numa : machine_.numa) {
      if (numa.os_index == numa_index) write_numa(part, numa);
    }
  }

  void write_core(const Region& home, const Core& core) {
    Bitmap cpus;
    for (const int cpu : core.cpus) cpus.set(static_cast<size_t>(cpu));
    pugi::xml_node node = add_object(home.node, "Core");
    node.append_attribute("os_index") = core.index;
    add_sets(node, cpus, home.nodes);
    add_gp(node);
    const auto package = package_ordinal_.find(core.package);
    const bool plain = core.index == cores_written_++ && package != package_ordinal_.end() &&
                       package->second == core.package && region_of_numa_.count(core.numa);
    if (!plain) add_tag(node, tags::write(core));
    for (const int cpu : core.cpus) write_pu(node, cpu, home.nodes);
  }

  pugi::xml_node write_pu(pugi::xml_node core, int cpu, const Bitmap& nodes) {
    Bitmap self;
    self.set(static_cast<size_t>(cpu));
    pugi::xml_node pu = add_object(core, "PU");
    pu.append_attribute("os_index") = cpu;
    add_sets(pu, self, nodes);
    add_gp(pu);
    return pu;
  }

  void write_placeholder_core(const Region& home, int cpu) {
    pugi::xml_node node = add_object(home.node, "Core");
    node.append_attribute("os_index") = cpu;
    add_sets(node, home.cpus, home.nodes);
    add_gp(node);
    add_info(write_pu(node, cpu, home.nodes), tags::kPlaceholder, "1");
  }

  pugi::xml_node region_of(int numa) const {
    const auto found = region_of_numa_.find(numa);
    return found == region_of_numa_.end() ? all_.node : found->second;
  }

  void write_devices() {
    children_.resize(machine_.pci.size());
    std::map<std::pair<unsigned long long, unsigned>, std::vector<size_t>> bridges;  // of one domain on one object
    for (size_t i = 0; i < machine_.pci.size(); ++i) {
      const PciDevice& device = machine_.pci[i];
      if (device.parent >= 0) {
        children_[static_cast<size_t>(device.parent)].push_back(i);
      } else {
        const auto region = region_of(device.numa).attribute("gp_index").as_ullong();
        bridges[{region, parse(device.bus_id).domain}].push_back(i);
      }
    }
    pci_gp_.resize(machine_.pci.size());
    gpu_gp_.resize(machine_.gpus.size());
    for (const auto& [key, functions] : bridges) write_host_bridge(functions);
    for (size_t i = 0; i < machine_.gpus.size(); ++i) {
      if (machine_.gpus[i].pci < 0) write_gpu(region_of(machine_.gpus[i].numa), i);
    }
    for (size_t i = 0; i < machine_.nics.size(); ++i) {
      if (machine_.nics[i].pci < 0) write_nic(region_of(machine_.nics[i].numa), i);
    }
  }

  /// Lowest and highest bus below (and of) these functions.
  std::pair<unsigned, unsigned> buses(const std::vector<size_t>& functions) const {
    std::pair<unsigned, unsigned> range{0xff, 0};
    std::vector<size_t> left = functions;
    while (!left.empty()) {
      const size_t i = left.back();
      left.pop_back();
      const unsigned bus = parse(machine_.pci[i].bus_id).bus;
      range = {std::min(range.first, bus), std::max(range.second, bus)};
      left.insert(left.end(), children_[i].begin(), children_[i].end());
    }
    return range.first > range.second ? std::pair(0u, 0u) : range;
  }

  void add_bridge_range(pugi::xml_node bridge, unsigned domain, const std::vector<size_t>& below) const {
    const auto [first, last] = buses(below);
    bridge.append_attribute("bridge_pci") = format("%04x:[%02x-%02x]", domain, first, last).c_str();
  }

  void write_host_bridge(const std::vector<size_t>& functions) {
    const PciDevice& first = machine_.pci[functions.front()];
    pugi::xml_node bridge = add_object(region_of(first.numa), "Bridge");
    add_gp(bridge);
    bridge.append_attribute("bridge_type") = "0-1";
    bridge.append_attribute("depth") = 0;
    add_bridge_range(bridge, parse(first.bus_id).domain, functions);
    for (const size_t i : functions) write_function(bridge, i, 1);
  }

  /// Recursion is as deep as the tree of PCI bridges, which write_hwloc_xml() limits.
  void write_function(pugi::xml_node parent, size_t i, int depth) {
    const PciDevice& device = machine_.pci[i];
    const PciAddress id = parse(device.bus_id);
    const bool bridge = device.pci_class >> 8 == 0x0604 || !children_[i].empty();
    pugi::xml_node node = add_object(parent, bridge ? "Bridge" : "PCIDev");
    pci_gp_[i] = next_gp_;
    add_gp(node);
    if (bridge) {
      node.append_attribute("bridge_type") = "1-1";
      node.append_attribute("depth") = depth;
      add_bridge_range(node, id.domain, children_[i]);
    }
    node.append_attribute("pci_busid") =
        format("%04x:%02x:%02x.%01x", id.domain, id.bus, id.device, id.function).c_str();
    node.append_attribute("pci_type") =
        format("%04x [%04x:%04x] [%04x:%04x] 00", device.pci_class >> 8, hex(device.vendor), hex(device.device),
               hex(device.subsystem_vendor), hex(device.subsystem_device))
            .c_str();
    node.append_attribute("pci_link_speed") = format("%.6f", gb_per_s(device.link)).c_str();
    add_tag(node, tags::write(device, i));
    for (const size_t child : children_[i]) write_function(node, child, depth + 1);
    for (size_t gpu = 0; gpu < machine_.gpus.size(); ++gpu) {
      if (machine_.gpus[gpu].pci == static_cast<int>(i)) write_gpu(node, gpu);
    }
    for (size_t nic = 0; nic < machine_.nics.size(); ++nic) {
      if (machine_.nics[nic].pci == static_cast<int>(i)) write_nic(node, nic);
    }
  }

  pugi::xml_node add_os_device(pugi::xml_node parent, const std::string& name, const char* subtype, int type) {
    pugi::xml_node node = add_object(parent, "OSDev");
    add_gp(node);
    node.append_attribute("name") = name.c_str();
    if (*subtype) node.append_attribute("subtype") = subtype;
    node.append_attribute("osdev_type") = type;
    return node;
  }

  void write_gpu(pugi::xml_node parent, size_t i) {
    const Gpu& gpu = machine_.gpus[i];
    const bool amd = !gpu.gcn.empty() ||
                     (gpu.pci >= 0 && machine_.pci[static_cast<size_t>(gpu.pci)].vendor == "0x1002");
    gpu_gp_[i] = next_gp_;
    pugi::xml_node node = add_os_device(parent, (amd ? "rsmi" : "nvml") + std::to_string(gpu.index),
                                        amd ? "RSMI" : "NVML", /*type=*/1);
    add_info(node, "GPUVendor", amd ? "AMD" : "NVIDIA Corporation");
    if (!gpu.name.empty()) add_info(node, "GPUModel", gpu.name);
    if (!gpu.uuid.empty()) add_info(node, amd ? "AMDUUID" : "NVIDIAUUID", gpu.uuid);
    if (gpu.memory_bytes) {
      add_info(node, amd ? "RSMIVRAMSize" : "CUDAGlobalMemorySize", std::to_string(gpu.memory_bytes / 1024));
    }
    add_tag(node, tags::write(gpu, i));
    for (const auto& link : tags::write_links(machine_.links, static_cast<int>(i))) add_tag(node, link);
  }

  void write_nic(pugi::xml_node parent, size_t i) {
    const Nic& nic = machine_.nics[i];
    pugi::xml_node node = add_os_device(parent, nic.name, "", nic.rdma ? 3 : 2);
    const bool guid = nic.guid.size() == 18 && nic.guid.starts_with("0x");
    if (guid) {
      const std::string hex_digits = nic.guid.substr(2);
      add_info(node, "NodeGUID", hex_digits.substr(0, 4) + ":" + hex_digits.substr(4, 4) + ":" +
                                     hex_digits.substr(8, 4) + ":" + hex_digits.substr(12));
    }
    if (nic.rdma) add_info(node, format("Port%dState", std::max(nic.port, 1)).c_str(), nic.active ? "4" : "1");
    add_tag(node, tags::write(nic, i));
    if (nic.rdma && !nic.interface.empty()) {
      add_info(add_os_device(parent, nic.interface, "", 2), "Port", std::to_string(nic.port));
    }
  }

  /// hwloc's own view of the links, for its other users: MB/s between GPUs, to NVSwitches and to NUMA nodes.
  void write_matrix(const char* name, LinkKind kind) {
    struct End {
      const char* type;
      unsigned long long gp;
    };
    std::vector<End> ends;
    std::map<unsigned long long, size_t> row_of;
    const auto row = [&](const char* type, unsigned long long gp) {
      const auto [found, fresh] = row_of.try_emplace(gp, ends.size());
      if (fresh) ends.push_back({type, gp});
      return found->second;
    };
    for (const unsigned long long gp : gpu_gp_) row("OSDev", gp);
    std::map<std::pair<size_t, size_t>, unsigned long long> mb_per_s;
    for (const GpuLink& link : machine_.links) {
      if (link.kind != kind || link.count <= 0) continue;
      const size_t from = row_of[gpu_gp_[static_cast<size_t>(link.gpu)]];
      unsigned long long gp = 0;
      const char* type = "OSDev";
      if (link.end == LinkEnd::gpu && link.peer >= 0) gp = gpu_gp_[static_cast<size_t>(link.peer)];
      if (link.end == LinkEnd::nvswitch) gp = gp_of_switch(link.peer_bus_id), type = "PCIDev";
      if (link.end == LinkEnd::cpu && numa_gp_.count(link.peer)) gp = numa_gp_[link.peer], type = "NUMANode";
      if (gp == 0 || gp == gpu_gp_[static_cast<size_t>(link.gpu)]) continue;
      const size_t to = row(type, gp);
      mb_per_s[{from, to}] += rate_of(link) * static_cast<unsigned>(link.count);
      if (link.end != LinkEnd::gpu) mb_per_s[{to, from}] = mb_per_s[{from, to}];
    }
    if (mb_per_s.empty() || ends.size() < 2) return;
    const bool mixed = ends.size() > gpu_gp_.size();
    std::string indexes, values;
    for (size_t i = 0; i < ends.size(); ++i) {
      indexes += (mixed ? ends[i].type + std::string(":") : "") + std::to_string(ends[i].gp) + " ";
      for (size_t k = 0; k < ends.size(); ++k) {
        const auto found = mb_per_s.find({i, k});
        // The diagonal is hwloc's own convention.
        values += std::to_string(i == k ? 1000000 : found == mb_per_s.end() ? 0 : found->second) + " ";
      }
    }
    pugi::xml_node matrix = topology_.append_child(mixed ? "distances2hetero" : "distances2");
    if (!mixed) matrix.append_attribute("type") = "OSDev";
    matrix.append_attribute("nbobjs") = static_cast<unsigned long long>(ends.size());
    matrix.append_attribute("kind") = mixed ? 25 : 9;  // from the OS, bandwidth; 16: of different types
    matrix.append_attribute("name") = name;
    if (!mixed) matrix.append_attribute("indexing") = "gp";
    add_numbers(matrix, "indexes", indexes);
    add_numbers(matrix, "u64values", values);
  }

  static void add_numbers(pugi::xml_node matrix, const char* tag, const std::string& numbers) {
    pugi::xml_node node = matrix.append_child(tag);
    node.append_attribute("length") = static_cast<unsigned long long>(numbers.size());
    node.append_child(pugi::node_pcdata).set_value(numbers.c_str());
  }

  /// What hwloc counts one link as.
  unsigned long long rate_of(const GpuLink& link) const {
    if (link.kind == LinkKind::xgmi) return 100000;
    const int sm = machine_.gpus[static_cast<size_t>(link.gpu)].sm;
    return sm == 60 ? 20000 : sm >= 100 ? 50000 : 25000;
  }

  unsigned long long gp_of_switch(const std::string& bus_id) const {
    for (size_t i = 0; i < machine_.pci.size(); ++i) {
      if (!bus_id.empty() && machine_.pci[i].bus_id == bus_id) return pci_gp_[i];
    }
    return 0;
  }

  const Machine& machine_;
  pugi::xml_document document_;
  pugi::xml_node topology_;
  Region all_;                 ///< the machine
  unsigned long long next_gp_ = 1;
  int cores_written_ = 0, packages_written_ = 0;
  std::map<int, std::vector<const Core*>> cores_of_;  ///< by package
  std::vector<int> package_order_;
  std::map<int, int> first_cpu_, package_ordinal_;    ///< by package
  std::map<int, std::set<int>> packages_of_numa_;     ///< by NUMA node
  std::map<int, size_t> cores_of_numa_;
  std::map<int, int> package_of_numa_;
  std::map<int, pugi::xml_node> region_of_numa_;
  std::map<int, unsigned long long> numa_gp_;
  std::vector<std::vector<size_t>> children_;         ///< of Machine::pci
  std::vector<unsigned long long> pci_gp_, gpu_gp_;
};

}  // namespace
}  // namespace hwloc

Result<std::string> write_hwloc_xml(const Machine& machine) {
  constexpr int kLevelsMax = 48;  // readers take 64, of which some are the machine, its packages and so on
  std::vector<int> level(machine.pci.size(), 1);
  for (size_t i = 0; i < machine.pci.size(); ++i) {
    if (machine.pci[i].parent >= 0) level[i] = level[static_cast<size_t>(machine.pci[i].parent)] + 1;
    if (level[i] > kLevelsMax) return infeasible("hwloc XML: PCI bridges are nested deeper than 48 levels");
  }
  return hwloc::Writer(machine).run();
}

}  // namespace mds::topology
