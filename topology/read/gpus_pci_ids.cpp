#include "topology/read/gpus_pci_ids.hpp"

#include <cstdlib>

namespace mds::topology {
namespace {

constexpr const char* kNvidia = "0x10de";
constexpr const char* kAmd = "0x1002";
constexpr const char* kIntel = "0x8086";

struct Range {
  unsigned first, last;
  int sm;
};
constexpr Range kNvidiaChips[] = {
    {0x15f0, 0x15ff, 60},    // GP100
    {0x1b00, 0x1d7f, 61},    // GP10x
    {0x1d80, 0x1dff, 70},    // GV100
    {0x1e00, 0x1fff, 75},    // TU10x
    {0x2080, 0x20ff, 80},    // GA100
    {0x2180, 0x21ff, 75},    // TU11x
    {0x2200, 0x22ff, 86},    // GA102
    {0x2300, 0x23ff, 90},    // GH100
    {0x2400, 0x25ff, 86},    // GA10x
    {0x2600, 0x28ff, 89},    // AD10x
    {0x2900, 0x29ff, 100},   // GB100
    {0x2b00, 0x2fff, 120},   // GB20x
    {0x3180, 0x31ff, 103},   // GB110
};

struct Product {
  unsigned device;
  const char* name;
  int memory_mib;
};
constexpr Product kNvidiaProducts[] = {
    {0x15f9, "Tesla P100-SXM2-16GB", 16280},  {0x15f8, "Tesla P100-PCIE-16GB", 16280},
    {0x1db1, "Tesla V100-SXM2-16GB", 16384},  {0x1db4, "Tesla V100-PCIE-16GB", 16384},
    {0x1db5, "Tesla V100-SXM2-32GB", 32768},  {0x1db6, "Tesla V100-PCIE-32GB", 32768},
    {0x1db8, "Tesla V100-SXM3-32GB", 32768},  {0x1eb8, "Tesla T4", 15360},
    {0x20b0, "NVIDIA A100-SXM4-40GB", 40960}, {0x20b2, "NVIDIA A100-SXM4-80GB", 81920},
    {0x20f1, "NVIDIA A100-PCIE-40GB", 40960}, {0x20b5, "NVIDIA A100 80GB PCIe", 81920},
    {0x20b7, "NVIDIA A30", 24576},            {0x2235, "NVIDIA A40", 46068},
    {0x2236, "NVIDIA A10", 23028},            {0x2321, "NVIDIA H100 NVL", 95830},
    {0x2324, "NVIDIA H800", 81559},           {0x2329, "NVIDIA H20", 97871},
    {0x2330, "NVIDIA H100 80GB HBM3", 81559}, {0x2331, "NVIDIA H100 PCIe", 81559},
    {0x2335, "NVIDIA H200", 143771},          {0x233b, "NVIDIA H200 NVL", 143771},
    {0x2342, "NVIDIA GH200 480GB", 97871},    {0x26b5, "NVIDIA L40", 46068},
    {0x26b9, "NVIDIA L40S", 46068},           {0x27b8, "NVIDIA L4", 23034},
    {0x2901, "NVIDIA B200", 183359},          {0x2941, "NVIDIA GB200", 189471},
};

struct AmdProduct {
  Product product;
  const char* gcn;
};
constexpr AmdProduct kAmdProducts[] = {
    {{0x66a0, "AMD Instinct MI60", 32752}, "gfx906"},    {{0x66a1, "AMD Instinct MI50", 16368}, "gfx906"},
    {{0x738c, "AMD Instinct MI100", 32752}, "gfx908"},   {{0x738e, "AMD Instinct MI100", 32752}, "gfx908"},
    {{0x7408, "AMD Instinct MI250X", 65520}, "gfx90a"},  {{0x740c, "AMD Instinct MI250", 65520}, "gfx90a"},
    {{0x740f, "AMD Instinct MI210", 65520}, "gfx90a"},   {{0x74a0, "AMD Instinct MI300A", 131072}, "gfx942"},
    {{0x74a1, "AMD Instinct MI300X", 196592}, "gfx942"}, {{0x74a2, "AMD Instinct MI308X", 196592}, "gfx942"},
    {{0x74a5, "AMD Instinct MI325X", 262128}, "gfx942"}, {{0x74b5, "AMD Instinct MI300X", 196592}, "gfx942"},
    {{0x75a0, "AMD Instinct MI350X", 294896}, "gfx950"}, {{0x75a3, "AMD Instinct MI355X", 294896}, "gfx950"},
};

GpuChip describe(const Product& product, int sm, const char* gcn) {
  return {sm, gcn, product.name, static_cast<uint64_t>(product.memory_mib) << 20};
}

}  // namespace

bool is_display_adapter(uint32_t pci_class) { return pci_class >> 8 == 0x0300; }

bool shows_gpu(uint32_t pci_class, const std::string& vendor) {
  const uint32_t kind = pci_class >> 8;
  const bool gpu_class = kind == 0x0300 || kind == 0x0302 || kind == 0x0380 || kind >> 8 == 0x12;
  return gpu_class && (vendor.empty() || is_gpu(pci_class, vendor));
}

bool is_gpu(uint32_t pci_class, const std::string& vendor) {
  const uint32_t kind = pci_class >> 8;
  const bool computes = kind == 0x0302 || kind == 0x0380;
  if (vendor == kIntel) return computes;  // 0300 is the processor's own graphics
  return (vendor == kNvidia || vendor == kAmd) && (computes || kind == 0x0300 || kind == 0x1200);
}

bool is_network(uint32_t pci_class) { return pci_class >> 16 == 0x02 || pci_class >> 8 == 0x0c06; }

bool is_nvswitch(uint32_t pci_class, const std::string& vendor) {
  return pci_class >> 8 == 0x0680 && vendor == kNvidia;
}

GpuChip gpu_chip(const std::string& vendor, const std::string& device) {
  const auto id = static_cast<unsigned>(std::strtoul(device.c_str(), nullptr, 16));
  if (vendor == kNvidia) {
    int sm = 0;
    for (const Range& chip : kNvidiaChips) {
      if (id >= chip.first && id <= chip.last) sm = chip.sm;
    }
    for (const Product& product : kNvidiaProducts) {
      if (id == product.device) return describe(product, sm, "");
    }
    return {sm, "", "", 0};
  }
  if (vendor == kAmd) {
    for (const AmdProduct& amd : kAmdProducts) {
      if (id == amd.product.device) return describe(amd.product, 0, amd.gcn);
    }
  }
  return {};
}

}  // namespace mds::topology
