// Reading /sys: one value a file, and links that lead to a device's place on the PCI bus.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology::sysfs {

/// The file's content without the final newline; nothing where it cannot be read (absent, or EINVAL of a down link).
std::optional<std::string> read(const std::filesystem::path& file);

/// The whole number at the beginning of the file.
std::optional<int64_t> read_number(const std::filesystem::path& file);

/// Where a device sits: its own PCI function or the nearest one above it (a virtio device has it as its parent).
struct PciPlace {
  std::string bus_id;          ///< "0000:3b:00.0"; empty where there is none
  int numa = -1;               ///< OS index, -1 unknown
  bool usb = false;            ///< behind a USB controller: a management chip's network, for one
};
/// `device` may be a link, such as /sys/class/net/eth0/device.
PciPlace pci_place(const std::filesystem::path& device);

/// "00000000:3B:00.0" (as NVML writes it) as the kernel's "0000:3b:00.0".
std::string kernel_bus_id(const std::string& bus_id);

/// Fills machine.pci with the functions of its GPUs and NICs and all bridges above them, and `pci` and `numa` of both.
/// What /sys does not tell of a GPU's function (a virtual machine has no link speeds) is taken from `functions`, which
/// belong to machine.gpus one by one. A note says where the tree is hidden.
void add_pci_tree(const std::filesystem::path& sys, const std::vector<PciDevice>& functions, Machine& machine);

}  // namespace mds::topology::sysfs
