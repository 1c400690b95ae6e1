#include "topology/read/sysfs.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <map>

namespace mds::topology::sysfs {
namespace {

/// dddd:bb:dd.f, where the domain may have more than four digits.
bool is_bus_id(const std::string& name) {
  const size_t colon = name.find(':');
  if (colon == std::string::npos || colon < 4 || name.size() != colon + 8) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const char expected = i == colon || i == colon + 3 ? ':' : i == colon + 6 ? '.' : 'h';
    if (expected == 'h' ? !std::isxdigit(static_cast<unsigned char>(name[i])) : name[i] != expected) return false;
  }
  return true;
}

}  // namespace

std::optional<std::string> read(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  char buffer[4096];  // sysfs never gives more than a page
  const ssize_t size = ::read(fd, buffer, sizeof buffer);
  ::close(fd);
  if (size < 0) return std::nullopt;
  std::string text(buffer, static_cast<size_t>(size));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::optional<int64_t> read_number(const std::filesystem::path& file) {
  const auto text = read(file);
  int64_t number = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), number).ec != std::errc()) {
    return std::nullopt;
  }
  return number;
}

PciPlace pci_place(const std::filesystem::path& device) {
  std::error_code failed;
  PciPlace place;
  for (auto folder = std::filesystem::canonical(device, failed); !failed && folder.has_relative_path();
       folder = folder.parent_path()) {
    const std::string name = folder.filename().string();
    if (name.starts_with("usb")) place.usb = true;
    if (!is_bus_id(name)) continue;
    place.bus_id = name;
    place.numa = static_cast<int>(read_number(folder / "numa_node").value_or(-1));
    break;
  }
  return place;
}

std::string kernel_bus_id(const std::string& bus_id) {
  std::string id;
  for (const char c : bus_id) id.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  const size_t colon = id.find(':');
  if (colon == 8 && id.compare(0, 4, "0000") == 0) id.erase(0, 4);
  return id;
}

namespace {

/// "16.0 GT/s PCIe" and "16"; both unknown ("Unknown", 255, absent) are 0.
PciLink link_of(const std::filesystem::path& function, const std::string& which) {
  const double gtps = std::atof(read(function / (which + "_link_speed")).value_or("0").c_str());
  const int64_t width = read_number(function / (which + "_link_width")).value_or(0);
  return {std::max(gtps, 0.0), width > 0 && width <= 32 ? static_cast<int>(width) : 0};
}

/// The narrower of two; one that is unknown does not count.
template <typename Number>
Number lesser(Number a, Number b) {
  return a == 0 ? b : b == 0 ? a : std::min(a, b);
}

PciDevice read_function(const std::filesystem::path& folder) {
  PciDevice device;
  device.bus_id = folder.filename().string();
  device.numa = static_cast<int>(std::max<int64_t>(read_number(folder / "numa_node").value_or(-1), -1));
  device.pci_class = static_cast<uint32_t>(std::strtoul(read(folder / "class").value_or("0").c_str(), nullptr, 16));
  device.vendor = read(folder / "vendor").value_or("");
  device.device = read(folder / "device").value_or("");
  device.subsystem_vendor = read(folder / "subsystem_vendor").value_or("");
  device.subsystem_device = read(folder / "subsystem_device").value_or("");
  device.link = link_of(folder, "current");
  device.link_max = link_of(folder, "max");
  return device;
}

class PciTree {
 public:
  PciTree(std::filesystem::path sys, std::vector<PciDevice>& pci) : sys_(std::move(sys)), pci_(pci) {}

  /// The function's index, -1 where /sys does not have it. Bridges above it are added before it.
  int add(const std::string& bus_id) {
    if (const auto known = index_.find(bus_id); known != index_.end()) return known->second;
    std::error_code failed;
    const auto device = std::filesystem::canonical(sys_ / "bus/pci/devices" / bus_id, failed);
    if (bus_id.empty() || failed) return -1;
    std::filesystem::path folder;
    int parent = -1;
    for (const auto& part : device) {
      folder /= part;
      if (!is_bus_id(part.string())) continue;
      const auto [found, fresh] = index_.try_emplace(part.string(), static_cast<int>(pci_.size()));
      if (fresh) {
        pci_.push_back(read_function(folder));
        pci_.back().parent = parent;
        limit_by_parent(pci_.back());
      }
      parent = found->second;
    }
    return parent;
  }

 private:
  /// link_max is what both ends could do.
  void limit_by_parent(PciDevice& device) const {
    if (device.parent < 0) return;
    const PciLink& above = pci_[static_cast<size_t>(device.parent)].link_max;
    device.link_max = {lesser(device.link_max.gtps, above.gtps), lesser(device.link_max.width, above.width)};
  }

  const std::filesystem::path sys_;
  std::vector<PciDevice>& pci_;
  std::map<std::string, int> index_;
};

}  // namespace

void add_pci_tree(const std::filesystem::path& sys, const std::vector<PciDevice>& functions, Machine& machine) {
  PciTree tree(sys, machine.pci);
  size_t hidden = 0;
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    Gpu& gpu = machine.gpus[i];
    gpu.pci = tree.add(gpu.bus_id);
    if (gpu.pci < 0) {
      gpu.pci = static_cast<int>(machine.pci.size());
      machine.pci.push_back(functions[i]);
    }
    PciDevice& device = machine.pci[static_cast<size_t>(gpu.pci)];
    if (device.link.gtps == 0 || device.link.width == 0) device.link = functions[i].link;
    if (device.link_max.gtps == 0 || device.link_max.width == 0) device.link_max = functions[i].link_max;
    gpu.numa = device.numa;
    hidden += device.parent < 0 && device.numa < 0;
  }
  for (Nic& nic : machine.nics) {
    nic.pci = tree.add(nic.bus_id);
    if (nic.pci >= 0) nic.numa = machine.pci[static_cast<size_t>(nic.pci)].numa;
  }
  for (GpuLink& link : machine.links) {
    if (link.end == LinkEnd::cpu && link.peer < 0) link.peer = machine.gpus[static_cast<size_t>(link.gpu)].numa;
  }
  if (hidden > 0) {
    machine.notes.push_back("/sys hides the PCI tree and NUMA node of " + std::to_string(hidden) + " of " +
                            std::to_string(machine.gpus.size()) + " GPUs (a virtual machine?)");
  }
}

}  // namespace mds::topology::sysfs
