#include "topology/read/synthetic.hpp"

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "tests/catch.hpp"
#include "topology/doctor/doctor.hpp"
#include "topology/paths.hpp"
#include "topology/read/synthetic_models.hpp"

using namespace mds;
using namespace mds::topology;

namespace {

Machine machine(const std::string& name) {
  const auto cluster = synthetic_cluster(name);
  INFO((cluster ? "" : cluster.error().message));
  REQUIRE(cluster);
  return cluster->nodes.at(0);
}

/// GB/s of all GPU links of one GPU.
double link_gb_per_s(const Machine& machine, int gpu, LinkKind kind) {
  double sum = 0;
  for (const GpuLink& link : machine.links) {
    if (link.gpu == gpu && link.kind == kind) sum += link.count * link.gb_per_s_each;
  }
  return sum;
}

}  // namespace

TEST_CASE("every known machine is whole", "[synthetic]") {
  for (const MachineModel& model : machine_models()) {
    INFO(model.name);
    const Machine m = machine(model.name);
    CHECK(m.host == model.name + "-0000");
    CHECK(m.packages.size() == static_cast<size_t>(model.shape.packages));
    std::set<std::string> bus_ids;
    for (size_t i = 0; i < m.pci.size(); ++i) {
      CHECK(bus_ids.insert(m.pci[i].bus_id).second);
      CHECK(m.pci[i].parent < static_cast<int>(i));
    }
    for (const Gpu& gpu : m.gpus) {
      CHECK(m.pci.at(gpu.pci).bus_id == gpu.bus_id);
      CHECK((gpu.sm > 0) != !gpu.gcn.empty());
    }
    for (const Nic& nic : m.nics) CHECK(m.pci.at(nic.pci).bus_id == nic.bus_id);
    for (const GpuLink& link : m.links) {  // a link between two GPUs stands twice
      if (link.end != LinkEnd::gpu) continue;
      GpuLink back = link;
      std::swap(back.gpu, back.peer);
      back.peer_bus_id = m.gpus.at(link.gpu).bus_id;
      CHECK(std::count(m.links.begin(), m.links.end(), back) == 1);
    }
    const auto again = machine_from_json(to_json(m));
    REQUIRE(again);
    CHECK(*again == m);
    for (const Finding& finding : examine(m)) {
      INFO(finding.code << ": " << finding.message);
      CHECK(finding.severity == Severity::note);
    }
  }
}

TEST_CASE("what GPUs see of each other", "[synthetic]") {
  struct Case {
    const char* name;
    size_t gpus, nics;
    double link_gb_per_s;  // of one GPU
    PathClass near, far;   // GPU 0 to 1, GPU 0 to the last
    PathClass nic;         // GPU 0 to its best NIC
  };
  const std::vector<Case> cases{
      {"dgx-v100", 8, 4, 120, PathClass::nvl, PathClass::nvb, PathClass::pix},
      {"dgx-a100", 8, 8, 240, PathClass::nvl, PathClass::nvl, PathClass::pix},
      {"dgx-h100", 8, 8, 370.8, PathClass::nvl, PathClass::nvl, PathClass::pix},
      {"dgx-h200", 8, 8, 370.8, PathClass::nvl, PathClass::nvl, PathClass::pix},
      {"dgx-b200", 8, 8, 721.8, PathClass::nvl, PathClass::nvl, PathClass::pix},
      {"gb200-nvl72", 4, 4, 721.8, PathClass::nvl, PathClass::nvl, PathClass::p2c},
      {"mi300x-8", 8, 8, 336, PathClass::nvl, PathClass::nvl, PathClass::pix},
      {"l40s-8", 8, 4, 0, PathClass::pix, PathClass::sys, PathClass::pix},
      {"gpu:gpus=4,sm=80,nvlink=mesh,packages=1,nics=2", 4, 2, 240, PathClass::nvl, PathClass::nvl, PathClass::pix},
      {"gpu:gpus=2,sm=89,nics=1,packages=2", 2, 1, 0, PathClass::sys, PathClass::sys, PathClass::pix},
      {"gpu", 8, 8, 370.8, PathClass::nvl, PathClass::nvl, PathClass::pix},
  };
  for (const Case& c : cases) {
    INFO(c.name);
    const Machine m = machine(c.name);
    REQUIRE(m.gpus.size() == c.gpus);
    REQUIRE(m.nics.size() == c.nics);
    for (size_t gpu = 0; gpu < c.gpus; ++gpu) {
      const double sum = link_gb_per_s(m, static_cast<int>(gpu), LinkKind::nvlink) +
                         link_gb_per_s(m, static_cast<int>(gpu), LinkKind::xgmi);
      CHECK(sum == Approx(c.link_gb_per_s));
    }
    const Paths paths = find_paths(m);
    CHECK(std::string(to_string(paths.between_gpus(0, 1).kind)) == to_string(c.near));
    CHECK(std::string(to_string(paths.between_gpus(0, c.gpus - 1).kind)) == to_string(c.far));
    PathClass best = PathClass::dis;
    for (size_t nic = 0; nic < c.nics; ++nic) best = std::min(best, paths.to_nic(0, nic).kind);
    CHECK(std::string(to_string(best)) == to_string(c.nic));
  }
}

