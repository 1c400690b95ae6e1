#include "topology/read/nics.hpp"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "topology/fabric/natural_order.hpp"
#include "topology/read/sysfs.hpp"

namespace mds::topology {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> sorted_entries(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) entries.push_back(entry.path());
  std::sort(entries.begin(), entries.end(), [](const fs::path& a, const fs::path& b) {
    return natural_less(a.filename().native(), b.filename().native());
  });
  return entries;
}

/// "400 Gb/sec (4X NDR)"
double infiniband_gbps(const fs::path& port) { return std::atof(sysfs::read(port / "rate").value_or("0").c_str()); }

/// "b8e9:2403:00ba:a4c8" as "0xb8e9240300baa4c8"; empty where it is unknown or all zeros.
std::string guid_of(const fs::path& device) {
  std::string guid = "0x";
  for (const char c : sysfs::read(device / "node_guid").value_or("")) {
    if (std::isxdigit(static_cast<unsigned char>(c))) guid.push_back(c);
  }
  return guid.find_first_not_of("0x") == std::string::npos ? "" : guid;
}

/// The kernel's interface on the same port of the same PCI function; its bond, which has the address, where it has one.
std::string interface_of(const fs::path& sys, const fs::path& device, int port) {
  for (const fs::path& net : sorted_entries(device / "device/net")) {
    const fs::path folder = sys / "class/net" / net.filename();
    if (sysfs::read_number(folder / "dev_port").value_or(port - 1) != port - 1) continue;
    std::error_code failed;
    if (!fs::exists(folder / "master/bonding", failed)) return net.filename();
    return fs::canonical(folder / "master", failed).filename();
  }
  return "";
}

/// A kernel module lets adapters read GPU memory, or the driver hands it out as a DMA buffer (NVIDIA's open module
/// does, AMD's always): what NCCL looks for, too.
bool gpu_memory_is_open(const fs::path& sys) {
  std::error_code failed;
  for (const char* file : {"module/nvidia_peermem", "kernel/mm/memory_peers/nv_mem", "kernel/mm/memory_peers/nv_mem_nc",
                           "class/kfd"}) {
    if (fs::exists(sys / file, failed)) return true;
  }
  const auto driver = sysfs::read(sys.parent_path() / "proc/driver/nvidia/version");
  return driver && driver->find("Open Kernel Module") != std::string::npos;
}

void add_rdma_devices(const fs::path& sys, std::vector<Nic>& nics, std::vector<std::string>& notes) {
  const bool gdr = gpu_memory_is_open(sys);
  for (const fs::path& device : sorted_entries(sys / "class/infiniband")) {
    Nic nic;
    nic.name = device.filename();
    nic.rdma = true;
    nic.gdr = gdr;
    nic.active = false;
    for (const fs::path& port : sorted_entries(device / "ports")) {
      if (sysfs::read(port / "state").value_or("").find("ACTIVE") == std::string::npos) continue;
      const double gbps = infiniband_gbps(port);
      if (nic.active && gbps <= nic.gbps) continue;
      nic.active = true;
      nic.gbps = gbps;
      nic.port = std::max(std::atoi(port.filename().c_str()), 1);
    }
    if (!nic.active) notes.push_back("RDMA device " + nic.name + " is down: none of its ports is active");
    const auto place = sysfs::pci_place(device / "device");
    nic.bus_id = place.bus_id;
    nic.numa = place.numa;
    nic.guid = guid_of(device);
    nic.interface = interface_of(sys, device, nic.port);
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
    found.hardware = (fs::exists(folder / "device", failed) && !place.usb) || fs::exists(folder / "bonding", failed);
    // HPE Slingshot does RDMA through its network device.
    found.nic.rdma = found.hardware && sysfs::read(folder / "device/vendor") == "0x17db";
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
  const std::vector<Nic> rdma = nics;
  for (const Interface& i : interfaces) {
    const bool merged = std::any_of(rdma.begin(), rdma.end(), [&](const Nic& device) {
      return device.interface == i.nic.name || (!device.bus_id.empty() && device.bus_id == i.nic.bus_id);
    });
    if (!merged && (i.hardware || !any_hardware)) nics.push_back(i.nic);
  }
  if (nics.empty()) notes.push_back("no network interface is up but loopback");
  return nics;
}

}  // namespace mds::topology
