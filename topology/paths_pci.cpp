#include "topology/paths_pci.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>

namespace mds::topology {
namespace {

/// Reads `digits_max` or fewer hexadecimal digits up to `end`, and steps over it.
bool read_hex(std::string_view& text, size_t digits_max, char end, uint32_t& out) {
  const size_t size = end == '\0' ? text.size() : text.find(end);
  if (size == std::string_view::npos || size == 0 || size > digits_max) return false;
  const auto read = std::from_chars(text.data(), text.data() + size, out, 16);
  if (read.ec != std::errc() || read.ptr != text.data() + size) return false;
  text.remove_prefix(std::min(text.size(), size + (end == '\0' ? 0 : 1)));
  return true;
}

constexpr uint32_t kMadeUpDomain = 0xffff;  // of bridges that stand for switches in files of virtual machines

bool same_domain(const std::optional<PciAddress>& a, const std::optional<PciAddress>& b) {
  return a && b && a->domain == b->domain && a->domain != kMadeUpDomain;
}

/// True if the tree has the ports of switches and root complexes, as the kernel shows it.
bool has_ports(const std::vector<PciDevice>& pci) {
  std::vector<std::optional<PciAddress>> addresses;
  addresses.reserve(pci.size());
  for (const PciDevice& device : pci) addresses.push_back(parse_bus_id(device.bus_id));
  for (size_t i = 0; i < pci.size(); ++i) {
    const int parent = pci[i].parent;
    if (parent < 0 || static_cast<size_t>(parent) >= i) continue;
    const auto& above = addresses[static_cast<size_t>(parent)];
    if (!same_domain(addresses[i], above)) continue;
    if (addresses[i]->bus == above->bus + 1) return true;
    // What hangs on a link is device 0 of its bus; a bridge at the root with another number is a root port.
    if (pci[static_cast<size_t>(parent)].parent < 0 && above->device != 0) return true;
  }
  return false;
}

uint64_t hex_number(const std::string& text) { return std::strtoull(text.c_str(), nullptr, 16) & 0xffff; }

/// 4 or 5 for a Broadcom switch of that PCI generation at this level of its two (0: outer), else 0.
int broadcom_generation(const PciDevice& device, uint64_t level) {
  const uint64_t id = hex_number(device.vendor) << 48 | hex_number(device.device) << 32 |
                      hex_number(device.subsystem_vendor) << 16 | hex_number(device.subsystem_device);
  const uint64_t family = id & ~uint64_t{0xfff};
  if (family == 0x1000c0101000a000) return 4;
  if (family == (0x1000c03010000000 | level * 0x1000)) return 5;
  return 0;
}

}  // namespace

std::optional<PciAddress> parse_bus_id(std::string_view text) {
  PciAddress address;
  const bool has_domain = std::count(text.begin(), text.end(), ':') == 2;
  if (has_domain && !read_hex(text, 8, ':', address.domain)) return std::nullopt;
  if (!read_hex(text, 2, ':', address.bus) || !read_hex(text, 2, '.', address.device) ||
      !read_hex(text, 1, '\0', address.function)) {
    return std::nullopt;
  }
  return address;
}

std::string normal_bus_id(std::string_view text) {
  if (const auto address = parse_bus_id(text)) {
    char id[32];
    std::snprintf(id, sizeof id, "%04x:%02x:%02x.%x", address->domain, address->bus, address->device,
                  address->function);
    return id;
  }
  std::string id(text);
  for (char& c : id) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return id;
}

std::vector<int> switch_parents(const std::vector<PciDevice>& pci) {
  const bool ports = has_ports(pci);
  std::vector<int> parents(pci.size(), -1);
  for (size_t i = 0; i < pci.size(); ++i) {
    int parent = pci[i].parent;
    if (parent < 0 || static_cast<size_t>(parent) >= i) continue;
    if (ports) {
      const int above = pci[static_cast<size_t>(parent)].parent;
      parent = above < parent ? above : -1;
    }
    parents[i] = std::max(parent, -1);
  }
  return parents;
}

std::vector<int> flatten_switches(const std::vector<PciDevice>& pci, std::vector<int> parents) {
  std::vector<int> joined(pci.size(), -1);  // into which outer switch an inner one went
  for (size_t i = 0; i < pci.size(); ++i) {
    int& parent = parents[i];
    if (parent < 0) continue;
    if (const int outer = joined[static_cast<size_t>(parent)]; outer >= 0) {
      parent = outer;  // and stays there: what was joined once is not joined again
      continue;
    }
    const int generation = broadcom_generation(pci[static_cast<size_t>(parent)], 0);
    if (generation != 0 && broadcom_generation(pci[i], 1) == generation) joined[i] = parent;
  }
  return parents;
}

}  // namespace mds::topology
