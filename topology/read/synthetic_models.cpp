// Sources of the figures. Cores, memory, number and rate of NICs: the vendors' data sheets and user guides (NVIDIA
// DGX-1, DGX A100, DGX H100/H200, DGX B200 user guides; GB200 NVL72 and GH200 data sheets; AMD Instinct MI300X data
// sheet; NVIDIA L40S data sheet and OVX reference architecture 2-8-5). Memory of a GPU: what the driver reports, which
// is what a program gets: 32 GB V100 32768 MiB, 80 GB A100 81920, 80 GB H100 81559, 141 GB H200 143771, 180 GB B200
// 183359, 186 GB GB200 189471, 96 GB GH200 97871, 192 GB MI300X 196592, 48 GB L40S 46068. Bus ids and who shares a PCI
// switch: `nvidia-smi topo -m` and `rocm-smi --showtopo` of such machines. Links of a GPU: NVLink 2 (V100) 6, 3 (A100)
// 12, 4 (H100) 18, 5 (B200) 18, MI300X 7 xGMI. GB/s of a link: NCCL's (paths.hpp). C2C: 450 GB/s a direction a Grace.
#include "topology/read/synthetic_models.hpp"

#include <algorithm>

#include "topology/paths.hpp"

namespace mds::topology {
namespace {

constexpr PciLink kPci3{8, 16}, kPci4{16, 16}, kPci5{32, 16};

Package intel(int model) { return {0, "x86_64", "GenuineIntel", 6, model}; }
Package amd(int family, int model) { return {0, "x86_64", "AuthenticAMD", family, model}; }
Package grace() { return {0, "arm64", "ARM", 0, 0}; }

LinkModel nvswitches(int sm, std::vector<std::pair<std::string, int>> switches) {
  LinkModel links;
  links.shape = LinkModel::Shape::nvswitch;
  links.gb_per_s_each = nvlink_gb_per_s(sm);
  links.switches = std::move(switches);
  return links;
}

/// DGX H100, its successors on the same board, and their GPUs' memory.
MachineModel hopper_board(const char* name, Package package, const char* gpu, uint64_t gpu_mib, int sm) {
  return {name,
          {2, 56, 1, 2, 1024 * kGiB},
          package,
          {gpu, gpu_mib * kMiB, sm, "", kPci5},
          400,
          {{0, "0000:16:00.0", {"0000:1b:00.0"}, {{"mlx5_0", "0000:18:00.0"}}},
           {0, "0000:3e:00.0", {"0000:43:00.0"}, {{"mlx5_3", "0000:40:00.0"}}},
           {0, "0000:4d:00.0", {"0000:52:00.0"}, {{"mlx5_4", "0000:4f:00.0"}}},
           {0, "0000:5c:00.0", {"0000:61:00.0"}, {{"mlx5_5", "0000:5e:00.0"}}},
           {1, "0000:98:00.0", {"0000:9d:00.0"}, {{"mlx5_6", "0000:9a:00.0"}}},
           {1, "0000:be:00.0", {"0000:c3:00.0"}, {{"mlx5_9", "0000:c0:00.0"}}},
           {1, "0000:cc:00.0", {"0000:d1:00.0"}, {{"mlx5_10", "0000:ce:00.0"}}},
           {1, "0000:da:00.0", {"0000:df:00.0"}, {{"mlx5_11", "0000:dc:00.0"}}}},
          sm >= 100
              ? nvswitches(sm, {{"0000:07:00.0", 9}, {"0000:08:00.0", 9}})
              : nvswitches(sm, {{"0000:07:00.0", 4}, {"0000:08:00.0", 5}, {"0000:09:00.0", 5}, {"0000:0a:00.0", 4}}),
          0};
}

MachineModel dgx_v100() {
  LinkModel cube;  // hybrid cube mesh of the DGX-1
  cube.shape = LinkModel::Shape::matrix;
  cube.gb_per_s_each = nvlink_gb_per_s(70);
  cube.counts = {0, 1, 1, 2, 2, 0, 0, 0,  //
                 1, 0, 2, 1, 0, 2, 0, 0,  //
                 1, 2, 0, 2, 0, 0, 1, 0,  //
                 2, 1, 2, 0, 0, 0, 0, 1,  //
                 2, 0, 0, 0, 0, 1, 1, 2,  //
                 0, 2, 0, 0, 1, 0, 2, 1,  //
                 0, 0, 1, 0, 1, 2, 0, 2,  //
                 0, 0, 0, 1, 2, 1, 2, 0};
  return {"dgx-v100",
          {2, 20, 1, 2, 256 * kGiB},
          intel(79),
          {"Tesla V100-SXM2-32GB", 32768 * kMiB, 70, "", kPci3},
          100,
          {{0, "0000:03:00.0", {"0000:06:00.0", "0000:07:00.0"}, {{"mlx5_0", "0000:05:00.0"}}},
           {0, "0000:08:00.0", {"0000:0a:00.0", "0000:0b:00.0"}, {{"mlx5_1", "0000:0c:00.0"}}},
           {1, "0000:82:00.0", {"0000:85:00.0", "0000:86:00.0"}, {{"mlx5_2", "0000:84:00.0"}}},
           {1, "0000:87:00.0", {"0000:89:00.0", "0000:8a:00.0"}, {{"mlx5_3", "0000:8b:00.0"}}}},
          cube,
          0};
}

MachineModel dgx_a100() {
  return {
      "dgx-a100",
      {2, 64, 4, 2, 256 * kGiB},
      amd(23, 49),
      {"NVIDIA A100-SXM4-80GB", 81920 * kMiB, 80, "", kPci4},
      200,
      {{3, "0000:05:00.0", {"0000:07:00.0", "0000:0f:00.0"}, {{"mlx5_0", "0000:0c:00.0"}, {"mlx5_1", "0000:12:00.0"}}},
       {1, "0000:45:00.0", {"0000:47:00.0", "0000:4e:00.0"}, {{"mlx5_2", "0000:4b:00.0"}, {"mlx5_3", "0000:54:00.0"}}},
       {7, "0000:85:00.0", {"0000:87:00.0", "0000:90:00.0"}, {{"mlx5_6", "0000:8d:00.0"}, {"mlx5_7", "0000:94:00.0"}}},
       {5, "0000:b5:00.0", {"0000:b7:00.0", "0000:bd:00.0"}, {{"mlx5_8", "0000:ba:00.0"}, {"mlx5_9", "0000:cc:00.0"}}}},
      nvswitches(80, {{"0000:c4:00.0", 2},
                      {"0000:c5:00.0", 2},
                      {"0000:c6:00.0", 2},
                      {"0000:c7:00.0", 2},
                      {"0000:c8:00.0", 2},
                      {"0000:c9:00.0", 2}}),
      0};
}

MachineModel gb200() {
  LinkModel links = nvswitches(100, {{"fffffff:ff:ff.0", 18}});  // in trays of their own: NVML knows no bus id
  links.c2c_count = 5;                                           // two GPUs share a Grace's ten
  links.c2c_gb_per_s_each = 45;
  return {"gb200-nvl72",
          {2, 72, 1, 1, 480 * kGiB},
          grace(),
          {"NVIDIA GB200", 189471 * kMiB, 100, "", kPci5},
          400,
          {{0, "", {"0008:01:00.0"}, {{"mlx5_0", "0000:03:00.0"}}},
           {0, "", {"0009:01:00.0"}, {{"mlx5_1", "0002:03:00.0"}}},
           {1, "", {"0018:01:00.0"}, {{"mlx5_4", "0010:03:00.0"}}},
           {1, "", {"0019:01:00.0"}, {{"mlx5_5", "0012:03:00.0"}}}},
          links,
          18};
}

MachineModel gh200() {
  LinkModel links;
  links.c2c_count = 10;
  links.c2c_gb_per_s_each = 45;
  return {"gh200", {1, 72, 1, 1, 480 * kGiB},
          grace(), {"NVIDIA GH200 480GB", 97871 * kMiB, 90, "", kPci5},
          400,     {{0, "", {"0009:01:00.0"}, {{"mlx5_0", "0000:01:00.0"}}}},
          links,   0};
}

MachineModel mi300x() {
  LinkModel links;
  links.shape = LinkModel::Shape::matrix;
  links.kind = LinkKind::xgmi;
  links.gb_per_s_each = xgmi_gb_per_s("gfx942");
  links.counts = full_mesh(8, 1);
  return {"mi300x-8",
          {2, 96, 1, 2, 1152 * kGiB},
          amd(25, 17),
          {"AMD Instinct MI300X", 196592 * kMiB, 0, "gfx942", kPci5},
          400,
          {{0, "0000:01:00.0", {"0000:05:00.0"}, {{"mlx5_0", "0000:08:00.0"}}},
           {0, "0000:22:00.0", {"0000:26:00.0"}, {{"mlx5_2", "0000:29:00.0"}}},
           {0, "0000:42:00.0", {"0000:46:00.0"}, {{"mlx5_3", "0000:49:00.0"}}},
           {0, "0000:61:00.0", {"0000:65:00.0"}, {{"mlx5_4", "0000:68:00.0"}}},
           {1, "0000:81:00.0", {"0000:85:00.0"}, {{"mlx5_5", "0000:88:00.0"}}},
           {1, "0000:a2:00.0", {"0000:a6:00.0"}, {{"mlx5_7", "0000:a9:00.0"}}},
           {1, "0000:c2:00.0", {"0000:c6:00.0"}, {{"mlx5_8", "0000:c9:00.0"}}},
           {1, "0000:e1:00.0", {"0000:e5:00.0"}, {{"mlx5_9", "0000:e8:00.0"}}}},
          links,
          0};
}

MachineModel l40s() {
  return {"l40s-8",
          {2, 32, 1, 2, 512 * kGiB},
          intel(143),
          {"NVIDIA L40S", 46068 * kMiB, 89, "", kPci4},
          200,
          {{0, "0000:15:00.0", {"0000:18:00.0", "0000:19:00.0"}, {{"mlx5_0", "0000:1a:00.0"}}},
           {0, "0000:35:00.0", {"0000:38:00.0", "0000:39:00.0"}, {{"mlx5_1", "0000:3a:00.0"}}},
           {1, "0000:95:00.0", {"0000:98:00.0", "0000:99:00.0"}, {{"mlx5_2", "0000:9a:00.0"}}},
           {1, "0000:b5:00.0", {"0000:b8:00.0", "0000:b9:00.0"}, {{"mlx5_3", "0000:ba:00.0"}}}},
          {},
          0};
}

/// A device of the tree; GPUs and NICs of one maker each, as far as the names tell.
PciDevice device(const std::string& bus_id, int parent, int numa, uint32_t pci_class, const char* vendor,
                 PciLink link) {
  PciDevice device;
  device.bus_id = bus_id;
  device.parent = parent;
  device.numa = numa;
  device.pci_class = pci_class;
  device.vendor = vendor;
  device.link = device.link_max = link;
  return device;
}

void add_slot(Machine& machine, const PciSlot& slot, const MachineModel& model) {
  int parent = -1;
  if (!slot.bridge.empty()) {
    parent = static_cast<int>(machine.pci.size());
    machine.pci.push_back(device(slot.bridge, -1, slot.numa, 0x060400, "0x1000", model.gpu.link));
  }
  const bool is_amd = !model.gpu.gcn.empty();
  for (const std::string& bus_id : slot.gpus) {
    Gpu gpu;
    gpu.index = static_cast<int>(machine.gpus.size());
    gpu.bus_id = bus_id;
    gpu.name = model.gpu.name;
    gpu.memory_bytes = model.gpu.memory_bytes;
    gpu.numa = slot.numa;
    gpu.pci = static_cast<int>(machine.pci.size());
    gpu.sm = model.gpu.sm;
    gpu.gcn = model.gpu.gcn;
    machine.gpus.push_back(gpu);
    machine.pci.push_back(
        device(bus_id, parent, slot.numa, is_amd ? 0x120000 : 0x030200, is_amd ? "0x1002" : "0x10de", model.gpu.link));
  }
  for (const auto& [name, bus_id] : slot.nics) {
    Nic nic;
    nic.name = name;
    nic.bus_id = bus_id;
    nic.numa = slot.numa;
    nic.gbps = model.nic_gbps;
    nic.rdma = nic.gdr = true;
    nic.pci = static_cast<int>(machine.pci.size());
    machine.nics.push_back(nic);
    machine.pci.push_back(device(bus_id, parent, slot.numa, 0x020700, "0x15b3", model.gpu.link));
  }
}

void add_links(Machine& machine, const LinkModel& links) {
  const auto gpus = static_cast<int>(machine.gpus.size());
  for (int gpu = 0; gpu < gpus; ++gpu) {
    for (const auto& [bus_id, count] : links.switches) {
      machine.links.push_back({links.kind, gpu, LinkEnd::nvswitch, -1, bus_id, count, links.gb_per_s_each});
    }
    for (int peer = 0; peer < gpus && links.shape == LinkModel::Shape::matrix; ++peer) {
      const int count = links.counts[static_cast<size_t>(gpu) * gpus + peer];
      if (count == 0) continue;
      machine.links.push_back(
          {links.kind, gpu, LinkEnd::gpu, peer, machine.gpus[peer].bus_id, count, links.gb_per_s_each});
    }
    if (links.c2c_count > 0) {
      machine.links.push_back(
          {LinkKind::c2c, gpu, LinkEnd::cpu, machine.gpus[gpu].numa, "", links.c2c_count, links.c2c_gb_per_s_each});
    }
  }
}

}  // namespace

const std::vector<MachineModel>& machine_models() {
  static const std::vector<MachineModel> all{dgx_v100(),
                                             dgx_a100(),
                                             hopper_board("dgx-h100", intel(143), "NVIDIA H100 80GB HBM3", 81559, 90),
                                             hopper_board("dgx-h200", intel(143), "NVIDIA H200", 143771, 90),
                                             hopper_board("dgx-b200", intel(207), "NVIDIA B200", 183359, 100),
                                             gb200(),
                                             gh200(),
                                             mi300x(),
                                             l40s()};
  return all;
}

Machine machine_of(const MachineShape& shape, const Package& package) {
  Machine machine;
  const int total = shape.packages * shape.cores;
  // Numbered as Linux does on such machines: first threads of all cores, then the second ones.
  for (int core = 0; core < total; ++core) {
    const int on = core / shape.cores;
    const int numa = on * shape.numa + core % shape.cores * shape.numa / shape.cores;
    machine.cores.push_back({core, on, numa, {}});
    for (int thread = 0; thread < shape.threads; ++thread) machine.cores.back().cpus.push_back(core + thread * total);
  }
  for (int node = 0; node < shape.packages * shape.numa; ++node) {
    machine.numa.push_back({node, node / shape.numa, shape.memory_bytes});
  }
  for (int index = 0; index < shape.packages; ++index) {
    machine.packages.push_back(package);
    machine.packages.back().index = index;
  }
  return machine;
}

Machine machine_of(const MachineModel& model) {
  Machine machine = machine_of(model.shape, model.package);
  for (const PciSlot& slot : model.slots) add_slot(machine, slot, model);
  add_links(machine, model.links);
  return machine;
}

std::vector<int> full_mesh(int gpus, int links) {
  std::vector<int> counts(static_cast<size_t>(gpus) * gpus, links);
  for (int gpu = 0; gpu < gpus; ++gpu) counts[static_cast<size_t>(gpu) * gpus + gpu] = 0;
  return counts;
}

}  // namespace mds::topology
