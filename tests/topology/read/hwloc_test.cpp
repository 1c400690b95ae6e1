// Recordings of real machines, read and written; hwloc's own library judges what is written.
#include <hwloc.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "tests/catch.hpp"
#include "tests/topology/recordings.hpp"
#include "topology/cluster.hpp"
#include "topology/read/read_machine.hpp"

using namespace mds;
using namespace mds::topology;

namespace {

using tests::recordings;

bool have_recordings() { return !tests::recordings_folder().empty(); }

std::string recording(const std::string& name) {
  const auto path = tests::recordings_folder() / name;
  INFO(path);
  REQUIRE(std::filesystem::exists(path));
  return tests::read_text(path);
}

Machine read_hwloc(const std::string& name) {
  const auto machine = read_hwloc_xml(recording("hwloc/" + name), "unnamed");
  INFO(name << ": " << (machine ? "" : machine.error().message));
  REQUIRE(machine);
  return *machine;
}

std::vector<int> numa_of_gpus(const Machine& machine) {
  std::vector<int> numa;
  for (const Gpu& gpu : machine.gpus) numa.push_back(gpu.numa);
  return numa;
}

/// From GPU to GPU, GPU to GPU -> count.
std::map<std::pair<int, int>, int> links_between_gpus(const Machine& machine) {
  std::map<std::pair<int, int>, int> counts;
  for (const GpuLink& link : machine.links) {
    if (link.end == LinkEnd::gpu) counts[{link.gpu, link.peer}] += link.count;
  }
  return counts;
}

Machine without_notes(Machine machine) {
  machine.notes.clear();
  return machine;
}

/// Loads the text with libhwloc and compares what it counts.
void check_with_libhwloc(const std::string& text, const Machine& machine) {
  hwloc_topology_t topology = nullptr;
  REQUIRE(hwloc_topology_init(&topology) == 0);
  hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_ALL);
  REQUIRE(hwloc_topology_set_xmlbuffer(topology, text.c_str(), static_cast<int>(text.size() + 1)) == 0);
  REQUIRE(hwloc_topology_load(topology) == 0);
  hwloc_topology_check(topology);  // aborts where something does not hold
  size_t cpus = 0;
  for (const Core& core : machine.cores) cpus += core.cpus.size();
  const auto count = [&](hwloc_obj_type_t type) {
    return static_cast<size_t>(std::max(hwloc_get_nbobjs_by_type(topology, type), 0));
  };
  std::set<int> packages, with_cores;  // hwloc knows no package without a core: there is a placeholder in it
  for (const Package& package : machine.packages) packages.insert(package.index);
  for (const Core& core : machine.cores) packages.insert(core.package), with_cores.insert(core.package);
  const size_t placeholders = std::max<size_t>(packages.size(), 1) - with_cores.size();
  CHECK(count(HWLOC_OBJ_PACKAGE) == std::max<size_t>(packages.size(), 1));
  CHECK(count(HWLOC_OBJ_CORE) == machine.cores.size() + placeholders);
  CHECK(count(HWLOC_OBJ_PU) == cpus + placeholders);
  CHECK(count(HWLOC_OBJ_NUMANODE) == std::max<size_t>(machine.numa.size(), 1));
  size_t pci = 0;
  for (hwloc_obj_t bridge = nullptr; (bridge = hwloc_get_next_bridge(topology, bridge));) {
    pci += bridge->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_PCI;
  }
  CHECK(count(HWLOC_OBJ_PCI_DEVICE) + pci == machine.pci.size());
  size_t gpus = 0, rdma = 0;
  for (hwloc_obj_t os = nullptr; (os = hwloc_get_next_osdev(topology, os));) {
    gpus += os->attr->osdev.type == HWLOC_OBJ_OSDEV_GPU;
    rdma += os->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS;
  }
  CHECK(gpus == machine.gpus.size());
  CHECK(rdma == static_cast<size_t>(std::count_if(machine.nics.begin(), machine.nics.end(),
                                                  [](const Nic& nic) { return nic.rdma; })));
  unsigned matrices = 16;
  hwloc_distances_s* found[16];
  hwloc_distances_get_by_name(topology, "NVLinkBandwidth", &matrices, found, 0);
  bool nvlink = false;
  for (const GpuLink& link : machine.links) {
    nvlink = nvlink || (link.kind == LinkKind::nvlink && link.end == LinkEnd::gpu && link.peer >= 0);
  }
  if (nvlink) CHECK(matrices == 1);
  for (unsigned i = 0; i < matrices; ++i) hwloc_distances_release(topology, found[i]);
  hwloc_topology_destroy(topology);
}

