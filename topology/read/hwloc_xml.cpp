// The reader's first half: one walk over the XML finds cores, NUMA nodes, devices and matrices.
// Format: hwloc's public documentation and its hwloc.dtd/hwloc2.dtd. pugixml instead of libhwloc, because each libhwloc
// reads some versions only.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <optional>
#include <pugixml.hpp>
#include <set>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "topology/paths_pci.hpp"
#include "topology/read/hwloc_bitmap.hpp"
#include "topology/read/hwloc_numa.hpp"
#include "topology/read/hwloc_objects.hpp"
#include "topology/read/hwloc_tags.hpp"
#include "topology/read/read_machine.hpp"
#include "topology/read/xml_document.hpp"

namespace mds::topology {
namespace hwloc {
namespace {

constexpr size_t kTextBytesMax = 256 << 20;
constexpr size_t kDomBytesMax = 512 << 20;
constexpr size_t kDevicesMax = 65536;
constexpr size_t kCoresMax = 65536;
constexpr size_t kMatrixObjectsMax = 4096;
constexpr int kLevelsMax = 64;

/// Names end up in terminals, pictures and JSON.
std::string clean(const char* text) {
  std::string result(text, strnlen(text, 4096));
  for (char& c : result) c = c >= 0x20 && c < 0x7f ? c : '?';
  while (!result.empty() && result.back() == ' ') result.pop_back();
  return result;
}

/// The oldest files say the library only by the name that they give its devices: "nvml0".
const char* backend_by_name(const std::string& name) {
  constexpr std::pair<std::string_view, const char*> kNames[] = {
      {"nvml", "NVML"}, {"cuda", "CUDA"}, {"rsmi", "RSMI"}, {"opencl", "OpenCL"}};
  for (const auto& [prefix, backend] : kNames) {
    if (name.starts_with(prefix)) return backend;
  }
  return "";
}

/// Where in the tree the walk is.
struct Place {
  const Bitmap* cpus = nullptr;  ///< of the nearest object with CPUs
  int package = -1, core = -1, pci = -1;
};

class Scanner {
 public:
  explicit Scanner(const XmlDocument& xml) : xml_(xml) {}

  Result<Scan> run(const std::string& host) {
    const pugi::xml_node topology = xml_.root();
    version_ = std::max(1, topology.attribute("version").as_int(1));
    pugi::xml_node root = topology.child("object");
    if (!root) fail(topology, "<topology> without an <object>");
    else allow(root);
    infos_ = infos_of(root);
    for (auto& more : infos_of(topology)) infos_.push_back(std::move(more));  // 3.x has them there
    if (!error_) walk(root, {});
    if (!error_) finish_machine(root, host);
    if (!error_) resolve_places();
    for (pugi::xml_node child = topology.first_child(); child && !error_; child = child.next_sibling()) {
      const std::string_view tag = child.name();
      if (tag == "distances2" || tag == "distances2hetero") read_matrix(child, tag == "distances2hetero");
    }
    if (error_) return *error_;
    return std::move(scan_);
  }

 private:
  void fail(const pugi::xml_node& node, const std::string& problem) {
    if (!error_) error_ = xml_.error(node, problem);
  }

  std::optional<Bitmap> set_of(const pugi::xml_node& object, const char* attribute) {
    const pugi::xml_attribute value = object.attribute(attribute);
    if (!value) return std::nullopt;
    auto bitmap = Bitmap::parse(value.value());
    if (!bitmap) fail(object, std::string(attribute) + "=\"" + clean(value.value()).substr(0, 80) + "\" is no set");
    return bitmap;
  }

  int index_of(const pugi::xml_node& object, const char* attribute) {
    const long long index = object.attribute(attribute).as_llong(-1);
    if (index < 0 || index >= static_cast<long long>(Bitmap::kBitsMax)) {
      fail(object, std::string("<object type=\"") + clean(object.attribute("type").value()) + "\"> needs " + attribute +
                       " from 0 to " + std::to_string(Bitmap::kBitsMax - 1));
      return 0;
    }
    return static_cast<int>(index);
  }

  /// 3.x has id="obj17" beside gp_index="17".
  static uint64_t gp_index(const pugi::xml_node& object) {
    const std::string_view id = object.attribute("id").value();
    if (const pugi::xml_attribute gp = object.attribute("gp_index")) return gp.as_ullong();
    return id.starts_with("obj") ? std::strtoull(id.data() + 3, nullptr, 10) : 0;
  }

