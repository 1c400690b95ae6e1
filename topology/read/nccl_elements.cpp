#include "topology/read/nccl_elements.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "topology/paths.hpp"
#include "topology/paths_pci.hpp"
#include "topology/read/gpus_pci_ids.hpp"

namespace mds::topology {
namespace {

constexpr size_t kDevicesMax = 65536;

bool is_element(pugi::xml_node node, const char* name) { return std::strcmp(node.name(), name) == 0; }

uint32_t pci_class(NcclAttributes& pci) {
  const std::string text = pci.text("class");
  // "0x0302" and "0x03" happen: the class counts from the left, as NCCL compares it.
  uint32_t number = static_cast<uint32_t>(std::strtoul(text.c_str(), nullptr, 16));
  for (size_t digits = text.size() >= 2 ? text.size() - 2 : 6; digits < 6; digits += 2) number <<= 8;
  return number & 0xffffff;
}

/// Reads one <cpu> and its tree. `parent` is an index into Machine::pci, -1 at the root.
class CpuReader {
 public:
  CpuReader(const XmlDocument& xml, NcclHost& host) : xml_(xml), host_(host), machine_(host.machine) {}

  Status read(pugi::xml_node cpu) {
    NcclAttributes attributes(xml_, cpu);
    numa_ = static_cast<int>(attributes.number("numaid", -1, -1, kCpusMax));
    Package package;
    package.index =
        static_cast<int>(attributes.number("package", static_cast<int64_t>(host_.numa.size()), 0, kCpusMax));
    package.arch = attributes.text("arch");
    package.vendor = attributes.text("vendor");
    package.family = static_cast<int>(attributes.number("familyid", 0, 0, 1 << 20));
    package.model = static_cast<int>(attributes.number("modelid", 0, 0, 1 << 20));
    // NCCL adds the extended family shifted by four bits; the manuals add it as it is.
    if (package.family >= 31 && package.family % 16 == 15) package.family = 15 + package.family / 16;
    NumaCpus cpus{numa_, package.index, {}, package.arch, {}};
    cpus.siblings.threads = static_cast<int>(attributes.number("smt_threads", 0, 0, 64));
    cpus.siblings.stride = static_cast<int>(attributes.number("smt_stride", 1, 1, kCpusMax));
    const std::string mask = cpu.attribute("affinity").value();
    const auto offset = attributes.number("affinity_offset", 0, 0, kCpusMax);
    const auto memory = static_cast<uint64_t>(attributes.number("memory", 0, 0, INT64_MAX));
    if (attributes.error()) return *attributes.error();
    auto known = cpus_of_mask(mask, static_cast<int>(offset));
    if (!known) return xml_.error(cpu, known.error().message);
    cpus.cpus = *std::move(known);

    const auto same = [&](const Package& p) { return p.index == package.index; };
    if (std::none_of(machine_.packages.begin(), machine_.packages.end(), same)) machine_.packages.push_back(package);
    const auto same_numa = [&](const NumaNode& node) { return node.os_index == numa_; };
    if (numa_ >= 0 && std::none_of(machine_.numa.begin(), machine_.numa.end(), same_numa)) {
      machine_.numa.push_back({numa_, package.index, memory});
    }
    host_.numa.push_back(std::move(cpus));
    for (const auto child : cpu.children()) {
      Status read = is_element(child, "pci")   ? read_pci(child, -1)
                    : is_element(child, "nic") ? read_nic(child, -1)
                                               : refuse_misplaced(child, "<cpu>");
      if (!read) return read;
    }
    return {};
  }

 private:
  /// Elements that we know, where they make no sense; others are of a newer NCCL and skipped, as NCCL does.
  Status refuse_misplaced(pugi::xml_node node, const char* inside) {
    for (const char* name : {"system", "cpu", "pci", "gpu", "nic", "net", "nvlink", "xgmi", "c2c"}) {
      if (is_element(node, name)) {
        return xml_.error(node, std::string("<") + name + "> does not belong into " + inside);
      }
    }
    return {};
  }

