#include "topology/paths.hpp"

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "topology/paths_graph.hpp"
#include "topology/paths_pci.hpp"
#include "topology/read/read_machine.hpp"

#include "tests/topology/recordings.hpp"
#include "tests/catch.hpp"

using namespace mds::topology;

namespace {

/// Builds machines in NCCL's form: one PciDevice a switch.
class Maker {
 public:
  explicit Maker(const std::string& vendor = "GenuineIntel", int model = 143, int numa_nodes = 2) {
    for (int i = 0; i < numa_nodes; ++i) {
      machine.packages.push_back({i, "x86_64", vendor, 6, model});
      machine.numa.push_back({i, i, 0});
    }
  }

  int bridge(int numa, int parent = -1, PciLink link = {32, 16}) { return device(0x060400, numa, parent, link); }

  size_t gpu(int numa, int parent = -1, PciLink link = {32, 16}, int sm = 90) {
    Gpu gpu;
    gpu.index = static_cast<int>(machine.gpus.size());
    gpu.numa = numa;
    gpu.sm = sm;
    gpu.pci = device(0x030200, numa, parent, link);
    gpu.bus_id = machine.pci.back().bus_id;
    machine.gpus.push_back(gpu);
    return machine.gpus.size() - 1;
  }

  size_t nic(int numa, int parent = -1, double gbps = 400, PciLink link = {32, 16}) {
    Nic nic;
    nic.name = "mlx5_" + std::to_string(machine.nics.size());
    nic.numa = numa;
    nic.gbps = gbps;
    nic.rdma = nic.gdr = true;
    nic.pci = device(0x020700, numa, parent, link);
    nic.bus_id = machine.pci.back().bus_id;
    machine.nics.push_back(nic);
    return machine.nics.size() - 1;
  }

  void nvlink(size_t a, size_t b, int count) {
    machine.links.push_back(link(a, LinkEnd::gpu, static_cast<int>(b), count));
    machine.links.push_back(link(b, LinkEnd::gpu, static_cast<int>(a), count));
  }

  void nvswitch(size_t gpu, int count) { machine.links.push_back(link(gpu, LinkEnd::nvswitch, -1, count)); }

  GpuLink link(size_t gpu, LinkEnd end, int peer, int count) const {
    GpuLink link;
    link.gpu = static_cast<int>(gpu);
    link.end = end;
    link.peer = peer;
    link.count = count;
    link.gb_per_s_each = nvlink_gb_per_s(machine.gpus[gpu].sm);
    return link;
  }

  Paths paths() const { return find_paths(machine); }

  Machine machine;

 private:
  int device(uint32_t pci_class, int numa, int parent, PciLink link) {
    PciDevice device;
    char id[32];
    std::snprintf(id, sizeof id, "0000:%02x:00.0", static_cast<unsigned>(4 * machine.pci.size() + 4) & 0xff);
    device.bus_id = id;
    device.parent = parent;
    device.numa = numa;
    device.pci_class = pci_class;
    device.link = link;
    machine.pci.push_back(device);
    return static_cast<int>(machine.pci.size()) - 1;
  }
};

Path path(PathClass kind, double gb_per_s, int hops) { return {kind, gb_per_s, hops}; }

}  // namespace

namespace mds::topology {
std::ostream& operator<<(std::ostream& out, const Path& path) {
  return out << "(" << path.hops << "/" << path.gb_per_s << "/" << to_string(path.kind) << ")";
}
}  // namespace mds::topology