  static Infos infos_of(const pugi::xml_node& object) {
    Infos infos;
    for (const pugi::xml_node child : object.children("info")) {
      infos.emplace_back(clean(child.attribute("name").value()), clean(child.attribute("value").value()));
    }
    return infos;
  }

  /// What a cgroup left over. 1.x says beside that which CPUs are online.
  void allow(const pugi::xml_node& root) {
    allowed_cpus_ = set_of(root, "allowed_cpuset");
    online_cpus_ = set_of(root, "online_cpuset");
    allowed_nodes_ = set_of(root, "allowed_nodeset");
  }

  bool cpu_allowed(int cpu) const {
    const auto bit = static_cast<size_t>(cpu);
    return (!allowed_cpus_ || allowed_cpus_->has(bit)) && (!online_cpus_ || online_cpus_->has(bit));
  }

  void walk(const pugi::xml_node& object, Place place) {
    const std::string_view type = object.attribute("type").value();
    if (type == "Bridge" || type == "PCIDev") {
      enter_pci(object, type, place);
    } else if (type == "OSDev") {
      add_os_device(object, place);
    } else if (type != "Misc") {
      enter_normal(object, type, place);
    }
    for (pugi::xml_node child = object.child("object"); child && !error_; child = child.next_sibling("object")) {
      walk(child, place);
    }
  }

  void enter_normal(const pugi::xml_node& object, std::string_view type, Place& place) {
    if (const auto cpus = set_of(object, "cpuset"); cpus && !cpus->empty()) {
      place.cpus = &sets_.emplace_back(*cpus);
      if (const uint64_t gp = gp_index(object)) set_of_gp_[gp] = place.cpus;
    }
    if (type == "Package" || type == "Socket") {
      const Infos infos = infos_of(object);
      if (tags::is_placeholder(infos)) {
        placeholder_package_ = true;
      } else {
        place.package = static_cast<int>(scan_.machine.packages.size());
        add_package(infos);
      }
    } else if (type == "NUMANode" || type == "Node") {
      add_numa(object, place);
    } else if (type == "Core") {
      place.core = add_core(object, place);
    } else if (type == "PU" || type == "Proc") {
      add_pu(object, place);
    }
  }

  void add_package(const Infos& infos) {
    Package package;
    package.index = static_cast<int>(scan_.machine.packages.size());
    package.vendor = info(infos, "CPUVendor");
    package.family = std::clamp(std::atoi(info(infos, "CPUFamilyNumber").c_str()), 0, 1 << 20);
    package.model = std::clamp(std::atoi(info(infos, "CPUModelNumber").c_str()), 0, 1 << 20);
    if (package.vendor == "GenuineIntel" || package.vendor == "AuthenticAMD") package.arch = "x86_64";
    if (info(infos, "CPUModel").starts_with("POWER")) package.arch = "ppc64le";
    if (const std::string& arch = info(infos_, "Architecture"); !arch.empty()) {
      package.arch = arch == "aarch64" ? "arm64" : arch;
    }
    tags::read(infos, package);
    scan_.machine.packages.push_back(std::move(package));
  }

  void add_numa(const pugi::xml_node& object, const Place& place) {
    const Infos infos = infos_of(object);
    const std::string subtype = clean(object.attribute("subtype").value());
    if (tags::is_placeholder(infos)) return;
    NumaObject numa;
    numa.node.os_index = index_of(object, "os_index");
    numa.node.package = place.package;
    numa.node.memory_bytes = object.attribute("local_memory").as_ullong();
    tags::read(infos, numa.node);
    numa.cpus = set_of(object, "cpuset").value_or(Bitmap{});
    numa.allowed = !allowed_nodes_ || allowed_nodes_->has(static_cast<size_t>(numa.node.os_index));
    numa.gpu_memory = subtype == "GPUMemory" || !info(infos, "PCIBusID").empty();
    numa.rank = (subtype.empty() || subtype == "DRAM" ? 0 : 1) + (numa.node.memory_bytes == 0 ? 2 : 0);
    if (!numa_.add(std::move(numa))) fail(object, "a NUMA node that was there already, or the 1025th");
  }