  Status read_pci(pugi::xml_node node, int parent) {
    if (machine_.pci.size() >= kDevicesMax) return xml_.error(node, "more than 65536 PCI devices");
    NcclAttributes attributes(xml_, node);
    PciDevice device;
    device.bus_id = normal_bus_id(attributes.text("busid"));
    if (device.bus_id.empty()) attributes.fail("<pci> without busid");
    if (!parse_bus_id(device.bus_id)) attributes.fail("busid=\"" + device.bus_id + "\" is not like \"0000:3b:00.0\"");
    device.parent = parent;
    device.numa = numa_;
    device.pci_class = pci_class(attributes);
    device.vendor = attributes.text("vendor");
    device.device = attributes.text("device");
    device.subsystem_vendor = attributes.text("subsystem_vendor");
    device.subsystem_device = attributes.text("subsystem_device");
    device.link = {attributes.gtps("link_speed"), static_cast<int>(attributes.number("link_width", 0, 0, 64))};
    if (attributes.error()) return *attributes.error();
    const int index = static_cast<int>(machine_.pci.size());
    machine_.pci.push_back(device);

    bool leaf = true;
    for (const auto child : node.children()) {
      if (child.type() == pugi::node_element) leaf = false;
      Status read = is_element(child, "pci")   ? read_pci(child, index)
                    : is_element(child, "gpu") ? read_gpu(child, index)
                    : is_element(child, "nic") ? read_nic(child, index)
                                               : refuse_misplaced(child, "<pci>");
      if (!read) return read;
      if (is_element(child, "pcilink")) {
        machine_.notes.push_back("a second PCI path (pcilink) of " + device.bus_id + " was left out");
      }
    }
    if (leaf) read_by_class(device, index);
    return {};
  }

  /// Device-only files: what is a GPU or a NIC shows by its class alone.
  void read_by_class(const PciDevice& device, int index) {
    if (shows_gpu(device.pci_class, device.vendor)) {
      Gpu gpu;
      gpu.bus_id = device.bus_id;
      gpu.numa = numa_;
      gpu.pci = index;
      const GpuChip chip = gpu_chip(device.vendor, device.device);
      gpu.sm = chip.sm;
      gpu.gcn = chip.gcn;
      gpu.name = chip.product;
      gpu.memory_bytes = chip.memory_bytes;
      machine_.gpus.push_back(std::move(gpu));
      host_.gpu_devs.push_back(-1);
    } else if (device.pci_class >> 16 == 0x02) {
      Nic nic;
      nic.bus_id = device.bus_id;
      nic.numa = numa_;
      nic.pci = index;
      nic.rdma = nic.gdr = true;  // such files list what NCCL is to use
      add_nic(std::move(nic), -1, false);
    }
  }

  Status read_gpu(pugi::xml_node node, int pci) {
    NcclAttributes attributes(xml_, node);
    const PciDevice& device = machine_.pci[static_cast<size_t>(pci)];
    Gpu gpu;
    gpu.bus_id = device.bus_id;
    gpu.numa = numa_;
    gpu.pci = pci;
    gpu.gcn = attributes.text("gcn");
    if (!gpu.gcn.empty() && !gpu.gcn.starts_with("gfx")) gpu.gcn = gpu.gcn == "910" ? "gfx90a" : "gfx" + gpu.gcn;
    // RCCL writes the number of compute units there.
    const auto sm = static_cast<int>(attributes.number("sm", 0, 0, 10000));
    const GpuChip chip = gpu_chip(device.vendor, device.device);
    if (gpu.gcn.empty()) gpu.sm = sm != 0 ? sm : chip.sm;
    gpu.gdr = attributes.flag("gdr", true);
    gpu.uuid = attributes.text("uuid");
    gpu.name = attributes.has("name") ? attributes.text("name") : std::string(chip.product);
    gpu.memory_bytes =
        static_cast<uint64_t>(attributes.number("memory", static_cast<int64_t>(chip.memory_bytes), 0, INT64_MAX));
    gpu.nvlink_domain = attributes.text("nvlink_domain");
    const auto dev = static_cast<int>(attributes.number("dev", -1, -1, kCpusMax));
    if (attributes.error()) return *attributes.error();
    const int index = static_cast<int>(machine_.gpus.size());
    for (const auto child : node.children()) {
      const bool link = is_element(child, "nvlink") || is_element(child, "xgmi") || is_element(child, "c2c");
      if (const Status read = link ? read_link(child, gpu, index) : refuse_misplaced(child, "<gpu>"); !read)
        return read;
    }
    machine_.gpus.push_back(std::move(gpu));
    host_.gpu_devs.push_back(dev);
    return {};
  }