TEST_CASE("bandwidths of links are NCCL's") {
  const std::map<double, double> speeds{{2.5, 15}, {5, 30}, {8, 60}, {16, 120}, {32, 240}, {64, 480}};
  for (const auto& [gtps, speed] : speeds) {
    for (const int width : {1, 4, 8, 16}) CHECK(pci_gb_per_s({gtps, width}) == Approx(width * speed / 80));
  }
  CHECK(pci_gb_per_s({0, 16}) == Approx(12));  // unknown speed counts as 60
  CHECK(pci_gb_per_s({31.4, 8}) == Approx(6));
  CHECK(pci_gb_per_s({32, 0}) == Approx(48));  // width 0 as 16
  CHECK(pci_gb_per_s({}) == Approx(12));
  const std::map<int, double> nvlinks{{60, 18}, {61, 18}, {70, 20},   {75, 20},    {80, 20},    {86, 12},
                                      {87, 20}, {89, 20}, {90, 20.6}, {100, 40.1}, {103, 40.1}, {0, 20}};
  for (const auto& [sm, gb_per_s] : nvlinks) CHECK(nvlink_gb_per_s(sm) == Approx(gb_per_s));
  const std::map<std::string, double> xgmi{{"gfx906", 24}, {"gfx908", 24}, {"gfx90a", 36}, {"gfx942", 48},
                                           {"gfx950", 48}, {"", 24},       {"gfx940", 48}};
  for (const auto& [gcn, gb_per_s] : xgmi) CHECK(xgmi_gb_per_s(gcn) == Approx(gb_per_s));
}

TEST_CASE("bandwidths between sockets go by maker and model") {
  const auto intel = [](int model) { return socket_gb_per_s({0, "x86_64", "GenuineIntel", 6, model}); };
  CHECK(intel(0x4f) == 6);   // Broadwell
  CHECK(intel(0x55) == 10);  // Skylake, Cascade Lake
  CHECK(intel(0x6a) == 10);  // Ice Lake
  CHECK(intel(0x8f) == 22);  // Sapphire Rapids
  CHECK(intel(0xcf) == 40);  // Emerald Rapids
  CHECK(socket_gb_per_s({0, "x86_64", "AuthenticAMD", 25, 1}) == 16);
  CHECK(socket_gb_per_s({0, "arm64", "", 0, 0}) == 6);
  CHECK(socket_gb_per_s({0, "aarch64", "", 0, 0}) == 6);
  CHECK(socket_gb_per_s({0, "ppc64", "", 0, 0}) == 32);
  CHECK(socket_gb_per_s({0, "ppc64le", "", 0, 0}) == 32);
  CHECK(socket_gb_per_s({}) == 5000);  // NCCL does not limit what it does not know
}

TEST_CASE("classes are named and ordered as NCCL has them") {
  const std::vector<std::string> names{"LOC", "NVL", "NVB", "C2C", "PIX", "PXB",
                                       "P2C", "PXN", "PHB", "SYS", "NET", "DIS"};
  for (size_t i = 0; i < names.size(); ++i) CHECK(to_string(static_cast<PathClass>(i)) == names[i]);
}

TEST_CASE("PCI ways: one switch, several, the host bridge, the other socket") {
  Maker m;
  const int top = m.bridge(0), left = m.bridge(0, top), right = m.bridge(0, top);
  const size_t a = m.gpu(0, left), b = m.gpu(0, left), c = m.gpu(0, right), d = m.gpu(0), e = m.gpu(1);
  const size_t near = m.nic(0, left), far = m.nic(1, -1, 100);
  const Paths paths = m.paths();
  CHECK(paths.between_gpus(a, a) == path(PathClass::loc, 5000, 0));
  CHECK(paths.between_gpus(a, b) == path(PathClass::pix, 48, 2));
  CHECK(paths.between_gpus(a, c) == path(PathClass::pxb, 48, 4));
  CHECK(paths.between_gpus(a, d) == path(PathClass::phb, 48, 4));
  CHECK(paths.between_gpus(d, e) == path(PathClass::sys, 22, 3));
  CHECK(paths.between_gpus(a, e) == path(PathClass::sys, 22, 5));
  CHECK(paths.to_nic(a, near) == path(PathClass::pix, 48, 3));
  CHECK(paths.to_nic(c, near) == path(PathClass::pxb, 48, 5));
  CHECK(paths.to_nic(d, near) == path(PathClass::phb, 48, 5));
  CHECK(paths.to_nic(e, near) == path(PathClass::sys, 22, 6));
  CHECK(paths.to_nic(a, far) == path(PathClass::sys, 12.5, 6));  // its own 100 Gbit/s are the narrowest
  CHECK(paths.to_nic(e, far) == path(PathClass::phb, 12.5, 3));
}

