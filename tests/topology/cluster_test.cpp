#include "topology/cluster.hpp"

#include <nlohmann/json.hpp>
#include <random>

#include "tests/catch.hpp"
#include "topology/read/synthetic.hpp"

using namespace mds;
using namespace mds::topology;
using nlohmann::json;

namespace {

using Random = std::mt19937;

int pick(Random& random, int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }

/// A name with a random number in it, or an empty one.
std::string name(Random& random, const std::string& prefix) {
  return pick(random, 0, 3) == 0 ? "" : prefix + std::to_string(random());
}

PciLink random_link(Random& random) { return {pick(random, 0, 512) / 8.0, pick(random, 0, 16)}; }

std::vector<PciDevice> random_pci(Random& random) {
  std::vector<PciDevice> pci(static_cast<size_t>(pick(random, 0, 12)));
  for (size_t i = 0; i < pci.size(); ++i) {
    pci[i] = {"0000:0" + std::to_string(i) + ":00.0",
              pick(random, -1, static_cast<int>(i) - 1),
              pick(random, -1, 7),
              static_cast<uint32_t>(pick(random, 0, 0xffffff)),
              name(random, "0x"),
              name(random, "0x"),
              name(random, "0x"),
              name(random, "0x"),
              random_link(random),
              random_link(random)};
  }
  return pci;
}

/// A machine with every field set to something random.
Machine random_machine(Random& random) {
  Machine machine;
  machine.host = "host-" + std::to_string(pick(random, 0, 9999));
  int cpu = 0;
  for (int i = 0, cores = pick(random, 1, 40); i < cores; ++i) {
    Core core{i, pick(random, 0, 3), pick(random, 0, 7), {}};
    for (int t = 0, threads = pick(random, 1, 4); t < threads; ++t) core.cpus.push_back(cpu++);
    machine.cores.push_back(core);
  }
  for (int i = 0, count = pick(random, 0, 4); i < count; ++i) {
    machine.packages.push_back(
        {i, name(random, "arch"), name(random, "vendor"), pick(random, 0, 200), pick(random, 0, 300)});
  }
  for (int i = 0; i < pick(random, 0, 8); ++i) {
    machine.numa.push_back({i, pick(random, 0, 3), random() * uint64_t{4096}});
  }
  machine.pci = random_pci(random);
  const int last_pci = static_cast<int>(machine.pci.size()) - 1;
  for (int i = 0; i < pick(random, 0, 8); ++i) {
    machine.gpus.push_back({i, name(random, "GPU-"), "0000:3b:00.0", "NVIDIA \"X\"", random() * uint64_t{64},
                            pick(random, -1, 7), pick(random, -1, last_pci), pick(random, 0, 120),
                            name(random, "gfx"), pick(random, 0, 1) == 1, name(random, "domain.")});
  }
  for (int i = 0; i < pick(random, 0, 8); ++i) {
    machine.nics.push_back({"mlx5_" + std::to_string(i), name(random, "0000:0"), pick(random, -1, 7),
                            pick(random, 0, 4000) / 8.0, pick(random, 0, 1) == 1, pick(random, -1, last_pci),
                            pick(random, 0, 4), name(random, "0x"), name(random, "ib"), pick(random, 0, 1) == 1,
                            pick(random, 0, 1) == 1});
  }
  const int last_gpu = static_cast<int>(machine.gpus.size()) - 1;
  for (int i = 0; last_gpu >= 0 && i < pick(random, 0, 30); ++i) {
    machine.links.push_back({static_cast<LinkKind>(pick(random, 0, 2)), pick(random, 0, last_gpu),
                             static_cast<LinkEnd>(pick(random, 0, 2)), pick(random, -1, last_gpu),
                             name(random, "0000:"), pick(random, 0, 18), pick(random, 0, 800) / 8.0});
  }
  for (int i = 0; i < pick(random, 0, 3); ++i) machine.notes.push_back("note " + std::to_string(i));
  return machine;
}

Fabric random_fabric(Random& random) {
  Fabric fabric;
  const int switches = pick(random, 0, 6);
  for (int i = 0; i < switches; ++i) {
    FabricSwitch s{"switch" + std::to_string(i), switches - i, {}};
    for (int parent = 0; parent < i; ++parent) {
      if (pick(random, 0, 1)) s.parents.push_back(parent);
    }
    fabric.switches.push_back(s);
  }
  for (int i = 0; switches > 0 && i < pick(random, 0, 9); ++i) {
    fabric.ports.push_back({"host" + std::to_string(i), name(random, "mlx5_"), pick(random, 0, switches - 1),
                            pick(random, 0, 6400) / 8.0});
  }
  for (int i = 0; i < pick(random, 0, 3); ++i) {
    fabric.blocks.push_back({"block" + std::to_string(i), {"host" + std::to_string(i), "host9"}});
  }
  return fabric;
}

}  // namespace

