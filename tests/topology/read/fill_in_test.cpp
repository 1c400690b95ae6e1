// Two recordings of one machine make a whole one.
#include "topology/paths.hpp"
#include "topology/read/read_machine.hpp"

#include "tests/topology/recordings.hpp"
#include "tests/catch.hpp"

using namespace mds::topology;

namespace {

Machine nccl(const std::string& inside) {
  const auto machine = read_nccl_xml("<system version=\"1\">" + inside + "</system>", "host");
  REQUIRE(machine.ok());
  return *machine;
}

const char* const kGpu0 =
    "<pci busid=\"0000:07:00.0\" class=\"0x030200\" link_speed=\"16.0 GT/s PCIe\" link_width=\"16\">"
    "<gpu dev=\"0\" sm=\"80\" rank=\"0\" gdr=\"1\"><nvlink target=\"0000:0a:00.0\" count=\"12\" tclass=\"0x030200\"/>"
    "</gpu></pci>";
const char* const kGpu1 =
    "<pci busid=\"0000:0a:00.0\" class=\"0x030200\" link_speed=\"16.0 GT/s PCIe\" link_width=\"16\">"
    "<gpu dev=\"1\" sm=\"80\" rank=\"1\" gdr=\"1\"><nvlink target=\"0000:07:00.0\" count=\"12\" tclass=\"0x030200\"/>"
    "</gpu></pci>";

Machine with_links() {
  return nccl(
      std::string("<cpu numaid=\"-1\" arch=\"x86_64\" vendor=\"GenuineIntel\" familyid=\"6\" modelid=\"143\">") +
      kGpu0 + kGpu1 + "</cpu>");
}

/// As hwloc or NVML see the same machine, in their own writing.
Machine with_cores() {
  Machine m;
  m.host = "host";
  m.packages = {{0, "x86_64", "GenuineIntel", 6, 143}};
  m.numa = {{0, 0, uint64_t{64} << 30}};
  m.cores = {{0, 0, 0, {0, 1}}, {1, 0, 0, {2, 3}}};
  for (int i = 0; i < 2; ++i) {
    Gpu gpu;
    gpu.index = i;
    gpu.uuid = "GPU-" + std::to_string(i);
    gpu.bus_id = i ? "00000000:0A:00.0" : "00000000:07:00.0";
    gpu.name = "NVIDIA A100";
    gpu.memory_bytes = uint64_t{80} << 30;
    m.gpus.push_back(gpu);
  }
  Nic nic;
  nic.name = "mlx5_0";
  nic.gbps = 200;
  nic.rdma = nic.gdr = true;
  m.nics.push_back(nic);
  return m;
}

void check_whole(const Machine& m) {
  REQUIRE(m.gpus.size() == 2);
  CHECK(m.cores.size() == 2);
  CHECK(m.cores[0].cpus == std::vector<int>{0, 1});
  CHECK(m.numa.size() == 1);
  for (const Gpu& gpu : m.gpus) {
    CHECK(gpu.uuid == "GPU-" + std::to_string(gpu.index));
    CHECK(gpu.name == "NVIDIA A100");
    CHECK(gpu.sm == 80);
    CHECK(gpu.numa == 0);
    CHECK(gpu.pci >= 0);
  }
  REQUIRE(m.links.size() == 2);
  CHECK(find_paths(m).between_gpus(0, 1) == Path{PathClass::nvl, 240, 1});
  REQUIRE(m.nics.size() == 1);
  CHECK(m.nics[0].name == "mlx5_0");
}

}  // namespace

TEST_CASE("fill_in: cores from one, links from the other, in either order") {
  Machine m = with_cores();
  fill_in(m, with_links());
  check_whole(m);
  m = with_links();
  fill_in(m, with_cores());
  check_whole(m);
  const Machine once = m;
  fill_in(m, with_cores());
  fill_in(m, with_links());
  CHECK(m == once);
}