TEST_CASE("machines with C2C", "[synthetic]") {
  CHECK(link_gb_per_s(machine("gh200"), 0, LinkKind::c2c) == Approx(450));
  const Machine gb200 = machine("gb200-nvl72");
  for (int gpu = 0; gpu < 4; ++gpu) CHECK(link_gb_per_s(gb200, gpu, LinkKind::c2c) == Approx(225));
  const Cluster domains = *synthetic_cluster("gb200-nvl72 x37");
  std::map<std::string, int> sizes;
  for (const Machine& node : domains.nodes) ++sizes[node.gpus[3].nvlink_domain];
  CHECK(sizes.size() == 3);
  CHECK(sizes.begin()->second == 18);
}

TEST_CASE("the general form for GPUs", "[synthetic]") {
  const Machine m = machine(
      "gpu:packages=2,cores=48,numa=2,threads=2,gpus=6,sm=90,nvlink=none,nics=3,gbps=200,memory=96GiB,"
      "host_memory=1TiB");
  CHECK(m.cores.size() == 96);
  CHECK(m.numa.size() == 4);
  CHECK(m.numa[3].memory_bytes == uint64_t{1} << 40);
  CHECK(m.gpus[5].memory_bytes == uint64_t{96} << 30);
  CHECK(m.gpus[5].numa == 3);
  CHECK(m.nics[2].gbps == 200);
  CHECK(m.links.empty());
  CHECK(machine("gpu:nics=0").nics.empty());
  const Machine large = machine("gpu:gpus=64,nics=256");
  std::set<std::string> bus_ids;
  for (const PciDevice& device : large.pci) CHECK(bus_ids.insert(device.bus_id).second);
  for (const char* wrong :
       {"gpu:gpus=0", "gpu:gpus=65", "gpu:sm=89,nvlink=switch", "gpu:gpus=32,nvlink=mesh", "gpu:nvlink=ring",
        "gpu:memory=80", "gpu:colour=1", "gpu:gpus", "cpu:gpus=8", "gpux", "dgx-h100:gpus=2"}) {
    INFO(wrong);
    const auto cluster = synthetic_cluster(wrong);
    REQUIRE_FALSE(cluster);
    CHECK(cluster.error().code == ErrorCode::bad_input);
  }
}

TEST_CASE("synthetic fabrics", "[synthetic]") {
  const Cluster flat = *synthetic_cluster("dgx-h100 x4 fabric:leaf=8");
  CHECK(flat.fabric.switches.size() == 1);
  CHECK(flat.fabric.ports.size() == 32);
  CHECK(flat.fabric.ports[0] == FabricPort{"dgx-h100-0000", "mlx5_0", 0, 400});
  const Cluster deep = *synthetic_cluster("cpu x20 fabric:leaf=2,spine=3,spines=3");
  std::map<int, int> levels;
  for (const FabricSwitch& s : deep.fabric.switches) {
    ++levels[s.level];
    CHECK(s.parents.size() == (s.level == 2 ? 0 : 3));
  }
  CHECK(levels == std::map<int, int>{{0, 10}, {1, 12}, {2, 3}});
  CHECK(deep.fabric.ports.size() == 20);
  for (const char* wrong :
       {"dgx-h100 fabric:", "dgx-h100 x4 fabric:leaf=0", "dgx-h100 x4 fabric:leaf=2,rails=9",
        "dgx-h100 x4 fabric:leaf=2,rails=65", "dgx-h100 fabric:leaf=2 x4", "dgx-h100 x4 fabric:spine=2",
        "dgx-h100 x4 fabric:leaf=x", "dgx-h100 x4 fabric:leaf=2,color=3"}) {
    INFO(wrong);
    const auto cluster = synthetic_cluster(wrong);
    REQUIRE_FALSE(cluster);
    CHECK(cluster.error().code == ErrorCode::bad_input);
  }
}

TEST_CASE("2,048 synthetic nodes in under a second", "[synthetic]") {
  const auto begin = std::chrono::steady_clock::now();
  CHECK(synthetic_cluster("dgx-h100 x2048")->nodes.size() == 2048);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  WARN("dgx-h100 x2048: " << seconds * 1e3 << " ms");
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(seconds < 1);
#endif
}