TEST_CASE("a cluster survives JSON and CBOR") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  for (int round = 0; round < 20; ++round) {
    const Cluster cluster{{random_machine(random), random_machine(random)}, random_fabric(random)};
    const auto text = cluster_from_json(json::parse(to_json(cluster).dump()));
    REQUIRE(text);
    CHECK(*text == cluster);
    const auto machine = machine_from_json(json::from_cbor(json::to_cbor(to_json(cluster.nodes[0]))));
    REQUIRE(machine);
    CHECK(*machine == cluster.nodes[0]);
  }
}

TEST_CASE("each broken field is named") {
  Cluster cluster = *synthetic_cluster("dgx-h100 x2");
  for (Machine& node : cluster.nodes) {  // whatever the synthetic machine has of these
    node.packages.assign(1, {0, "x86_64", "GenuineIntel", 6, 143});
    node.pci.assign(3, {});
    for (Gpu& gpu : node.gpus) gpu.pci = 2;
    for (Nic& nic : node.nics) nic.pci = 2;
    node.links.assign(3, {LinkKind::nvlink, 0, LinkEnd::gpu, 1, "0000:43:00.0", 18, 20.6});
  }
  cluster.fabric.switches = {{"spine", 1, {}}, {"leaf", 0, {0}}};
  cluster.fabric.ports = {{"dgx-h100-0000", "mlx5_0", 1, 400}};
  cluster.fabric.blocks = {{"block", {"dgx-h100-0000"}}};
  const json good = to_json(cluster);
  REQUIRE(cluster_from_json(good));
  struct Case {
    const char* pointer;
    json value;
    const char* place;
  };
  const std::vector<Case> cases{
      {"/version", 2, "version"},
      {"/version", "1", "version"},
      {"/nodes", json::object(), "nodes"},
      {"/nodes", json::array(), "nodes"},
      {"/nodes/1", 7, "nodes[1]"},
      {"/nodes/1/host", 7, "nodes[1].host"},
      {"/nodes/1/host", "", "nodes[1].host"},
      {"/nodes/1/host", "a\nb", "nodes[1].host"},
      {"/nodes/1/host", "\xff\xfe", "nodes[1].host"},
      {"/nodes/0/cores", nullptr, "nodes[0].cores"},
      {"/nodes/0/cores/3/cpus", json::array(), "nodes[0].cores[3].cpus"},
      {"/nodes/0/cores/3/cpus/1", -1, "nodes[0].cores[3].cpus[1]"},
      {"/nodes/0/cores/3/cpus/1", 1e300, "nodes[0].cores[3].cpus[1]"},
      {"/nodes/0/cores/3/cpus/1", 18446744073709551615u, "nodes[0].cores[3].cpus[1]"},
      {"/nodes/0/cores/3/cpus/1", 2, "nodes[0].cores[3].cpus"},
      {"/nodes/0/cores/3/index", "x", "nodes[0].cores[3].index"},
      {"/nodes/0/cores/3/numa", -1, "nodes[0].cores[3].numa"},
      {"/nodes/0/numa/1/memory_bytes", -5, "nodes[0].numa[1].memory_bytes"},
      {"/nodes/0/gpus/7/numa", -2, "nodes[0].gpus[7].numa"},
      {"/nodes/0/gpus/7/index", 0.5, "nodes[0].gpus[7].index"},
      {"/nodes/0/gpus/7/uuid", json::array(), "nodes[0].gpus[7].uuid"},
      {"/nodes/0/nics/2/gbps", -1, "nodes[0].nics[2].gbps"},
      {"/nodes/0/nics/2/rdma", 1, "nodes[0].nics[2].rdma"},
      {"/nodes/0/nics/2/name", std::string(5000, 'x'), "nodes[0].nics[2].name"},
      {"/nodes/0/notes", json::array({1}), "nodes[0].notes[0]"},
      {"/nodes/0/packages/0/vendor", 1, "nodes[0].packages[0].vendor"},
      {"/nodes/0/packages/0/family", -1, "nodes[0].packages[0].family"},
      {"/nodes/0/pci/2/class", "030200", "nodes[0].pci[2].class"},
      {"/nodes/0/pci/2/class", "0x", "nodes[0].pci[2].class"},
      {"/nodes/0/pci/2/class", "0x1030200", "nodes[0].pci[2].class"},
      {"/nodes/0/pci/2/class", "0x0302zz", "nodes[0].pci[2].class"},
      {"/nodes/0/pci/2/class", 0x030200, "nodes[0].pci[2].class"},
      {"/nodes/0/pci/2/parent", 2, "nodes[0].pci[2].parent"},
      {"/nodes/0/pci/2/parent", -2, "nodes[0].pci[2].parent"},
      {"/nodes/0/pci/2/link", 3, "nodes[0].pci[2].link"},
      {"/nodes/0/pci/2/link_max/gtps", -1, "nodes[0].pci[2].link_max.gtps"},
      {"/nodes/0/pci/2/link/width", 1.5, "nodes[0].pci[2].link.width"},
      {"/nodes/0/gpus/7/pci", 3, "nodes[0].gpus[7].pci"},
      {"/nodes/0/gpus/7/gdr", "yes", "nodes[0].gpus[7].gdr"},
      {"/nodes/0/nics/2/pci", 3, "nodes[0].nics[2].pci"},
      {"/nodes/0/nics/2/guid", 3, "nodes[0].nics[2].guid"},
      {"/nodes/0/links/2/kind", "nvlnk", "nodes[0].links[2].kind"},
      {"/nodes/0/links/2/gpu", 8, "nodes[0].links[2].gpu"},
      {"/nodes/0/links/2/peer", 8, "nodes[0].links[2].peer"},
      {"/nodes/0/links/2/end", "", "nodes[0].links[2].end"},
      {"/nodes/0/links/2/count", -1, "nodes[0].links[2].count"},
      {"/fabric", json::array(), "fabric"},
      {"/fabric/switches/1/parents/0", 2, "fabric.switches[1].parents[0]"},
      {"/fabric/switches/1/parents/0", 1, "fabric.switches[1].parents[0]"},
      {"/fabric/switches/1/name", nullptr, "fabric.switches[1].name"},
      {"/fabric/ports/0/leaf", 2, "fabric.ports[0].leaf"},
      {"/fabric/ports/0/leaf", -1, "fabric.ports[0].leaf"},
      {"/fabric/blocks/0/hosts", "a", "fabric.blocks[0].hosts"},
  };
  for (const Case& c : cases) {
    json broken = good;
    broken[json::json_pointer(c.pointer)] = c.value;
    const auto read = cluster_from_json(broken);
    INFO(c.pointer);
    REQUIRE_FALSE(read);
    CHECK(read.error().code == ErrorCode::bad_input);
    INFO(read.error().message);
    CHECK(read.error().message.find("topology: " + std::string(c.place) + ": ") == 0);
  }
  for (const char* required : {"host", "cores", "numa"}) {
    json broken = good;
    broken["nodes"][0].erase(required);
    const auto read = cluster_from_json(broken);
    REQUIRE_FALSE(read);
    CHECK(read.error().message == "topology: nodes[0]." + std::string(required) + ": is missing");
  }
  json large = good;
  for (int i = 0; i < 300; ++i) large["nodes"][1]["gpus"].push_back(large["nodes"][1]["gpus"][0]);
  CHECK(cluster_from_json(large).error().message.find("topology: nodes[1]: ") == 0);
  CHECK(machine_from_json(json(3)).error().message == "topology: expected an object");
}