TEST_CASE("the kernel's tree with all its ports gives the same paths as NCCL's") {
  // 00:01.1 root port > 01:00.0 upstream > 02:0x.0 downstream ports > GPU and NIC; 40:01.1 root port > GPU.
  Machine machine;
  const auto add = [&](const std::string& id, int parent, uint32_t pci_class) {
    PciDevice device;
    device.bus_id = id;
    device.parent = parent;
    device.numa = 0;
    device.pci_class = pci_class;
    device.link = {32, 16};
    machine.pci.push_back(device);
    return static_cast<int>(machine.pci.size()) - 1;
  };
  const int upstream = add("0000:01:00.0", add("0000:00:01.1", -1, 0x060400), 0x060400);
  const int gpu = add("0000:03:00.0", add("0000:02:00.0", upstream, 0x060400), 0x030200);
  const int nic = add("0000:04:00.0", add("0000:02:01.0", upstream, 0x060400), 0x020700);
  const int lone = add("0000:41:00.0", add("0000:40:01.1", -1, 0x060400), 0x030200);
  const std::vector<int> parents = switch_parents(machine.pci);
  CHECK(parents[static_cast<size_t>(gpu)] == upstream);
  CHECK(parents[static_cast<size_t>(nic)] == upstream);
  CHECK(parents[static_cast<size_t>(upstream)] == -1);
  CHECK(parents[static_cast<size_t>(lone)] == -1);
  machine.numa = {{0, 0, 0}};
  machine.gpus.resize(2);
  machine.gpus[0].pci = gpu;
  machine.gpus[1].pci = lone;
  machine.nics.resize(1);
  machine.nics[0].pci = nic;
  machine.nics[0].gdr = true;
  const Paths paths = find_paths(machine);
  CHECK(paths.to_nic(0, 0) == path(PathClass::pix, 48, 3));
  CHECK(paths.to_nic(1, 0) == path(PathClass::phb, 48, 4));
  CHECK(paths.between_gpus(0, 1) == path(PathClass::phb, 48, 3));
}

TEST_CASE("Broadcom's two-level switches are one switch to NCCL") {
  for (const auto& [device, outer, inner] :
       {std::tuple{"0xc010", "0xa000", "0xa001"}, {"0xc030", "0x0072", "0x1003"}}) {
    Maker m;
    const int top = m.bridge(0), left = m.bridge(0, top), right = m.bridge(0, top);
    for (const int bridge : {top, left, right}) {
      PciDevice& pci = m.machine.pci[static_cast<size_t>(bridge)];
      pci.vendor = "0x1000";
      pci.device = device;
      pci.subsystem_vendor = "0x1000";
      pci.subsystem_device = bridge == top ? outer : inner;
    }
    m.gpu(0, left);
    m.nic(0, right);
    CHECK(m.paths().to_nic(0, 0) == path(PathClass::pix, 48, 3));
    m.machine.pci[static_cast<size_t>(right)].device = "0xc011";  // another switch altogether
    CHECK(m.paths().to_nic(0, 0) == path(PathClass::pxb, 48, 4));
  }
}