  int add_core(const pugi::xml_node& object, const Place& place) {
    if (cores_.size() >= kCoresMax) return fail(object, "more than 65536 cores"), -1;
    Core core{static_cast<int>(cores_.size()), place.package, -1, {}};
    if (const auto nodes = set_of(object, "nodeset"); nodes && !nodes->empty()) {
      core.numa = static_cast<int>(std::min(nodes->first(), Bitmap::kBitsMax - 1));
    }
    if (tags::read(infos_of(object), core)) tagged_numa_.insert(core.index);
    cores_.push_back(std::move(core));
    return static_cast<int>(cores_.size()) - 1;
  }

  /// A PU outside of any core (some virtual machines tell of no cores) is one.
  void add_pu(const pugi::xml_node& object, const Place& place) {
    const int cpu = index_of(object, "os_index");
    const int core = place.core >= 0 ? place.core : add_core(object, place);
    if (error_) return;
    if (!cpus_.insert(cpu).second) return fail(object, "PU " + std::to_string(cpu) + " is listed twice");
    if (!tags::is_placeholder(infos_of(object))) cores_[static_cast<size_t>(core)].cpus.push_back(cpu);
  }

  void enter_pci(const pugi::xml_node& object, std::string_view type, Place& place) {
    const std::string_view ends = object.attribute("bridge_type").value();
    if (type == "Bridge" && (ends.starts_with("0-") || !object.attribute("pci_busid"))) {
      place.pci = -1;  // a host bridge is no function: what is below hangs on the NUMA node itself
      return;
    }
    if (scan_.pci.size() >= kDevicesMax) return fail(object, "more than 65536 PCI devices");
    const char* const bus_id = object.attribute("pci_busid").value();
    if (!parse_bus_id(bus_id)) {
      return fail(object, "pci_busid=\"" + clean(bus_id).substr(0, 80) + "\" is not like \"0000:3b:00.0\"");
    }
    PciFunction pci;
    pci.device.bus_id = normal_bus_id(bus_id);
    pci.device.parent = place.pci;
    pci.device.link = pci_link_of(object.attribute("pci_link_speed").as_double());
    read_pci_type(object.attribute("pci_type").value(), pci.device);
    pci.gp_index = gp_index(object);
    pci.infos = infos_of(object);
    place.pci = pci.index = static_cast<int>(scan_.pci.size());
    if (pci.gp_index) pci_of_gp_[pci.gp_index] = place.pci;
    places_of_pci_.push_back(place.cpus);
    scan_.pci.push_back(std::move(pci));
  }

  /// "0302 [10de:2335] [10de:18bf] a1", since 3.0 with the programming interface behind.
  static void read_pci_type(const char* text, PciDevice& device) {
    unsigned kind = 0, ids[4] = {}, revision = 0, interface = 0;
    const int found = std::sscanf(text, "%4x [%4x:%4x] [%4x:%4x] %2x %2x", &kind, &ids[0], &ids[1], &ids[2], &ids[3],
                                  &revision, &interface);
    if (found < 5) return;
    device.pci_class = (kind & 0xffff) << 8 | (found == 7 ? interface & 0xff : 0);  // scanf takes "-1", too
    std::string* const names[] = {&device.vendor, &device.device, &device.subsystem_vendor, &device.subsystem_device};
    for (int i = 0; i < 4; ++i) {
      char id[16];
      std::snprintf(id, sizeof id, "0x%04x", ids[i] & 0xffff);
      *names[i] = id;
    }
  }

  void add_os_device(const pugi::xml_node& object, const Place& place) {
    if (scan_.os.size() >= kDevicesMax) return fail(object, "more than 65536 OS devices");
    OsDevice os;
    os.name = clean(object.attribute("name").value());
    os.infos = infos_of(object);
    os.gp_index = gp_index(object);
    os.pci = place.pci;
    const auto kinds = static_cast<unsigned>(object.attribute("osdev_type").as_uint());
    constexpr unsigned kEnumeration[] = {kStorage, kGpu, kNetwork, kOpenFabrics, 0, kCoprocessor};  // 1.x and 2.x
    os.kinds = version_ >= 3 ? kinds : kinds < std::size(kEnumeration) ? kEnumeration[kinds] : 0;
    // 1.x has no subtypes but says it in an info.
    os.backend = clean(object.attribute("subtype").value());
    for (const char* name : {"CoProcType", "Backend"}) {
      if (os.backend.empty()) os.backend = info(os.infos, name);
    }
    if (os.backend.empty()) os.backend = backend_by_name(os.name);
    if (os.gp_index) os_of_gp_[os.gp_index] = static_cast<int>(scan_.os.size());
    places_of_os_.push_back(place.cpus);
    scan_.os.push_back(std::move(os));
  }