void check_round_trip(const Machine& machine) {
  const auto text = write_hwloc_xml(machine);
  REQUIRE(text);
  const auto again = read_hwloc_xml(*text, "unnamed");
  INFO((again ? "" : again.error().message));
  REQUIRE(again);
  INFO(to_json(machine).dump(1) << "\n--- and again ---\n" << to_json(*again).dump(1));
  CHECK((without_notes(*again) == without_notes(machine)));
  check_with_libhwloc(*text, machine);
}

constexpr const char* kOneCore = R"(
    <object type="Core" os_index="0" cpuset="0x1" complete_cpuset="0x1" nodeset="0x1" complete_nodeset="0x1">
      <object type="PU" os_index="0" cpuset="0x1" complete_cpuset="0x1" nodeset="0x1" complete_nodeset="0x1"/>
    </object>)";

Machine read_sample(const std::string& text) {
  const auto machine = read_hwloc_xml(text, "given");
  INFO(text << (machine ? "" : machine.error().message));
  REQUIRE(machine);
  CHECK(*machine_from_json(to_json(*machine)) == *machine);
  check_round_trip(*machine);
  return *machine;
}

}  // namespace

TEST_CASE("recorded machines: GPUs on their NUMA nodes, with names, chips and memory") {
  if (!have_recordings()) return;
  const Machine turin = read_hwloc("prrte-turin-4gpu-nvml.xml");
  CHECK(turin.host == "h200-1001");
  CHECK(turin.cores.size() == 128);
  CHECK(turin.numa.size() == 8);
  CHECK(turin.packages.at(1) == Package{1, "x86_64", "AuthenticAMD", 26, 2});
  CHECK(numa_of_gpus(turin) == std::vector<int>{1, 2, 6, 7});
  CHECK(turin.gpus[0].uuid == "GPU-46f77619-68bf-8f9d-7cfb-61fa9c4ca692");
  CHECK(turin.gpus[0].name == "NVIDIA H200");
  CHECK(turin.gpus[0].sm == 90);
  CHECK(turin.gpus[0].memory_bytes == uint64_t{146593728} << 10);
  const auto between = links_between_gpus(turin);
  CHECK(between.size() == 12);
  for (const auto& [pair, count] : between) CHECK(count == 6);

  const Machine lassen = read_hwloc("mpibind-coral-lassen.xml");
  CHECK(lassen.packages[0].arch == "ppc64le");
  CHECK(numa_of_gpus(lassen) == std::vector<int>{0, 0, 8, 8});
  const Machine g4dn = read_hwloc("mpibind-g4dnmetal.xml");
  CHECK(numa_of_gpus(g4dn) == std::vector<int>{0, 0, 0, 0, 1, 1, 1, 1});
  CHECK(g4dn.gpus[7].sm == 75);
  const Machine zen = read_hwloc("hwloc-x86-AMD-19h-Zen4-2xEpyc-9654.xml");
  CHECK(zen.host == "unnamed");
  CHECK(zen.gpus.empty());
  CHECK(zen.cores.size() == 192);
  CHECK(zen.packages.size() == 2);
}