TEST_CASE("NVLink: direct, over one GPU at most, over the switch") {
  Maker m("GenuineIntel", 0x55);
  for (int i = 0; i < 4; ++i) m.gpu(i / 2, -1, {8, 16}, 70);
  m.nvlink(0, 1, 2);
  m.nvlink(1, 2, 1);
  m.nvlink(2, 3, 2);
  Paths paths = m.paths();
  CHECK(paths.between_gpus(0, 1) == path(PathClass::nvl, 40, 1));
  CHECK(paths.between_gpus(1, 2) == path(PathClass::nvl, 20, 1));
  CHECK(paths.between_gpus(0, 2) == path(PathClass::nvb, 20, 2));
  CHECK(paths.between_gpus(2, 0) == path(PathClass::nvb, 20, 2));
  CHECK(paths.between_gpus(0, 3).kind == PathClass::sys);  // two GPUs in between are too many

  Maker dgx;
  for (int i = 0; i < 8; ++i) {
    dgx.gpu(i / 4);
    // Four switches, as NCCL lists them; together they are one.
    for (const int count : {5, 5, 4, 4}) dgx.nvswitch(static_cast<size_t>(i), count);
  }
  paths = dgx.paths();
  for (size_t a = 0; a < 8; ++a) {
    for (size_t b = 0; b < 8; ++b) {
      if (a != b) CHECK(paths.between_gpus(a, b).kind == PathClass::nvl);
      if (a != b) CHECK(paths.between_gpus(a, b).gb_per_s == Approx(18 * 20.6));
      if (a != b) CHECK(paths.between_gpus(a, b).hops == 2);
    }
  }
}

TEST_CASE("of ways of the same length the widest is taken") {
  Maker m;
  for (int i = 0; i < 4; ++i) m.gpu(0, -1, {8, 16});
  m.nvlink(0, 1, 1);
  m.nvlink(1, 3, 4);
  m.nvlink(0, 2, 3);
  m.nvlink(2, 3, 2);
  CHECK(m.paths().between_gpus(0, 3).kind == PathClass::nvb);
  CHECK(m.paths().between_gpus(0, 3).gb_per_s == Approx(2 * 20.6));  // over GPU 2, not over GPU 1
}

TEST_CASE("links to nowhere, to oneself, or known to one end only are as if not there") {
  Maker m;
  for (int i = 0; i < 3; ++i) m.gpu(0);
  const Paths before = m.paths();
  m.machine.links.push_back(m.link(0, LinkEnd::gpu, -1, 4));
  m.machine.links.push_back(m.link(0, LinkEnd::gpu, 77, 4));
  m.machine.links.push_back(m.link(0, LinkEnd::gpu, 0, 4));
  m.machine.links.push_back(m.link(1, LinkEnd::gpu, 2, 4));
  m.machine.links.push_back(m.link(1, LinkEnd::nvswitch, -1, 0));
  m.machine.links.back().gpu = 99;
  CHECK(m.paths().gpu_gpu == before.gpu_gpu);
}

TEST_CASE("PXN: a NIC is reached over the NVLink peer beside it") {
  Maker m;
  const int left = m.bridge(0), right = m.bridge(1);
  m.gpu(0, left);
  m.gpu(1, right);
  const size_t own = m.nic(0, left), other = m.nic(1, right);
  CHECK(m.paths().to_nic(0, other) == path(PathClass::sys, 22, 6));
  m.nvswitch(0, 18);
  m.nvswitch(1, 18);
  CHECK(m.paths().to_nic(0, own) == path(PathClass::pix, 48, 3));
  CHECK(m.paths().to_nic(0, other) == path(PathClass::pxn, 48, 5));
  m.machine.nics[other].gdr = false;  // then not even its neighbour reads GPU memory: everything over the host
  CHECK(m.paths().to_nic(0, other) == path(PathClass::sys, 22, 6));
  CHECK(m.paths().to_nic(1, other) == path(PathClass::phb, 48, 5));
}

TEST_CASE("a NIC or GPU without GPUDirect RDMA is reached over the host") {
  Maker m;
  const int bridge = m.bridge(0);
  m.gpu(0, bridge);
  m.nic(0, bridge);
  CHECK(m.paths().to_nic(0, 0) == path(PathClass::pix, 48, 3));
  m.machine.nics[0].gdr = false;
  CHECK(m.paths().to_nic(0, 0) == path(PathClass::phb, 48, 5));
  m.machine.nics[0].gdr = true;
  m.machine.gpus[0].gdr = false;
  CHECK(m.paths().to_nic(0, 0) == path(PathClass::phb, 48, 5));
}

