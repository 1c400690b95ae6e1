#include "topology/read/hwloc_tags.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <map>
#include <sstream>

namespace mds::topology::hwloc::tags {
namespace {

constexpr int kIndexMax = 1 << 20;
constexpr std::array<const char*, 3> kLinkKinds{"nvlink", "xgmi", "c2c"};  // in LinkKind's order
constexpr std::array<const char*, 3> kLinkEnds{"gpu", "nvswitch", "cpu"};  // in LinkEnd's order

/// "key=value key=value"
class Writer {
 public:
  Writer& add(const char* key, const std::string& value) {
    if (value.empty() || value.find_first_of(" =") != std::string::npos) return *this;
    text_ += (text_.empty() ? "" : " ") + std::string(key) + "=" + value;
    return *this;
  }
  Writer& add(const char* key, int value) { return add(key, std::to_string(value)); }
  Writer& add(const char* key, double value) {
    char text[40];
    const auto end = std::to_chars(text, text + sizeof text, value).ptr;
    return add(key, std::string(text, end));
  }
  Writer& add(const char* key, const PciLink& link) {
    return add((key + std::string("-gtps")).c_str(), link.gtps).add((key + std::string("-width")).c_str(), link.width);
  }
  std::string text() const { return text_; }

 private:
  std::string text_;
};

/// What is absent or no number of the kind leaves the field as it is.
class Reader {
 public:
  explicit Reader(const std::string& text) {
    std::istringstream words(text);
    for (std::string word; words >> word;) {
      const size_t equals = word.find('=');
      if (equals != std::string::npos) values_[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  void get(const std::string& key, std::string& out) const {
    if (const auto found = values_.find(key); found != values_.end()) out = found->second;
  }
  void get(const std::string& key, int& out, int min = 0) const {
    int value = 0;
    if (number(key, value) && value >= min && value <= kIndexMax) out = value;
  }
  void get(const std::string& key, double& out) const {
    double value = 0;
    if (number(key, value) && value >= 0 && value < 1e15) out = value;
  }
  void get(const std::string& key, bool& out) const {
    int value = 0;
    if (number(key, value)) out = value != 0;
  }
  void get(const std::string& key, PciLink& out) const {
    get(key + "-gtps", out.gtps);
    get(key + "-width", out.width);
  }
  template <typename Enum, size_t N>
  bool get(const std::string& key, Enum& out, const std::array<const char*, N>& names) const {
    const auto value = values_.find(key);
    const auto found = std::find(names.begin(), names.end(), value == values_.end() ? "" : value->second);
    if (found == names.end()) return false;
    out = static_cast<Enum>(found - names.begin());
    return true;
  }

 private:
  template <typename Number>
  bool number(const std::string& key, Number& out) const {
    const auto found = values_.find(key);
    if (found == values_.end()) return false;
    const std::string& text = found->second;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), out);
    return failed == std::errc() && end == text.data() + text.size();
  }
  std::map<std::string, std::string> values_;
};

std::optional<Reader> reader(const Infos& infos, const char* name) {
  const std::string& text = info(infos, name);
  return text.empty() ? std::nullopt : std::optional<Reader>(text);
}

}  // namespace

bool is_placeholder(const Infos& infos) { return !info(infos, kPlaceholder).empty(); }

bool read(const Infos& infos, Package& package) {
  const auto tag = reader(infos, "MDSPackage");
  if (!tag) return false;
  tag->get("index", package.index);
  tag->get("arch", package.arch);
  return true;
}

bool read(const Infos& infos, NumaNode& numa) {
  const auto tag = reader(infos, "MDSNuma");
  if (tag) tag->get("package", numa.package);
  return tag.has_value();
}

bool read(const Infos& infos, Core& core) {
  const auto tag = reader(infos, "MDSCore");
  if (!tag) return false;
  tag->get("index", core.index);
  tag->get("package", core.package);
  tag->get("numa", core.numa);
  return true;
}

bool read(const Infos& infos, PciDevice& device) {
  const auto tag = reader(infos, "MDSPci");
  if (!tag) return false;
  tag->get("bus_id", device.bus_id);
  tag->get("numa", device.numa, -1);
  int pci_class = -1;
  std::string text;
  tag->get("class", text);
  std::from_chars(text.data(), text.data() + text.size(), pci_class, 16);
  if (pci_class >= 0 && pci_class <= 0xffffff) device.pci_class = static_cast<uint32_t>(pci_class);
  device.vendor = device.device = device.subsystem_vendor = device.subsystem_device = "";
  tag->get("vendor", device.vendor);
  tag->get("device", device.device);
  tag->get("subsystem_vendor", device.subsystem_vendor);
  tag->get("subsystem_device", device.subsystem_device);
  tag->get("link", device.link);
  tag->get("link_max", device.link_max);
  return true;
}

bool read(const Infos& infos, Gpu& gpu) {
  const auto tag = reader(infos, "MDSGpu");
  if (!tag) return false;
  gpu.bus_id.clear();
  gpu.gcn.clear();
  gpu.name = info(infos, "GPUModel");  // even if that is nothing: not what the PCI ids would say
  double memory_bytes = 0;
  tag->get("memory_bytes", memory_bytes);
  gpu.memory_bytes = static_cast<uint64_t>(memory_bytes);
  gpu.sm = 0;
  tag->get("index", gpu.index);
  tag->get("bus_id", gpu.bus_id);
  tag->get("numa", gpu.numa, -1);
  tag->get("sm", gpu.sm);
  tag->get("gcn", gpu.gcn);
  tag->get("gdr", gpu.gdr);
  tag->get("nvlink_domain", gpu.nvlink_domain);
  return true;
}

bool read(const Infos& infos, Nic& nic) {
  const auto tag = reader(infos, "MDSNic");
  if (!tag) return false;
  nic.bus_id.clear();
  nic.guid.clear();
  nic.interface.clear();
  tag->get("bus_id", nic.bus_id);
  tag->get("numa", nic.numa, -1);
  tag->get("gbps", nic.gbps);
  tag->get("rdma", nic.rdma);
  tag->get("port", nic.port);
  tag->get("guid", nic.guid);
  tag->get("interface", nic.interface);
  tag->get("gdr", nic.gdr);
  tag->get("active", nic.active);
  return true;
}

int order(const Infos& infos) {
  int order = -1;
  for (const char* name : {"MDSPci", "MDSGpu", "MDSNic"}) {
    if (const auto tag = reader(infos, name)) tag->get("order", order);
  }
  return order;
}

std::optional<std::vector<GpuLink>> read_links(const Infos& infos, int gpu) {
  std::optional<std::vector<GpuLink>> links;
  for (const auto& [name, value] : infos) {
    if (name != "MDSGpuLink") continue;
    if (!links) links.emplace();
    const Reader tag(value);
    GpuLink link;
    link.gpu = gpu;
    if (!tag.get("kind", link.kind, kLinkKinds) || !tag.get("end", link.end, kLinkEnds)) continue;
    tag.get("peer", link.peer, -1);
    tag.get("peer_bus_id", link.peer_bus_id);
    tag.get("count", link.count);
    tag.get("gb_per_s_each", link.gb_per_s_each);
    links->push_back(link);
  }
  return links;
}

std::pair<std::string, std::string> write(const Package& package) {
  return {"MDSPackage", Writer().add("index", package.index).add("arch", package.arch).text()};
}

std::pair<std::string, std::string> write(const NumaNode& numa) {
  return {"MDSNuma", Writer().add("package", numa.package).text()};
}

std::pair<std::string, std::string> write(const Core& core) {
  return {"MDSCore",
          Writer().add("index", core.index).add("package", core.package).add("numa", core.numa).text()};
}

std::pair<std::string, std::string> write(const PciDevice& device, size_t order) {
  char pci_class[16];
  std::snprintf(pci_class, sizeof pci_class, "%06x", device.pci_class);
  return {"MDSPci", Writer()
                        .add("order", static_cast<int>(order))
                        .add("bus_id", device.bus_id)
                        .add("numa", device.numa)
                        .add("class", pci_class)
                        .add("vendor", device.vendor)
                        .add("device", device.device)
                        .add("subsystem_vendor", device.subsystem_vendor)
                        .add("subsystem_device", device.subsystem_device)
                        .add("link", device.link)
                        .add("link_max", device.link_max)
                        .text()};
}

std::pair<std::string, std::string> write(const Gpu& gpu, size_t order) {
  return {"MDSGpu", Writer()
                        .add("order", static_cast<int>(order))
                        .add("index", gpu.index)
                        .add("bus_id", gpu.bus_id)
                        .add("numa", gpu.numa)
                        .add("memory_bytes", static_cast<double>(gpu.memory_bytes))
                        .add("sm", gpu.sm)
                        .add("gcn", gpu.gcn)
                        .add("gdr", int{gpu.gdr})
                        .add("nvlink_domain", gpu.nvlink_domain)
                        .text()};
}

std::pair<std::string, std::string> write(const Nic& nic, size_t order) {
  return {"MDSNic", Writer()
                        .add("order", static_cast<int>(order))
                        .add("bus_id", nic.bus_id)
                        .add("numa", nic.numa)
                        .add("gbps", nic.gbps)
                        .add("rdma", int{nic.rdma})
                        .add("port", nic.port)
                        .add("guid", nic.guid)
                        .add("interface", nic.interface)
                        .add("gdr", int{nic.gdr})
                        .add("active", int{nic.active})
                        .text()};
}

Infos write_links(const std::vector<GpuLink>& links, int gpu) {
  Infos infos;
  for (const GpuLink& link : links) {
    if (link.gpu != gpu) continue;
    infos.emplace_back("MDSGpuLink", Writer()
                                         .add("kind", kLinkKinds[static_cast<size_t>(link.kind)])
                                         .add("end", kLinkEnds[static_cast<size_t>(link.end)])
                                         .add("peer", link.peer)
                                         .add("peer_bus_id", link.peer_bus_id)
                                         .add("count", link.count)
                                         .add("gb_per_s_each", link.gb_per_s_each)
                                         .text());
  }
  if (infos.empty()) infos.emplace_back("MDSGpuLink", "none");
  return infos;
}

}  // namespace mds::topology::hwloc::tags