  void finish_machine(const pugi::xml_node& root, const std::string& host) {
    Machine& machine = scan_.machine;
    const std::string& name = info(infos_, "HostName");
    machine.host = name.empty() ? host : name;
    if (machine.packages.empty() && !placeholder_package_ && !cores_.empty()) add_package(infos_);
    if (numa_.empty() && root.attribute("local_memory")) {  // 1.x leaves out a NUMA node that is the only one
      NumaObject only;
      only.node.memory_bytes = root.attribute("local_memory").as_ullong();
      only.cpus = set_of(root, "cpuset").value_or(Bitmap{});
      numa_.add(std::move(only));
    }
    keep_cores();
    keep_numa();
    std::stable_sort(machine.packages.begin(), machine.packages.end(),
                     [](const Package& a, const Package& b) { return a.index < b.index; });
  }

  void keep_cores() {
    Machine& machine = scan_.machine;
    size_t seen = 0;
    for (Core& core : cores_) {
      if (core.cpus.empty()) continue;
      ++seen;
      if (core.package < 0) core.package = 0;
      std::sort(core.cpus.begin(), core.cpus.end());
      const int numa = numa_.of_cpu(core.cpus.front());
      if (core.numa < 0 || (numa >= 0 && !tagged_numa_.count(core.index))) core.numa = std::max(numa, 0);
      std::erase_if(core.cpus, [&](int cpu) { return !cpu_allowed(cpu); });
      if (!core.cpus.empty()) machine.cores.push_back(core);
    }
    std::stable_sort(machine.cores.begin(), machine.cores.end(),
                     [](const Core& a, const Core& b) { return a.index < b.index; });
    if (machine.cores.size() < seen) {
      machine.notes.push_back("the recorded cpuset leaves " + std::to_string(machine.cores.size()) + " of " +
                              std::to_string(seen) + " cores");
    }
  }

  void keep_numa() {
    Machine& machine = scan_.machine;
    size_t seen = 0;
    for (NumaObject& numa : numa_.all()) {
      if (numa.gpu_memory) {
        machine.notes.push_back("NUMA node " + std::to_string(numa.node.os_index) + " is left out: a GPU's memory");
        continue;
      }
      ++seen;
      if (numa.node.package < 0) numa.node.package = package_of(numa.cpus);
      if (numa.allowed) machine.numa.push_back(numa.node);
    }
    std::sort(machine.numa.begin(), machine.numa.end(),
              [](const NumaNode& a, const NumaNode& b) { return a.os_index < b.os_index; });
    if (machine.numa.size() < seen) {
      machine.notes.push_back("the recorded cpuset leaves " + std::to_string(machine.numa.size()) + " of " +
                              std::to_string(seen) + " NUMA nodes");
    }
  }

  /// The package of the node's first core: 1.x has NUMA nodes above packages, too.
  int package_of(const Bitmap& cpus) const {
    for (const Core& core : cores_) {
      if (!core.cpus.empty() && cpus.has(static_cast<size_t>(core.cpus.front()))) return std::max(core.package, 0);
    }
    return 0;
  }

  int numa_of_place(const Bitmap* cpus) {
    return cpus ? numa_.of_place(*cpus, sets_.front(), scan_.machine.notes) : -1;
  }

  void resolve_places() {
    for (size_t i = 0; i < scan_.pci.size(); ++i) {
      PciDevice& device = scan_.pci[i].device;
      const int parent = device.parent;
      device.numa = parent >= 0 ? scan_.pci[static_cast<size_t>(parent)].device.numa
                                : numa_of_place(places_of_pci_[i]);
      tags::read(scan_.pci[i].infos, device);
    }
    for (size_t i = 0; i < scan_.os.size(); ++i) {
      OsDevice& os = scan_.os[i];
      os.numa = os.pci >= 0 ? scan_.pci[static_cast<size_t>(os.pci)].device.numa : numa_of_place(places_of_os_[i]);
    }
  }

  MatrixObject matrix_object(std::string_view type, uint64_t index, bool os_index) {
    using Kind = MatrixObject::Kind;
    if (os_index) return {type == "NUMANode" ? Kind::cpu : Kind::none, static_cast<int>(index & 0xfffff)};
    if (const auto os = os_of_gp_.find(index); os != os_of_gp_.end()) return {Kind::os, os->second};
    if (const auto pci = pci_of_gp_.find(index); pci != pci_of_gp_.end()) return {Kind::pci, pci->second};
    const auto set = set_of_gp_.find(index);
    return set == set_of_gp_.end() ? MatrixObject{} : MatrixObject{Kind::cpu, numa_of_place(set->second)};
  }