TEST_CASE("C2C: GPU to its processor, and P2C on to a NIC there") {
  Maker m("", 0);
  for (Package& package : m.machine.packages) package = {package.index, "arm64", "", 0, 0};
  for (int i = 0; i < 2; ++i) {
    m.gpu(i);
    m.nic(i);
    GpuLink c2c = m.link(static_cast<size_t>(i), LinkEnd::cpu, i, 10);
    c2c.kind = LinkKind::c2c;
    c2c.gb_per_s_each = 44.712;
    m.machine.links.push_back(c2c);
  }
  const Paths paths = m.paths();
  CHECK(paths.to_nic(0, 0).kind == PathClass::p2c);
  CHECK(paths.to_nic(0, 0).gb_per_s == Approx(48));
  CHECK(paths.to_nic(0, 0).hops == 3);
  CHECK(paths.to_nic(0, 1).kind == PathClass::sys);
  CHECK(paths.to_nic(0, 1).gb_per_s == 6);  // ARM's sockets
  CHECK(paths.between_gpus(0, 1).kind == PathClass::sys);

  Maker pair("", 0, 1);  // two GPUs at one processor
  for (int i = 0; i < 2; ++i) {
    pair.gpu(0);
    GpuLink c2c = pair.link(static_cast<size_t>(i), LinkEnd::cpu, 0, 10);
    c2c.kind = LinkKind::c2c;
    c2c.gb_per_s_each = 44.712;
    pair.machine.links.push_back(c2c);
  }
  CHECK(pair.paths().between_gpus(0, 1).kind == PathClass::c2c);
  CHECK(pair.paths().between_gpus(0, 1).gb_per_s == Approx(447.12));
}

TEST_CASE("POWER's NVLinks to the processor carry what goes to the other socket") {
  Maker m("", 0);
  for (Package& package : m.machine.packages) package = {package.index, "ppc64le", "", 0, 0};
  for (int i = 0; i < 4; ++i) {
    m.gpu(i / 2, -1, {8, 4}, 70);
    m.machine.links.push_back(m.link(static_cast<size_t>(i), LinkEnd::cpu, i / 2, 3));
  }
  m.nvlink(0, 1, 3);
  m.nvlink(2, 3, 3);
  const Paths paths = m.paths();
  CHECK(paths.between_gpus(0, 1) == path(PathClass::nvl, 60, 1));
  CHECK(paths.between_gpus(0, 2) == path(PathClass::sys, 32, 3));
}

TEST_CASE("two GPUs of an AMD machine talk directly at any distance, of an Intel machine over the host") {
  // Both give the same class; what is checked is that detours never make a path better or shorter than it is.
  for (const char* vendor : {"AuthenticAMD", "GenuineIntel"}) {
    Maker m(vendor, 1);
    m.gpu(0);
    m.gpu(1);
    CHECK(m.paths().between_gpus(0, 1).kind == PathClass::sys);
    CHECK(m.paths().between_gpus(0, 1).hops == 3);
  }
}

TEST_CASE("without a PCI tree devices meet at the host bridge of their NUMA node") {
  Machine machine;
  machine.numa = {{0, 0, 0}, {1, 1, 0}};
  machine.packages = {{0, "x86_64", "AuthenticAMD", 25, 1}, {1, "x86_64", "AuthenticAMD", 25, 1}};
  machine.gpus.resize(3);
  machine.nics.resize(1);
  for (size_t i = 0; i < 3; ++i) machine.gpus[i].numa = i < 2 ? 0 : 1;
  machine.nics[0].numa = 1;
  machine.nics[0].gbps = 100;
  Paths paths = find_paths(machine);
  CHECK(paths.between_gpus(0, 1) == path(PathClass::phb, 12, 2));
  CHECK(paths.between_gpus(0, 2) == path(PathClass::sys, 12, 3));
  CHECK(paths.to_nic(2, 0) == path(PathClass::phb, 12, 3));
  machine.gpus[0].numa = -1;  // somewhere, but who knows where
  CHECK(find_paths(machine).between_gpus(0, 1).kind == PathClass::sys);
  machine.numa.pop_back();  // a single NUMA node leaves no doubt
  for (Gpu& gpu : machine.gpus) gpu.numa = -1;
  CHECK(find_paths(machine).between_gpus(0, 2).kind == PathClass::phb);
  CHECK(find_paths(Machine{}).gpus == 0);
}