TEST_CASE("unknown keys of a newer recording are skipped") {
  json document = to_json(*synthetic_cluster("gh200"));
  document["nodes"][0]["paths"] = json::array({1, 2, 3});
  document["nodes"][0]["gpus"][0]["colour"] = "green";
  document["fabric"]["routers"] = json::object();
  CHECK(*cluster_from_json(document) == *synthetic_cluster("gh200"));
}

TEST_CASE("recordings from before the PCI tree and the links are read") {
  const auto cluster = cluster_from_json(json::parse(R"({"version": 1, "nodes": [{
    "host": "a", "cores": [{"index": 0, "cpus": [0, 1]}], "numa": [],
    "gpus": [{"index": 0, "bus_id": "0000:3b:00.0", "numa": 1}], "nics": [{"name": "eth0"}]}]})"));
  REQUIRE(cluster);
  const Machine& machine = cluster->nodes[0];
  CHECK(machine.gpus[0] == Gpu{0, "", "0000:3b:00.0", "", 0, 1});
  CHECK(machine.nics[0] == Nic{"eth0", ""});
  CHECK(machine.packages.empty());
  CHECK(machine.pci.empty());
  CHECK(cluster->fabric.empty());
}

TEST_CASE("no damage to a recording does more than give an error") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  const std::string good = to_json(*synthetic_cluster("cpu:packages=2,cores=3,threads=2")).dump();
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = good;
    for (int k = 0; k < 3; ++k) text[random() % text.size()] = "0123456789-.e\"{}[],:n\xff"[random() % 22];
    const json document = json::parse(text, nullptr, false);
    if (!document.is_discarded()) accepted += cluster_from_json(document).ok();
  }
  CHECK(accepted < 3000);
}