TEST_CASE("without the driver's library PCI ids say which devices are GPUs") {
  if (!have_recordings()) return;
  const Machine with = read_hwloc("prrte-turin-4gpu-nvml.xml"), without = read_hwloc("prrte-turin-4gpu.xml");
  REQUIRE(without.gpus.size() == with.gpus.size());
  for (size_t i = 0; i < with.gpus.size(); ++i) {
    CHECK(without.gpus[i].index == with.gpus[i].index);
    CHECK(without.gpus[i].bus_id == with.gpus[i].bus_id);
    CHECK(without.gpus[i].numa == with.gpus[i].numa);
    CHECK(without.gpus[i].pci == with.gpus[i].pci);
    CHECK(without.gpus[i].name == with.gpus[i].name);
    CHECK(without.gpus[i].sm == with.gpus[i].sm);
  }
  CHECK(without.pci == with.pci);
  CHECK(without.nics == with.nics);
}

TEST_CASE("RDMA devices carry their interface, port, state and guid") {
  if (!have_recordings()) return;
  const Machine turin = read_hwloc("prrte-turin-4gpu.xml");
  REQUIRE(turin.nics.size() == 7);
  const Nic& up = turin.nics[4];
  CHECK(up == Nic{"mlx5_4", "0000:93:00.0", 6, 0, true, up.pci, 1, "0xb8e9240300baa4c0", "ib1x", true, true});
  CHECK(turin.nics[0].name == "mlx5_0");
  CHECK_FALSE(turin.nics[0].active);
  CHECK(turin.nics[6].name == "eno6");
  CHECK_FALSE(turin.nics[6].rdma);

  const Machine lassen = read_hwloc("mpibind-coral-lassen.xml");
  std::vector<std::string> names;
  for (const Nic& nic : lassen.nics) names.push_back(nic.name + "/" + nic.interface);
  CHECK(names == std::vector<std::string>{"mlx5_0/hsi0", "mlx5_1/hsi1", "mlx5_2/hsi2", "mlx5_3/hsi3", "enP5p1s0f0/",
                                          "enP5p1s0f1/"});
  const Machine g4dn = read_hwloc("mpibind-g4dnmetal.xml");
  REQUIRE(g4dn.nics.size() == 2);
  CHECK(g4dn.nics[0].name == "rdmap197s0");
  CHECK(g4dn.nics[0].guid == "");
}

TEST_CASE("NVLinks of POWER8 lead to GPUs and to processors") {
  if (!have_recordings()) return;
  const Machine machine = read_hwloc("hwloc-xml-power8gpudistances.xml");
  CHECK(machine.host == "drac-12.grenoble.grid5000.fr");
  CHECK(numa_of_gpus(machine) == std::vector<int>{0, 0, 1, 1});
  CHECK(links_between_gpus(machine) ==
        std::map<std::pair<int, int>, int>{{{0, 1}, 2}, {{1, 0}, 2}, {{2, 3}, 2}, {{3, 2}, 2}});
  int to_cpus = 0;
  for (const GpuLink& link : machine.links) {
    if (link.end != LinkEnd::cpu) continue;
    ++to_cpus;
    CHECK(link.peer == machine.gpus[static_cast<size_t>(link.gpu)].numa);
    CHECK(link.count == 2);
    CHECK(link.gb_per_s_each == 18);
  }
  CHECK(to_cpus == 4);
}

TEST_CASE("a virtual machine's GPUs get their names from libraries that do not know their addresses") {
  if (!have_recordings()) return;
  const Machine machine = read_hwloc("vm-2xh200.xml");
  REQUIRE(machine.gpus.size() == 2);
  CHECK(machine.gpus[1].bus_id == "0000:00:07.0");
  CHECK(machine.gpus[1].name == "NVIDIA H200");
  CHECK(machine.gpus[1].numa == 0);
  CHECK(machine.pci[static_cast<size_t>(machine.gpus[1].pci)].link == PciLink{32, 16});
  REQUIRE(machine.nics.size() == 1);
  CHECK(machine.nics[0].name == "eth0");
}