  Status read_link(pugi::xml_node node, const Gpu& gpu, int index) {
    if (machine_.links.size() >= kDevicesMax) return xml_.error(node, "more than 65536 links between GPUs");
    NcclAttributes attributes(xml_, node);
    GpuLink link;
    link.gpu = index;
    link.count = static_cast<int>(attributes.number("count", 0, 0, 1 << 20));
    if (is_element(node, "c2c")) {
      link.kind = LinkKind::c2c;
      link.end = LinkEnd::cpu;
      link.peer = numa_;
      link.gb_per_s_each = static_cast<double>(attributes.number("bw", 0, 0, int64_t{1} << 40)) / 1000;
    } else {
      link.kind = is_element(node, "xgmi") ? LinkKind::xgmi : LinkKind::nvlink;
      link.gb_per_s_each = link.kind == LinkKind::xgmi ? xgmi_gb_per_s(gpu.gcn) : nvlink_gb_per_s(gpu.sm);
      link.peer_bus_id = normal_bus_id(attributes.text("target"));
      const std::string target = attributes.text("tclass");
      if (target.starts_with("0x068001")) {  // an NVLink bridge of POWER processors
        link.end = LinkEnd::cpu;
        link.peer = numa_;
      } else if (!target.empty() && !target.starts_with("0x03") && !target.starts_with("0x12")) {
        link.end = LinkEnd::nvswitch;
      }
    }
    if (attributes.error()) return *attributes.error();
    machine_.links.push_back(std::move(link));
    host_.classless.push_back(!attributes.has("tclass"));
    return {};
  }

  Status read_nic(pugi::xml_node node, int pci) {
    for (const auto child : node.children()) {
      if (!is_element(child, "net")) {
        if (const Status ok = refuse_misplaced(child, "<nic>"); !ok) return ok;
        continue;
      }
      if (machine_.nics.size() >= kDevicesMax) return xml_.error(child, "more than 65536 network ports");
      NcclAttributes attributes(xml_, child);
      Nic nic;
      nic.name = attributes.text("name");
      if (pci >= 0) nic.bus_id = machine_.pci[static_cast<size_t>(pci)].bus_id;
      nic.numa = numa_;
      nic.pci = pci;
      nic.port = static_cast<int>(attributes.number("port", 1, 0, 1 << 16));
      nic.guid = attributes.text("guid");
      nic.gdr = attributes.flag("gdr", false);
      nic.rdma = attributes.flag("rdma", nic.gdr || (!nic.guid.empty() && std::strtoull(nic.guid.c_str(), nullptr, 0)));
      nic.interface = attributes.text("interface");
      auto mbps = attributes.number("speed", 0, -1, int64_t{1} << 40);
      if (attributes.has("speed") && mbps <= 0) {
        machine_.notes.push_back("the speed of " + nic.name + " is not known; NCCL takes it for 10 Gbit/s");
        mbps = 10000;
      }
      nic.gbps = static_cast<double>(mbps) / 1000;
      const auto dev = static_cast<int>(attributes.number("dev", -1, -1, kCpusMax));
      const bool fused = nic.name.find('+') != std::string::npos;
      if (attributes.error()) return *attributes.error();
      add_nic(std::move(nic), dev, fused);
    }
    return {};
  }