TEST_CASE("synthetic machines") {
  const Cluster dgx = *synthetic_cluster("dgx-h100 x64");
  REQUIRE(dgx.nodes.size() == 64);
  CHECK(dgx.nodes[63].host == "dgx-h100-0063");
  CHECK(dgx.nodes[5].cores.size() == 112);
  CHECK(dgx.nodes[5].cores[1].cpus == std::vector<int>{1, 113});
  CHECK(dgx.nodes[5].gpus.size() == 8);
  CHECK(dgx.nodes[5].gpus[4].numa == 1);

  const Machine a100 = synthetic_cluster("dgx-a100")->nodes.at(0);
  CHECK(a100.numa.size() == 8);
  CHECK(a100.cores[48].numa == 3);
  CHECK(a100.cores[127].numa == 7);

  const Cluster cpu = *synthetic_cluster("cpu:packages=2,cores=32,threads=2,numa=2,memory=256GiB x4");
  REQUIRE(cpu.nodes.size() == 4);
  CHECK(cpu.nodes[3].host == "cpu-0003");
  CHECK(cpu.nodes[0].cores.size() == 64);
  CHECK(cpu.nodes[0].numa.size() == 4);
  CHECK(cpu.nodes[0].numa[3] == NumaNode{3, 1, uint64_t{256} << 30});
  CHECK(cpu.nodes[0].cores[16].numa == 1);
  CHECK(cpu.nodes[0].cores[63].cpus == std::vector<int>{63, 127});

  for (const char* name : {"dgx-a100", "dgx-h100", "dgx-h200", "gh200", "cpu", "cpu:cores=3,numa=2"}) {
    INFO(name);
    const Cluster cluster = *synthetic_cluster(name);
    CHECK(*cluster_from_json(to_json(cluster)) == cluster);
  }
  for (const char* wrong : {"", "dgx", "dgx-h100 ", "dgx-h100 64", "dgx-h100 x0", "dgx-h100 x-1", "dgx-h100 x1 x1",
                            "dgx-h100 x99999999999", "cpu:cores", "cpu:cores=", "cpu:cores=0", "cpu:cores=2x",
                            "cpu:colour=2", "cpu:memory=3", "cpu:numa=9", "cpu:cores=4096,packages=4096"}) {
    INFO(wrong);
    const auto cluster = synthetic_cluster(wrong);
    REQUIRE_FALSE(cluster);
    CHECK(cluster.error().code == ErrorCode::bad_input);
  }
}