TEST_CASE("an unknown NIC rate does not limit, links' maxima count where they are known") {
  Maker m;
  m.gpu(0);
  m.nic(0, -1, 0);
  CHECK(m.paths().to_nic(0, 0) == path(PathClass::phb, 48, 3));
  m.machine.pci[0].link = {2.5, 16};  // an idle GPU
  CHECK(m.paths().to_nic(0, 0).gb_per_s == Approx(3));
  m.machine.pci[0].link_max = {16, 16};
  CHECK(m.paths().to_nic(0, 0).gb_per_s == Approx(24));
}

TEST_CASE("random PCI trees: class, bandwidth and hops are those of the only way there is") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  const auto below = [&](int limit) { return std::uniform_int_distribution<int>(0, limit - 1)(random); };
  for (int round = 0; round < 200; ++round) {
    INFO("seed " << seed << ", round " << round);
    Maker m("AuthenticAMD", 1, 1 + below(4));
    std::vector<int> bridges;
    const auto anywhere = [&](int& numa) {
      if (!bridges.empty() && below(3) != 0) {
        const int bridge = bridges[static_cast<size_t>(below(static_cast<int>(bridges.size())))];
        numa = m.machine.pci[static_cast<size_t>(bridge)].numa;
        return bridge;
      }
      numa = below(static_cast<int>(m.machine.numa.size()));
      return -1;
    };
    const double speeds[] = {2.5, 5, 8, 16, 32, 64};
    const auto link = [&] { return PciLink{speeds[below(6)], 1 << below(5)}; };
    for (int i = 0, n = 2 + below(12); i < n; ++i) {
      int numa = 0;
      const int parent = anywhere(numa);
      if (below(2) == 0)
        bridges.push_back(m.bridge(numa, parent, link()));
      else
        m.gpu(numa, parent, link());
    }
    const Paths paths = m.paths();
    const auto& pci = m.machine.pci;
    const auto way_up = [&](size_t gpu) {
      std::vector<int> way;
      for (int at = m.machine.gpus[gpu].pci; at >= 0; at = pci[static_cast<size_t>(at)].parent) way.push_back(at);
      return way;
    };
    for (size_t a = 0; a < paths.gpus; ++a) {
      for (size_t b = 0; b < paths.gpus; ++b) {
        if (a == b) continue;
        auto up = way_up(a), down = way_up(b);
        bool meet = false;
        while (!up.empty() && !down.empty() && up.back() == down.back()) {
          up.pop_back();
          down.pop_back();
          meet = true;
        }
        const bool one_node = m.machine.gpus[a].numa == m.machine.gpus[b].numa;
        Path expected{PathClass::sys, one_node ? 5000.0 : 16.0, static_cast<int>(up.size() + down.size())};
        if (meet)
          expected.kind = up.size() + down.size() == 2 ? PathClass::pix : PathClass::pxb;
        else if (one_node)
          expected.kind = PathClass::phb;
        else
          ++expected.hops;
        for (const auto* way : {&up, &down}) {
          for (const int at : *way) {
            expected.gb_per_s = std::min(expected.gb_per_s, pci_gb_per_s(pci[static_cast<size_t>(at)].link));
          }
        }
        REQUIRE(paths.between_gpus(a, b) == expected);
      }
    }
  }
}