  void add_nic(Nic nic, int dev, bool fused) {
    machine_.nics.push_back(std::move(nic));
    host_.net_devs.push_back(dev);
    host_.fused.push_back(fused);
  }

  const XmlDocument& xml_;
  NcclHost& host_;
  Machine& machine_;
  int numa_ = -1;
};

/// Old index -> new index, so that what has a "dev" goes by it and the rest fills the gaps in the order of bus ids.
std::vector<int> driver_order(const NcclHost& host, std::vector<int>& numbers) {
  const auto& gpus = host.machine.gpus;
  std::vector<size_t> order(gpus.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return gpus[a].bus_id < gpus[b].bus_id; });
  numbers = host.gpu_devs;
  std::vector<int> used = numbers;
  std::sort(used.begin(), used.end());
  int next = 0;
  for (const size_t gpu : order) {
    if (numbers[gpu] >= 0) continue;
    while (std::binary_search(used.begin(), used.end(), next)) ++next;
    numbers[gpu] = next++;
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return numbers[a] < numbers[b]; });
  std::vector<int> place(gpus.size());
  for (size_t i = 0; i < order.size(); ++i) place[order[i]] = static_cast<int>(i);
  return place;
}

template <typename T>
void reorder(std::vector<T>& values, const std::vector<int>& place) {
  std::vector<T> sorted(values.size());
  for (size_t i = 0; i < values.size(); ++i) sorted[static_cast<size_t>(place[i])] = std::move(values[i]);
  values = std::move(sorted);
}

void order_gpus(NcclHost& host) {
  Machine& machine = host.machine;
  std::vector<int> numbers;
  const std::vector<int> place = driver_order(host, numbers);
  for (size_t i = 0; i < machine.gpus.size(); ++i) machine.gpus[i].index = numbers[i];
  reorder(machine.gpus, place);
  for (GpuLink& link : machine.links) {
    link.gpu = place[static_cast<size_t>(link.gpu)];
    if (link.end == LinkEnd::gpu && link.peer >= 0) link.peer = place[static_cast<size_t>(link.peer)];
  }
  std::stable_sort(machine.links.begin(), machine.links.end(),
                   [](const GpuLink& a, const GpuLink& b) { return a.gpu < b.gpu; });
}

/// A link that does not say what it leads to, and leads to no GPU that we know: NCCL takes that for a switch, too.
void connect_links(NcclHost& host) {
  Machine& machine = host.machine;
  std::vector<std::pair<std::string, int>> by_bus_id;
  for (size_t i = 0; i < machine.gpus.size(); ++i) by_bus_id.emplace_back(machine.gpus[i].bus_id, static_cast<int>(i));
  std::sort(by_bus_id.begin(), by_bus_id.end());
  for (size_t i = 0; i < machine.links.size(); ++i) {
    GpuLink& link = machine.links[i];
    if (link.end != LinkEnd::gpu) continue;
    const auto found = std::lower_bound(by_bus_id.begin(), by_bus_id.end(), std::pair{link.peer_bus_id, -1});
    if (found != by_bus_id.end() && found->first == link.peer_bus_id) {
      link.peer = found->second;
    } else if (host.classless[i] && link.kind != LinkKind::c2c) {
      link.end = LinkEnd::nvswitch;
    }
  }
}

/// NCCL joins NICs into faster ones and lists both. What there is are the physical ones.
void leave_out_fused(NcclHost& host) {
  Machine& machine = host.machine;
  const auto physical = [&](std::string_view name) {
    for (size_t i = 0; i < machine.nics.size(); ++i) {
      if (!host.fused[i] && machine.nics[i].name == name) return true;
    }
    return false;
  };
  std::vector<Nic> kept;
  std::vector<int> devs;
  for (size_t i = 0; i < machine.nics.size(); ++i) {
    const Nic& nic = machine.nics[i];
    if (host.fused[i] && physical(std::string_view(nic.name).substr(0, nic.name.find('+')))) {
      machine.notes.push_back("left out " + nic.name + ", which NCCL made of the ports that are listed");
      continue;
    }
    kept.push_back(nic);
    devs.push_back(host.net_devs[i]);
  }
  machine.nics = std::move(kept);
  host.net_devs = std::move(devs);
}