TEST_CASE("every recording of any format is the same after writing it as hwloc XML and reading that") {
  if (!have_recordings()) return;
  size_t machines = 0;
  for (const auto& path : recordings("hwloc")) {
    INFO(path);
    const auto machine = read_hwloc_xml(tests::read_text(path), "unnamed");
    REQUIRE(machine);
    CHECK(*machine_from_json(to_json(*machine)) == *machine);
    check_round_trip(*machine);
    ++machines;
  }
  for (const auto& path : recordings("nccl")) {
    INFO(path);
    const auto machine = read_nccl_xml(tests::read_text(path), "unnamed");
    REQUIRE(machine);
    check_round_trip(*machine);
    ++machines;
  }
  CHECK(machines >= 2);
}

TEST_CASE("hwloc 1.x: sockets below NUMA nodes, devices among them, no versions and no ids") {
  const Machine machine = read_sample(R"(<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc.dtd">
<topology>
  <object type="Machine" os_index="0" cpuset="0x000000ff" online_cpuset="0x0000007f" allowed_cpuset="0x000000ff"
          nodeset="0x00000003" allowed_nodeset="0x00000003">
    <info name="HostName" value="old"/>
    <info name="Architecture" value="x86_64"/>
    <distances nbobjs="2" relative_depth="1" latency_base="10.000000">
      <latency value="1.000000"/><latency value="2.100000"/><latency value="2.100000"/><latency value="1.000000"/>
    </distances>
    <object type="NUMANode" os_index="0" cpuset="0x0000000f" nodeset="0x00000001" local_memory="1073741824">
      <object type="Socket" os_index="0" cpuset="0x0000000f" nodeset="0x00000001">
        <info name="CPUVendor" value="GenuineIntel"/>
        <info name="CPUFamilyNumber" value="6"/>
        <info name="CPUModelNumber" value="45"/>
        <object type="Cache" cpuset="0x0000000f" nodeset="0x00000001" cache_size="20971520" depth="3" cache_type="0">
          <object type="Core" os_index="0" cpuset="0x00000003" nodeset="0x00000001">
            <object type="PU" os_index="0" cpuset="0x00000001" nodeset="0x00000001"/>
            <object type="PU" os_index="1" cpuset="0x00000002" nodeset="0x00000001"/>
          </object>
          <object type="Core" os_index="1" cpuset="0x0000000c" nodeset="0x00000001">
            <object type="PU" os_index="2" cpuset="0x00000004" nodeset="0x00000001"/>
            <object type="PU" os_index="3" cpuset="0x00000008" nodeset="0x00000001"/>
          </object>
        </object>
      </object>
      <object type="Bridge" os_index="0" bridge_type="0-1" depth="0" bridge_pci="0000:[00-05]">
        <object type="Bridge" os_index="32" bridge_type="1-1" depth="1" bridge_pci="0000:[03-03]"
                pci_busid="0000:00:02.0" pci_type="0604 [8086:3c04] [0000:0000] 07" pci_link_speed="8.000000">
          <object type="PCIDev" os_index="12288" name="Tesla K40m" pci_busid="0000:03:00.0"
                  pci_type="0302 [10de:1023] [10de:097e] a1" pci_link_speed="8.000000">
            <object type="OSDev" name="cuda0" osdev_type="5">
              <info name="CoProcType" value="CUDA"/>
              <info name="Backend" value="CUDA"/>
              <info name="GPUModel" value="Tesla K40m"/>
              <info name="CUDAGlobalMemorySize" value="11766848"/>
            </object>
            <object type="OSDev" name="nvml0" osdev_type="1">
              <info name="NVIDIAUUID" value="GPU-00000000-0000-0000-0000-000000000001"/>
            </object>
            <object type="OSDev" name="controlD64" osdev_type="1"/>
          </object>
        </object>
        <object type="Bridge" os_index="33" bridge_type="1-1" depth="1" bridge_pci="0000:[05-05]"
                pci_busid="0000:00:03.0" pci_type="0604 [8086:3c08] [0000:0000] 07" pci_link_speed="0.000000">
          <object type="PCIDev" os_index="20480" pci_busid="0000:05:00.0" pci_type="0c06 [15b3:673c] [15b3:0022] b0"
                  pci_link_speed="4.000000">
            <object type="OSDev" name="ib0" osdev_type="2"><info name="Port" value="1"/></object>
            <object type="OSDev" name="ib1" osdev_type="2"><info name="Port" value="2"/></object>
            <object type="OSDev" name="mlx4_0" osdev_type="3">
              <info name="NodeGUID" value="0002:c903:00b5:1234"/>
              <info name="Port1State" value="1"/>
              <info name="Port2State" value="4"/>
            </object>
          </object>
        </object>
      </object>
    </object>
    <object type="NUMANode" os_index="1" cpuset="0x000000f0" nodeset="0x00000002" local_memory="2147483648">
      <object type="Socket" os_index="1" cpuset="0x000000f0" nodeset="0x00000002">
        <object type="Core" os_index="0" cpuset="0x00000030" nodeset="0x00000002">
          <object type="PU" os_index="4" cpuset="0x00000010" nodeset="0x00000002"/>
          <object type="PU" os_index="5" cpuset="0x00000020" nodeset="0x00000002"/>
        </object>
        <object type="Core" os_index="1" cpuset="0x000000c0" nodeset="0x00000002">
          <object type="PU" os_index="6" cpuset="0x00000040" nodeset="0x00000002"/>
          <object type="PU" os_index="7" cpuset="0x00000080" nodeset="0x00000002"/>
        </object>
      </object>
    </object>
  </object>
</topology>)");
  CHECK(machine.host == "old");
  CHECK(machine.packages == std::vector<Package>{{0, "x86_64", "GenuineIntel", 6, 45}, {1, "x86_64", "", 0, 0}});
  CHECK(machine.cores == std::vector<Core>{{0, 0, 0, {0, 1}}, {1, 0, 0, {2, 3}}, {2, 1, 1, {4, 5}}, {3, 1, 1, {6}}});
  CHECK(machine.numa == std::vector<NumaNode>{{0, 0, 1 << 30}, {1, 1, uint64_t{2} << 30}});
  REQUIRE(machine.gpus.size() == 1);
  CHECK(machine.gpus[0].name == "Tesla K40m");
  CHECK(machine.gpus[0].numa == 0);
  CHECK(machine.gpus[0].memory_bytes == uint64_t{11766848} << 10);
  CHECK(machine.gpus[0].uuid == "GPU-00000000-0000-0000-0000-000000000001");
  REQUIRE(machine.pci.size() == 4);
  CHECK(machine.pci[1].link == PciLink{5, 16});
  REQUIRE(machine.nics.size() == 1);
  CHECK(machine.nics[0].name == "mlx4_0");
  CHECK(machine.nics[0].interface == "ib1");
  CHECK(machine.nics[0].port == 2);
}