TEST_CASE("the Perlmutter recording has the paths that NCCL 2.29 logged") {
  const auto folder = tests::recordings_folder();
  if (folder.empty()) return;
  const auto machine = read_nccl_xml(tests::read_text(folder / "nccl/simllm-perlmutter-a100-4x-slingshot.xml"), "nid");
  REQUIRE(machine.ok());
  const Paths paths = find_paths(*machine);
  const Graph graph = build_graph(*machine);

  // "NET/0-2 :GPU/0-3000 (4/16.0/SYS) ... CPU/0-3 (3/16.0/SYS) ... NET/0-3 (5/16.0/SYS)": hops, GB/s and class from
  // that port to each node. GPUs carry the middle of their bus id, CPUs the NUMA node.
  std::istringstream oracle(tests::read_text(folder / "oracle/perlmutter-nccl-2.29.7.txt"));
  std::string line;
  int compared = 0;
  while (std::getline(oracle, line)) {
    if (!line.starts_with("NET/0-")) continue;
    const auto from = static_cast<size_t>(std::stoi(line.substr(6)));
    std::istringstream entries(line.substr(line.find(':') + 1));
    std::string node, logged;
    while (entries >> node >> logged) {
      const std::string kind = node.substr(0, 3), id = node.substr(node.find('-') + 1);
      Path found;
      if (kind == "GPU") {
        const auto bus = static_cast<unsigned>(std::stoul(id, nullptr, 16)) >> 12;
        size_t gpu = 0;
        while (gpu < machine->gpus.size() && parse_bus_id(machine->gpus[gpu].bus_id)->bus != bus) ++gpu;
        REQUIRE(gpu < machine->gpus.size());
        found = search(graph, graph.gpus[gpu])[static_cast<size_t>(graph.nets[from])];
        CHECK(paths.to_nic(gpu, from) == found);  // nothing there makes the way out another than the way in
      } else if (kind == "CPU") {
        const auto cpu =
            std::find(graph.cpu_numa.begin(), graph.cpu_numa.end(), std::stoi(id)) - graph.cpu_numa.begin();
        found = search(graph, graph.cpus[static_cast<size_t>(cpu)])[static_cast<size_t>(graph.nets[from])];
      } else {
        found = search(graph, graph.nets[static_cast<size_t>(std::stoi(id))])[static_cast<size_t>(graph.nets[from])];
      }
      char text[64];
      std::snprintf(text, sizeof text, "(%d/%.1f/%s)", found.hops, found.gb_per_s, to_string(found.kind));
      INFO(node);
      CHECK(text == logged);
      ++compared;
    }
  }
  CHECK(compared == 9);
  // "bw 20.0, type NVL": four NVLinks between each two GPUs.
  CHECK(paths.between_gpus(0, 3) == path(PathClass::nvl, 80, 1));
}

TEST_CASE("paths are quick, deterministic and written as JSON") {
  Maker m;
  for (int i = 0; i < 8; ++i) {
    const int bridge = m.bridge(i / 4);
    m.gpu(i / 4, bridge);
    m.nic(i / 4, bridge);
    m.nvswitch(static_cast<size_t>(i), 18);
  }
  const Paths first = m.paths();
  std::chrono::nanoseconds best = std::chrono::hours(1);
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const Paths paths = m.paths();
    best = std::min<std::chrono::nanoseconds>(best, std::chrono::steady_clock::now() - start);
    CHECK(paths.gpu_nic == first.gpu_nic);
  }
  CHECK(best < std::chrono::milliseconds(1));
  const auto json = to_json(first, m.machine);
  CHECK(json["gpu_gpu"].size() == 56);
  CHECK(json["gpu_nic"].size() == 64);
  CHECK(json["gpu_nic"][1] ==
        nlohmann::json{{"from", 0}, {"to", "mlx5_1"}, {"class", "PXN"}, {"gb_per_s", 48.0}, {"hops", 5}});
}