  /// <indexes>1142 1143 </indexes> or, of different types, <indexes>OSDev:332 Package:3 </indexes>; then <u64values>.
  void read_matrix(const pugi::xml_node& node, bool mixed) {
    Matrix matrix;
    matrix.name = clean(node.attribute("name").value());
    if (matrix.name != "NVLinkBandwidth" && matrix.name != "XGMIBandwidth" && matrix.name != "XGMIHops") return;
    const std::string type = node.attribute("type").value();
    const bool os_index = !mixed && std::string_view(node.attribute("indexing").value()) == "os";
    const size_t size = node.attribute("nbobjs").as_uint();
    for (const pugi::xml_node child : node.children()) {
      std::istringstream words(child.text().get());
      const std::string_view tag = child.name();
      for (std::string word; words >> word && !error_;) {
        const size_t colon = word.find(':');
        const char* const number = word.c_str() + (colon == std::string::npos ? 0 : colon + 1);
        const uint64_t value = std::strtoull(number, nullptr, 10);
        if (tag == "indexes") {
          matrix.objects.push_back(matrix_object(mixed ? word.substr(0, colon) : type, value, os_index));
        } else if (tag == "u64values") {
          matrix.values.push_back(value);
        }
      }
    }
    if (size > kMatrixObjectsMax || matrix.objects.size() != size || matrix.values.size() != size * size) {
      return fail(node, matrix.name + " has " + std::to_string(matrix.objects.size()) + " indexes and " +
                            std::to_string(matrix.values.size()) + " values for nbobjs=\"" + std::to_string(size) +
                            "\"");
    }
    scan_.matrices.push_back(std::move(matrix));
  }

  const XmlDocument& xml_;
  int version_ = 1;
  std::optional<Error> error_;
  Scan scan_;
  Infos infos_;                ///< of the machine
  bool placeholder_package_ = false;
  std::optional<Bitmap> allowed_cpus_, online_cpus_, allowed_nodes_;
  std::deque<Bitmap> sets_;    ///< Place::cpus points into it; the machine's first
  NumaNodes numa_;
  std::vector<Core> cores_;
  std::set<int> cpus_;
  std::vector<const Bitmap*> places_of_pci_, places_of_os_;
  std::set<int> tagged_numa_;  ///< indices of cores whose NUMA node was written by us
  std::unordered_map<uint64_t, const Bitmap*> set_of_gp_;
  std::unordered_map<uint64_t, int> os_of_gp_, pci_of_gp_;
};

/// What the parsed document would take: pugixml needs some 64 bytes an element and 40 an attribute.
bool too_large(std::string_view text) {
  const auto elements = static_cast<size_t>(std::count(text.begin(), text.end(), '<'));
  const auto attributes = static_cast<size_t>(std::count(text.begin(), text.end(), '='));
  return elements * 64 + attributes * 40 > kDomBytesMax;
}

}  // namespace

const std::string& info(const Infos& infos, std::string_view name) {
  static const std::string none;
  const auto found = std::find_if(infos.begin(), infos.end(), [&](const auto& i) { return i.first == name; });
  return found == infos.end() ? none : found->second;
}

Result<Scan> scan_xml(std::string_view text, const std::string& host) {
  if (too_large(text)) return bad_input("is larger than any topology");
  auto xml = XmlDocument::parse(text, kTextBytesMax, kLevelsMax);
  if (!xml) return xml.error().within("lstopo FILE.xml writes what is expected here");
  if (std::string_view(xml->root().name()) != "topology") return xml->error(xml->root(), "expected <topology>");
  return Scanner(*xml).run(host);
}

}  // namespace hwloc

Result<Machine> read_hwloc_xml(std::string_view text, const std::string& host) {
  auto scan = hwloc::scan_xml(text, host);
  if (!scan) return scan.error().within("hwloc XML");
  const std::vector<int> gpu_of_pci = hwloc::add_gpus(*scan);
  hwloc::add_nics(*scan);
  if (const Status size = check_size(scan->machine); !size) return size.error().within("hwloc XML");
  hwloc::add_links(*scan, gpu_of_pci);
  hwloc::add_pci(*scan);
  return std::move(scan->machine);
}

}  // namespace mds::topology
