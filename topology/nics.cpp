#include "topology/nics.hpp"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "topology/sysfs.hpp"

namespace mds::topology {
namespace {

namespace fs = std::filesystem;

/// mlx5_9 before mlx5_10: runs of digits compare as numbers.
bool natural_less(const std::string& a, const std::string& b) {
  const auto is_digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      size_t i_end = i, j_end = j;
      while (i_end < a.size() && is_digit(a[i_end])) ++i_end;
      while (j_end < b.size() && is_digit(b[j_end])) ++j_end;
      if (i_end - i != j_end - j) return i_end - i < j_end - j;
      const int order = a.compare(i, i_end - i, b, j, j_end - j);
      if (order != 0) return order < 0;
      i = i_end;
      j = j_end;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i;
      ++j;
    }
  }
  return a.size() - i < b.size() - j;
}

std::vector<fs::path> sorted_entries(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) entries.push_back(entry.path());
  std::sort(entries.begin(), entries.end(),
            [](const fs::path& a, const fs::path& b) { return natural_less(a.filename(), b.filename()); });
  return entries;
}

/// "400 Gb/sec (4X NDR)"
double infiniband_gbps(const fs::path& port) { return std::atof(sysfs::read(port / "rate").value_or("0").c_str()); }

void add_rdma_devices(const fs::path& sys, std::vector<Nic>& nics, std::vector<std::string>& notes) {
  for (const fs::path& device : sorted_entries(sys / "class/infiniband")) {
    Nic nic;
    nic.name = device.filename();
    nic.rdma = true;
    bool active = false;
    for (const fs::path& port : sorted_entries(device / "ports")) {
      if (sysfs::read(port / "state").value_or("").find("ACTIVE") == std::string::npos) continue;
      active = true;
      nic.gbps = std::max(nic.gbps, infiniband_gbps(port));
    }
    if (!active) {
      notes.push_back("RDMA device " + nic.name + " is left out: none of its ports is active");
      continue;
    }
    const auto place = sysfs::pci_place(device / "device");
    nic.bus_id = place.bus_id;
    nic.numa = place.numa;
    nics.push_back(std::move(nic));
  }
}

struct Interface {
  Nic nic;
  bool hardware = false;
};

std::vector<Interface> interfaces_that_are_up(const fs::path& sys) {
  constexpr int64_t kArphrdLoopback = 772;
  std::vector<Interface> up;
  for (const fs::path& folder : sorted_entries(sys / "class/net")) {
    // Files such as bonding_masters lie in the same folder. An interface whose driver reports no carrier is "unknown".
    const std::string state = sysfs::read(folder / "operstate").value_or("down");
    if (state != "up" && state != "unknown") continue;
    if (sysfs::read_number(folder / "type").value_or(kArphrdLoopback) == kArphrdLoopback) continue;
    std::error_code failed;
    if (fs::exists(folder / "master/bonding", failed)) continue;  // the bond itself carries the address
    Interface found;
    found.nic.name = folder.filename();
    const auto place = sysfs::pci_place(folder / "device");
    found.nic.bus_id = place.bus_id;
    found.nic.numa = place.numa;
    found.nic.gbps =
        std::max<double>(0, sysfs::read_number(folder / "speed").value_or(0)) / 1000;  // Mbit/s, -1 unknown
    found.hardware = fs::exists(folder / "device", failed) || fs::exists(folder / "bonding", failed);
    up.push_back(std::move(found));
  }
  return up;
}

}  // namespace

std::vector<Nic> discover_nics(const fs::path& sys, std::vector<std::string>& notes) {
  std::vector<Nic> nics;
  add_rdma_devices(sys, nics, notes);
  const auto interfaces = interfaces_that_are_up(sys);
  const bool any_hardware =
      std::any_of(interfaces.begin(), interfaces.end(), [](const Interface& i) { return i.hardware; });
  for (const Interface& i : interfaces) {
    if (i.hardware || !any_hardware) nics.push_back(i.nic);
  }
  if (nics.empty()) notes.push_back("no network interface is up but loopback");
  return nics;
}

}  // namespace mds::topology