TEST_CASE("hwloc 3.x: kinds of devices are bits, sizes have units, infos stand behind the objects") {
  const std::string pci = R"(pci_type="0380 [1002:740c] [1002:0b0c] 01 00" pci_link_speed="31.507692")";
  const auto gpu = [&](int i, const char* bus_id) {
    const std::string id = std::to_string(20 + i), os = std::to_string(30 + i);
    return "<object type=\"PCIDev\" gp_index=\"" + id + "\" id=\"obj" + id + "\" pci_busid=\"" + bus_id + "\" " + pci +
           "><object type=\"OSDev\" gp_index=\"" + os + "\" id=\"obj" + os + "\" name=\"rsmi" + std::to_string(i) +
           "\" subtype=\"RSMI\" osdev_type=\"12\"><info name=\"AMDUUID\" value=\"8fa" + std::to_string(i) +
           "\"/><info name=\"RSMIVRAMSize\" value=\"67092480KiB\"/></object></object>";
  };
  const Machine machine = read_sample(R"(<topology version="3.0">
  <object type="Machine" os_index="0" cpuset="0x1" complete_cpuset="0x1" allowed_cpuset="0x1" nodeset="0x1"
          complete_nodeset="0x1" allowed_nodeset="0x1" gp_index="1" id="obj1">
    <object type="NUMANode" os_index="0" cpuset="0x1" complete_cpuset="0x1" nodeset="0x1" complete_nodeset="0x1"
            gp_index="2" id="obj2" local_memory="1024"/>)" +
                                    std::string(kOneCore) + R"(
    <object type="Bridge" gp_index="10" bridge_type="0-1" depth="0" bridge_pci="0000:[00-ff]">)" +
                                    gpu(0, "0000:c1:00.0") + gpu(1, "0000:c6:00.0") + gpu(2, "0000:c9:00.0") + R"(
      <object type="PCIDev" gp_index="40" pci_busid="0000:d1:00.0" pci_type="0200 [17db:0501] [17db:0000] 00 00">
        <object type="OSDev" gp_index="41" name="hsn0" subtype="Slingshot" osdev_type="16"/>
      </object>
      <object type="PCIDev" gp_index="42" pci_busid="0000:d2:00.0" pci_type="0108 [144d:a900] [144d:ad06] 00 02">
        <object type="OSDev" gp_index="43" name="nvme0n1" subtype="Disk" osdev_type="1"/>
      </object>
      <object type="PCIDev" gp_index="44" pci_busid="0000:d3:00.3" pci_type="0c03 [1022:148c] [1022:148c] 00 30">
        <object type="OSDev" gp_index="45" name="usb0" osdev_type="16"/>
      </object>
    </object>
  </object>
  <distances2 type="OSDev" nbobjs="3" kind="9" name="XGMIBandwidth" indexing="gp">
    <indexes length="9">30 31 32 </indexes>
    <u64values length="60">1000000 100000 100000 100000 1000000 100000 </u64values>
    <u64values length="30">100000 100000 1000000 </u64values>
  </distances2>
  <distances2 type="OSDev" nbobjs="3" kind="33" name="XGMIHops" indexing="gp">
    <indexes length="9">30 31 32 </indexes>
    <u64values length="18">0 1 2 1 0 1 2 1 0 </u64values>
  </distances2>
  <info name="HostName" value="new"/>
  <info name="Architecture" value="aarch64"/>
