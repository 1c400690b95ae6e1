// What PCI identifiers alone say of a GPU, for recordings that were made without the GPU vendor's library.
#pragma once

#include <cstdint>
#include <string>

namespace mds::topology {

/// NVIDIA's, AMD's and Intel's display (0300), 3D (0302), other display (0380) and accelerator (1200) functions.
bool is_gpu(uint32_t pci_class, const std::string& vendor);

/// Whether a function that a file lists without saying what it is counts as a GPU: by its class, and by its vendor
/// where that is given. Any class 12xxxx is taken.
bool shows_gpu(uint32_t pci_class, const std::string& vendor);

/// A plain display adapter (0300): of a server's management chip or a processor's own graphics, most of the time.
bool is_display_adapter(uint32_t pci_class);

/// 02xxxx and InfiniBand's own 0c06xx.
bool is_network(uint32_t pci_class);

/// NVIDIA's NVSwitch: a bridge of class 0680.
bool is_nvswitch(uint32_t pci_class, const std::string& vendor);

struct GpuChip {
  int sm = 0;                  ///< NVIDIA's compute capability x 10; 0 unknown
  std::string gcn{};           ///< AMD's architecture ("gfx942"); empty unknown
  std::string product{};       ///< as the driver calls it ("NVIDIA H200"); empty unknown
  uint64_t memory_bytes = 0;   ///< as the driver shows it for that product; 0 unknown
};

/// From the public PCI ID repository: the high byte of NVIDIA's device ids names the chip; products for data centres
/// are listed one by one, with the memory that nvidia-smi and rocm-smi show.
/// `vendor` and `device` as in PciDevice ("0x10de", "0x2335").
GpuChip gpu_chip(const std::string& vendor, const std::string& device);

}  // namespace mds::topology