TEST_CASE("fill_in: GPUs under other bus ids are matched by UUID, then by index") {
  Machine m = with_cores(), other = with_links();
  std::swap(m.gpus[0], m.gpus[1]);
  for (Gpu& gpu : m.gpus) gpu.bus_id = gpu.index ? "0001:00:00.0" : "0002:00:00.0";
  for (Gpu& gpu : other.gpus) gpu.uuid = "GPU-" + std::to_string(1 - gpu.index);
  fill_in(m, other);
  REQUIRE(m.gpus.size() == 2);
  REQUIRE(m.links.size() == 2);
  CHECK(m.links[0].peer == 1);
  for (Gpu& gpu : m.gpus) gpu.uuid.clear();
  Machine third = with_links();
  third.gpus[0].bus_id = "0003:00:00.0";
  third.gpus[0].name = "by index";
  m.gpus[1].name.clear();
  fill_in(m, third);
  CHECK(m.gpus.size() == 2);
  CHECK(m.gpus[1].name == "by index");  // index 0 stands second here
}

TEST_CASE("fill_in: devices that only one of the two has are added, the fuller PCI tree stays whole") {
  Machine m = nccl(std::string("<cpu numaid=\"0\" affinity=\"f\" arch=\"x86_64\">") + kGpu0 + "</cpu>");
  const Machine other = nccl(
      std::string("<cpu numaid=\"0\" affinity=\"f\" arch=\"x86_64\">"
                  "<pci busid=\"0000:05:00.0\" class=\"0x060400\" link_speed=\"\" link_width=\"16\">") +
      kGpu0 + kGpu1 +
      "<pci busid=\"0000:0c:00.0\" class=\"0x020700\" link_speed=\"16.0 GT/s PCIe\" link_width=\"16\"><nic>"
      "<net name=\"mlx5_0\" dev=\"0\" speed=\"200000\" port=\"1\" guid=\"0x1\" gdr=\"1\"/></nic></pci></pci></cpu>");
  fill_in(m, other);
  REQUIRE(m.gpus.size() == 2);
  REQUIRE(m.nics.size() == 1);
  CHECK(find_paths(m).to_nic(0, 0) == Path{PathClass::pix, 24, 3});
  CHECK(find_paths(m).between_gpus(0, 1).kind == PathClass::nvl);
  CHECK(m.links.size() == 2);
}

TEST_CASE("fill_in: GPUDirect RDMA is what the source that knows says") {
  Machine m = with_cores(), other = with_cores();
  other.nics[0].gdr = false;
  fill_in(m, other);
  CHECK_FALSE(m.nics[0].gdr);
}

TEST_CASE("fill_in: the virtual machine with two H200, as hwloc and as NCCL saw it") {
  const auto folder = tests::recordings_folder();
  if (folder.empty()) return;
  const auto from_nccl = read_nccl_xml(tests::read_text(folder / "nccl/vm-2xh200.xml"), "vm");
  const auto from_hwloc = read_hwloc_xml(tests::read_text(folder / "hwloc/vm-2xh200.xml"), "vm");
  REQUIRE(from_nccl.ok());
  REQUIRE(from_hwloc.ok());
  for (const bool hwloc_first : {true, false}) {
    Machine m = hwloc_first ? *from_hwloc : *from_nccl;
    fill_in(m, hwloc_first ? *from_nccl : *from_hwloc);
    INFO((hwloc_first ? "hwloc first" : "NCCL first"));
    REQUIRE(m.gpus.size() == 2);
    CHECK(find_paths(m).between_gpus(0, 1).kind == PathClass::nvl);  // NV18
    CHECK(find_paths(m).between_gpus(0, 1).gb_per_s == Approx(370.8));
    for (const Gpu& gpu : m.gpus) {
      CHECK(gpu.numa == 0);
      CHECK(gpu.sm == 90);
    }
    size_t cpus = 0;
    for (const Core& core : m.cores) cpus += core.cpus.size();
    CHECK(cpus == 32);
    CHECK(m.numa.size() == 1);
    REQUIRE(m.nics.size() == 1);
    CHECK(m.nics[0].name == "eth0");
    CHECK(m.nics[0].gbps == 10);
    CHECK_FALSE(m.nics[0].bus_id.empty());
    CHECK(m.packages.front().model == 207);
  }
}