void order_nics(NcclHost& host) {
  auto& nics = host.machine.nics;
  if (std::any_of(host.net_devs.begin(), host.net_devs.end(), [](int dev) { return dev < 0; })) return;
  std::vector<size_t> order(nics.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return host.net_devs[a] < host.net_devs[b]; });
  std::vector<int> place(nics.size());
  for (size_t i = 0; i < order.size(); ++i) place[order[i]] = static_cast<int>(i);
  reorder(nics, place);
}

/// A machine without NUMA: NCCL saw its CPUs, and node -1 is the only place that there is.
void use_only_node(NcclHost& host) {
  host.numa.front().numa = 0;
  host.machine.numa.push_back({0, host.numa.front().package, 0});
  for (Gpu& gpu : host.machine.gpus) gpu.numa = 0;
  for (Nic& nic : host.machine.nics) nic.numa = 0;
  for (PciDevice& device : host.machine.pci) device.numa = 0;
}

}  // namespace

std::string NcclAttributes::text(const char* name) {
  const std::string_view value = node_.attribute(name).value();
  const bool printable = std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  if (!printable || value.size() > 255) {
    fail(std::string(name) + " is not at most 255 characters of printable ASCII");
    return {};
  }
  return std::string(value);
}

int64_t NcclAttributes::number(const char* name, int64_t fallback, int64_t min, int64_t max) {
  const std::string value = text(name);
  if (value.empty()) return fallback;
  char* end = nullptr;
  errno = 0;
  const double real = std::strtod(value.c_str(), &end);  // NCCL itself writes whole numbers as floats here and there
  const bool whole = value.find_first_not_of("0123456789-", value[0] == '-' ? 1 : 0) == std::string::npos;
  if (end == value.c_str() || *end != '\0' || !(real == real)) {
    fail(std::string(name) + "=\"" + value.substr(0, 40) + "\" is not a number");
    return fallback;
  }
  if (whole && errno == 0) {
    const int64_t exact = std::strtoll(value.c_str(), nullptr, 10);
    if (errno == 0) return std::clamp(exact, min, max);
  }
  if (real >= static_cast<double>(max)) return max;
  if (real <= static_cast<double>(min)) return min;
  return static_cast<int64_t>(real);
}

double NcclAttributes::gtps(const char* name) {
  const std::string value = text(name);
  double number = 0;
  std::from_chars(value.data(), value.data() + value.size(), number);
  return number > 0 && number < 10000 ? number : 0;
}

void NcclAttributes::fail(const std::string& problem) {
  if (!error_) error_ = xml_.error(node_, problem);
}

Status read_nccl_cpu(const XmlDocument& xml, pugi::xml_node cpu, NcclHost& host) {
  return CpuReader(xml, host).read(cpu);
}

Machine finish(NcclHost host) {
  leave_out_fused(host);
  order_nics(host);
  connect_links(host);
  order_gpus(host);
  Machine& machine = host.machine;
  if (host.numa.size() == 1 && host.numa.front().numa < 0 && !host.numa.front().cpus.empty()) use_only_node(host);
  std::stable_sort(machine.numa.begin(), machine.numa.end(),
                   [](const NumaNode& a, const NumaNode& b) { return a.os_index < b.os_index; });
  std::stable_sort(machine.packages.begin(), machine.packages.end(),
                   [](const Package& a, const Package& b) { return a.index < b.index; });
  std::erase_if(host.numa, [](const NumaCpus& node) { return node.numa < 0; });
  machine.cores = guess_cores(std::move(host.numa));
  return std::move(host.machine);
}

}  // namespace mds::topology
