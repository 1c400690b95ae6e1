// NVLink and xGMI from hwloc's bandwidth matrices.
#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "topology/paths.hpp"
#include "topology/read/gpus_pci_ids.hpp"
#include "topology/read/hwloc_objects.hpp"
#include "topology/read/hwloc_tags.hpp"

namespace mds::topology::hwloc {
namespace {

/// What hwloc counts one NVLink as, in MB/s: by generation, not by what is left for data.
constexpr int64_t kNvlinkFirst = 20000, kNvlink = 25000, kNvlinkFifth = 50000;
constexpr int64_t kXgmi = 100000;

/// How many links make up this bandwidth; one where no generation's rate divides it.
GpuLink nvlinks(const Gpu& gpu, int64_t mb_per_s) {
  GpuLink link;
  const int64_t likely = gpu.sm == 60 ? kNvlinkFirst : gpu.sm >= 100 ? kNvlinkFifth : kNvlink;
  for (const int64_t each : {likely, kNvlink, kNvlinkFirst}) {
    if (mb_per_s % each != 0) continue;
    link.count = static_cast<int>(std::min<int64_t>(mb_per_s / each, 1 << 10));
    link.gb_per_s_each = gpu.sm > 0 ? nvlink_gb_per_s(gpu.sm) : static_cast<double>(each) / 1000;
    return link;
  }
  link.count = 1;
  link.gb_per_s_each = static_cast<double>(mb_per_s) / 1000;
  return link;
}

GpuLink xgmi_links(const Gpu& gpu, int64_t mb_per_s) {
  GpuLink link;
  link.kind = LinkKind::xgmi;
  link.count = static_cast<int>(std::clamp<int64_t>((mb_per_s + kXgmi / 2) / kXgmi, 1, 1 << 10));
  link.gb_per_s_each = gpu.gcn.empty() ? static_cast<double>(mb_per_s) / 1000 / link.count : xgmi_gb_per_s(gpu.gcn);
  return link;
}

class Links {
 public:
  Links(Scan& scan, const std::vector<int>& gpu_of_pci) : scan_(scan), gpu_of_pci_(gpu_of_pci) {}

  void add(const Matrix& matrix, const Matrix* hops) {
    const size_t size = matrix.objects.size();
    for (size_t row = 0; row < size; ++row) {
      const int gpu = gpu_of(matrix.objects[row]);
      for (size_t column = 0; column < size && gpu >= 0; ++column) {
        // hwloc says nothing of an object and itself: the diagonal is a large number.
        if (row == column || matrix.values[row * size + column] == 0) continue;
        // Bandwidth is told of pairs several hops apart, too, which have no link.
        if (hops && hops->values.size() == size * size && hops->values[row * size + column] != 1) continue;
        const auto mb_per_s = static_cast<int64_t>(std::min<uint64_t>(matrix.values[row * size + column], 1ull << 40));
        add_link(matrix.name, gpu, matrix.objects[column], mb_per_s);
      }
    }
  }

 private:
  int gpu_of(const MatrixObject& object) const {
    const auto index = static_cast<size_t>(object.index);
    if (object.kind == MatrixObject::Kind::pci) return gpu_of_pci_[index];
    if (object.kind != MatrixObject::Kind::os) return -1;
    const OsDevice& os = scan_.os[index];
    if (os.pci >= 0) return gpu_of_pci_[static_cast<size_t>(os.pci)];
    const auto& gpus = scan_.machine.gpus;  // its PCI function is not told: known by its UUID only
    const std::string& uuid = info(os.infos, "NVIDIAUUID");
    const auto found = std::find_if(gpus.begin(), gpus.end(), [&](const Gpu& gpu) { return gpu.uuid == uuid; });
    return uuid.empty() || found == gpus.end() ? -1 : static_cast<int>(found - gpus.begin());
  }

  void add_link(const std::string& name, int gpu, const MatrixObject& end, int64_t mb_per_s) {
    Machine& machine = scan_.machine;
    const Gpu& from = machine.gpus[static_cast<size_t>(gpu)];
    GpuLink link = name == "XGMIBandwidth" ? xgmi_links(from, mb_per_s) : nvlinks(from, mb_per_s);
    link.gpu = gpu;
    const int peer = gpu_of(end);
    if (peer >= 0) {
      link.peer = peer;
      link.peer_bus_id = machine.gpus[static_cast<size_t>(peer)].bus_id;
    } else if (end.kind == MatrixObject::Kind::cpu) {  // POWER8 and 9
      link.end = LinkEnd::cpu;
      link.peer = end.index;
    } else if (end.kind == MatrixObject::Kind::pci) {
      const PciDevice& device = scan_.pci[static_cast<size_t>(end.index)].device;
      link.end = is_nvswitch(device.pci_class, device.vendor) ? LinkEnd::nvswitch : LinkEnd::gpu;
      link.peer_bus_id = device.bus_id;
    } else {
      return;
    }
    machine.links.push_back(std::move(link));
  }

  Scan& scan_;
  const std::vector<int>& gpu_of_pci_;
};

/// What write_hwloc_xml() noted of each GPU's links, which says more than the matrix.
bool add_own_links(Scan& scan, const std::vector<int>& gpu_of_pci) {
  bool ours = false;
  for (const OsDevice& os : scan.os) {
    int gpu = tags::order(os.infos);
    if (os.pci >= 0) gpu = gpu_of_pci[static_cast<size_t>(os.pci)];
    if (gpu < 0 || gpu >= static_cast<int>(scan.machine.gpus.size())) continue;
    const auto links = tags::read_links(os.infos, gpu);
    if (!links) continue;
    ours = true;
    for (const GpuLink& link : *links) {
      const bool known = link.end != LinkEnd::gpu || link.peer < static_cast<int>(scan.machine.gpus.size());
      if (known) scan.machine.links.push_back(link);
    }
  }
  std::stable_sort(scan.machine.links.begin(), scan.machine.links.end(),
                   [](const GpuLink& a, const GpuLink& b) { return a.gpu < b.gpu; });
  return ours;
}

}  // namespace

void add_links(Scan& scan, const std::vector<int>& gpu_of_pci) {
  if (add_own_links(scan, gpu_of_pci)) return;
  const auto matrix = [&](const char* name) {
    const auto found =
        std::find_if(scan.matrices.begin(), scan.matrices.end(), [&](const Matrix& m) { return m.name == name; });
    return found == scan.matrices.end() ? nullptr : &*found;
  };
  Links links(scan, gpu_of_pci);
  if (const Matrix* nvlink = matrix("NVLinkBandwidth")) links.add(*nvlink, nullptr);
  if (const Matrix* xgmi = matrix("XGMIBandwidth")) links.add(*xgmi, matrix("XGMIHops"));
}

}  // namespace mds::topology::hwloc