</topology>)");
  CHECK(machine.host == "new");
  CHECK(machine.packages == std::vector<Package>{{0, "arm64", "", 0, 0}});
  REQUIRE(machine.gpus.size() == 3);
  CHECK(machine.gpus[2].gcn == "gfx90a");
  CHECK(machine.gpus[2].uuid == "8fa2");
  CHECK(machine.gpus[2].memory_bytes == uint64_t{67092480} << 10);
  CHECK(machine.pci[0].pci_class == 0x038000);
  CHECK(links_between_gpus(machine) ==
        std::map<std::pair<int, int>, int>{{{0, 1}, 1}, {{1, 0}, 1}, {{1, 2}, 1}, {{2, 1}, 1}});
  CHECK(machine.links[0].kind == LinkKind::xgmi);
  CHECK(machine.links[0].gb_per_s_each == 36);
  REQUIRE(machine.nics.size() == 1);
  CHECK(machine.nics[0].name == "hsn0");
  CHECK(machine.nics[0].rdma);
}

TEST_CASE("GPU memory is no NUMA node of a processor, and plain memory comes before special") {
  // Grace: node 0 is the processor's, 1 its GPU's. Then a memory-side cache, and fast memory of the same cores.
  const Machine machine = read_sample(R"(<topology version="2.0">
  <object type="Machine" os_index="0" cpuset="0x1" complete_cpuset="0x1" nodeset="0xf" complete_nodeset="0xf"
          allowed_nodeset="0xd" allowed_cpuset="0x1" gp_index="1">
    <object type="NUMANode" os_index="1" cpuset="0x1" nodeset="0x2" gp_index="2" subtype="GPUMemory"
            local_memory="100000"><info name="PCIBusID" value="0009:01:00.0"/></object>
    <object type="NUMANode" os_index="2" cpuset="0x1" nodeset="0x4" gp_index="3" subtype="HBM" local_memory="4096"/>
    <object type="MemCache" cpuset="0x1" nodeset="0x8" gp_index="4" cache_size="1" depth="1" cache_type="0">
      <object type="NUMANode" os_index="3" cpuset="0x1" nodeset="0x8" gp_index="5" local_memory="2048"/>
    </object>)" + std::string(kOneCore) + R"(
    <object type="PCIDev" gp_index="40" pci_busid="0009:01:00.0" pci_type="0302 [10de:2342] [10de:0000] a1"/>
  </object>
</topology>)");
  CHECK(machine.numa == std::vector<NumaNode>{{2, 0, 4096}, {3, 0, 2048}});
  CHECK(machine.cores[0].numa == 3);
  CHECK(machine.gpus[0].numa == 3);
  CHECK(machine.notes == std::vector<std::string>{"NUMA node 1 is left out: a GPU's memory"});
}

TEST_CASE("a cgroup's limits are heeded") {
  const auto machine = read_hwloc_xml(R"(<topology version="2.0">
  <object type="Machine" os_index="0" cpuset="0x3" nodeset="0x3" allowed_cpuset="0x2" allowed_nodeset="0x2">
    <object type="Package" os_index="0" cpuset="0x1" nodeset="0x1">
      <object type="NUMANode" os_index="0" cpuset="0x1" nodeset="0x1" local_memory="1"/>
      <object type="PU" os_index="0" cpuset="0x1" nodeset="0x1"/>
      <object type="PCIDev" pci_busid="0000:01:00.0" pci_type="0302 [10de:2330] [10de:0000] a1"/>
    </object>
    <object type="Package" os_index="1" cpuset="0x2" nodeset="0x2">
      <object type="NUMANode" os_index="1" cpuset="0x2" nodeset="0x2" local_memory="1"/>
      <object type="PU" os_index="1" cpuset="0x2" nodeset="0x2"/>
    </object>
  </object>
</topology>)", "given");
  REQUIRE(machine);
  CHECK(machine->host == "given");
  CHECK(machine->cores == std::vector<Core>{{1, 1, 1, {1}}});
  CHECK(machine->numa == std::vector<NumaNode>{{1, 1, 1}});
  CHECK(machine->gpus.at(0).numa == 0);
  CHECK(machine->notes == std::vector<std::string>{"the recorded cpuset leaves 1 of 2 cores",
                                                   "the recorded cpuset leaves 1 of 2 NUMA nodes"});
  check_round_trip(*machine);
}

TEST_CASE("GPUs without a PCI function count by the best library that tells of them") {
  const Machine machine = read_sample(R"(<topology version="2.0">
  <object type="Machine" os_index="0" cpuset="0x1" nodeset="0x1">
    <object type="NUMANode" os_index="0" cpuset="0x1" nodeset="0x1" local_memory="1"/>)" + std::string(kOneCore) + R"(
    <object type="OSDev" name="cuda0" subtype="CUDA" osdev_type="5">
      <info name="CUDAGlobalMemorySize" value="1024"/></object>
    <object type="OSDev" name="nvml0" subtype="NVML" osdev_type="1"><info name="GPUModel" value="A"/></object>
    <object type="OSDev" name="opencl0d0" subtype="OpenCL" osdev_type="5">
      <info name="OpenCLDeviceType" value="CPU"/></object>
    <object type="OSDev" name="lo" osdev_type="2"/>
    <object type="OSDev" name="bxi0" osdev_type="3"/>
  </object>
</topology>)");
  REQUIRE(machine.gpus.size() == 1);
  CHECK(machine.gpus[0] == Gpu{0, "", "", "A", 1 << 20, 0});
  REQUIRE(machine.nics.size() == 1);
  CHECK(machine.nics[0].name == "bxi0");
}

TEST_CASE("what is wrong with an hwloc file is said with its line") {
  const auto error_of = [](const std::string& text) {
    const auto machine = read_hwloc_xml(text, "given");
    INFO(text);
    REQUIRE_FALSE(machine);
    CHECK(machine.error().code == ErrorCode::bad_input);
    return machine.error().message;
  };
  const auto contains = [](const std::string& text, const std::string& part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  contains(error_of(""), "hwloc XML");
  contains(error_of("<topology>\n<object>"), "line");
  contains(error_of("<system version=\"1\"/>"), "expected <topology>");
  contains(error_of("<topology/>"), "without an <object>");
  const std::string head = "<topology version=\"2.0\">\n<object type=\"Machine\" cpuset=\"0x3\">\n";
  contains(error_of(head + "<object type=\"PU\" os_index=\"0\" cpuset=\"0xg\"/></object></topology>"),
           "line 3: cpuset");
  contains(error_of(head + "<object type=\"PU\"/></object></topology>"), "line 3: <object type=\"PU\"> needs os_index");
  const std::string pu = "<object type=\"PU\" os_index=\"1\"/>";
  contains(error_of(head + pu + "\n" + pu + "</object></topology>"),
           "line 4: PU 1 is listed twice");
  contains(error_of(head + "<object type=\"PCIDev\" pci_busid=\"zz\"/></object></topology>"), "line 3: pci_busid");
  contains(error_of(head + "</object>\n<distances2 name=\"NVLinkBandwidth\" nbobjs=\"2\" type=\"OSDev\" "
                           "indexing=\"gp\"><indexes>1 2</indexes><u64values>1 2 3</u64values>"
                           "</distances2></topology>"),
           "line 4: NVLinkBandwidth has 2 indexes and 3 values");
  std::string deep = "<topology>";
  for (int i = 0; i < 100; ++i) deep += "<object type=\"Group\">";
  for (int i = 0; i < 100; ++i) deep += "</object>";
  contains(error_of(deep + "</topology>"), "64 levels");
}

TEST_CASE("no damage to an hwloc file does more than give an error, and what is read survives JSON and writing") {
  if (!have_recordings()) return;
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  const Machine power = read_hwloc("hwloc-xml-power8gpudistances.xml");
  const std::vector<std::string> texts{recording("hwloc/hwloc-xml-power8gpudistances.xml"), *write_hwloc_xml(power),
                                       recording("hwloc/vm-2xh200.xml")};
  const char* const pieces[] = {"0", "9", "-1", "99999999999999999999", "0x", ",", "\"", "<", "/>", "type", "Bridge",
                                "PCIDev", "OSDev", "NUMANode", "order=", "numa=", "f...f", "\xff", " ", "object"};
  int read = 0;
  for (int round = 0; round < 600; ++round) {
    std::string text = texts[static_cast<size_t>(round) % texts.size()];
    for (unsigned k = random() % 8; k > 0; --k) {
      const std::string piece = pieces[random() % std::size(pieces)];
      text.replace(random() % text.size(), random() % 3 ? piece.size() : random() % 200, piece);
    }
    const auto machine = read_hwloc_xml(text, "given");
    if (!machine) continue;
    ++read;
    const auto json = machine_from_json(to_json(*machine));
    INFO((json ? "" : json.error().message));
    REQUIRE(json);
    CHECK((*json == *machine));
    const auto written = write_hwloc_xml(*machine);
    if (written) CHECK(read_hwloc_xml(*written, "given"));
  }
  CHECK(read > 0);
}
