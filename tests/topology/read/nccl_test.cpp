// NCCL and RCCL topology files: read as they stand, written so that NCCL takes them, nothing lost in between.
#include <functional>
#include <map>
#include <pugixml.hpp>
#include <random>

#include "topology/paths.hpp"
#include "topology/read/nccl_cpus.hpp"
#include "topology/read/read_machine.hpp"

#include "tests/topology/recordings.hpp"
#include "tests/catch.hpp"

using namespace mds::topology;

namespace {

Machine read(const std::string& inside, const std::string& version = "1") {
  const auto machine = read_nccl_xml("<system version=\"" + version + "\">\n" + inside + "</system>\n", "host");
  INFO((machine ? "" : machine.error().message));
  REQUIRE(machine.ok());
  return *machine;
}

std::string refusal(const std::string& text) {
  const auto machine = read_nccl_xml(text, "host");
  REQUIRE_FALSE(machine.ok());
  CHECK(machine.error().code == mds::ErrorCode::bad_input);
  return machine.error().message;
}

std::string cpu(const std::string& inside, const std::string& attributes = "numaid=\"0\" affinity=\"ff\"") {
  return "<cpu " + attributes + " arch=\"x86_64\" vendor=\"GenuineIntel\" familyid=\"6\" modelid=\"143\">" + inside +
         "</cpu>\n";
}

std::string gpu(const std::string& bus_id, int dev, const std::string& inside = "") {
  return "<pci busid=\"" + bus_id +
         "\" class=\"0x030200\" link_speed=\"16.0 GT/s PCIe\" link_width=\"16\"><gpu dev=\"" + std::to_string(dev) +
         "\" sm=\"80\" rank=\"0\" gdr=\"1\">" + inside + "</gpu></pci>";
}

/// What placement and paths use of a machine, with devices named and not numbered: order is free.
struct Essence {
  std::multimap<std::string, std::string> facts;
  std::vector<std::vector<int>> cores;
  bool operator==(const Essence&) const = default;
};

std::string name(const Path& path) {
  return std::string(to_string(path.kind)) + "/" + std::to_string(path.gb_per_s) + "/" + std::to_string(path.hops);
}

Essence essence(Machine machine) {
  std::erase_if(machine.nics, [](const Nic& nic) { return !nic.active; });  // they are not for ranks to use
  Essence all;
  for (const Core& core : machine.cores) {
    all.cores.push_back(core.cpus);
    all.cores.back().push_back(-core.numa);
  }
  std::sort(all.cores.begin(), all.cores.end());
  for (const NumaNode& numa : machine.numa) {
    all.facts.emplace("numa " + std::to_string(numa.os_index), std::to_string(numa.memory_bytes));
  }
  const auto gpu_name = [&](size_t i) { return "gpu " + std::to_string(machine.gpus[i].index); };
  const auto nic_name = [&](size_t i) {
    const Nic& nic = machine.nics[i];
    return "nic " + nic.name + " " + nic.bus_id + " port " + std::to_string(nic.port);
  };
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    const Gpu& g = machine.gpus[i];
    all.facts.emplace(gpu_name(i), g.bus_id + " " + g.uuid + " " + g.name + " " + std::to_string(g.memory_bytes) + " " +
                                       std::to_string(g.numa) + " " + std::to_string(g.sm) + g.gcn + g.nvlink_domain +
                                       (g.gdr ? " gdr" : ""));
  }
  for (size_t i = 0; i < machine.nics.size(); ++i) {
    const Nic& n = machine.nics[i];
    all.facts.emplace(nic_name(i), std::to_string(n.numa) + " " + std::to_string(n.gbps) + (n.rdma ? " rdma" : "") +
                                       (n.gdr ? " gdr " : " ") + n.guid + " " + n.interface);
  }
  const Paths paths = find_paths(machine);
  for (size_t a = 0; a < paths.gpus; ++a) {
    for (size_t b = 0; b < paths.gpus; ++b) {
      all.facts.emplace(gpu_name(a) + " to " + gpu_name(b), name(paths.between_gpus(a, b)));
    }
    for (size_t b = 0; b < paths.nics; ++b) {
      all.facts.emplace(gpu_name(a) + " to " + nic_name(b), name(paths.to_nic(a, b)));
    }
  }
  return all;
}

/// What NCCL's own parser asks of a file (src/graph/xml.cc): its limits, one blank between attributes, what it needs.
void check_acceptable(const std::string& text) {
  REQUIRE(text.starts_with("<system "));  // no declaration
  CHECK(text.find('\t') == std::string::npos);
  CHECK(text.find(" />") == std::string::npos);
  CHECK(text.find("  busid") == std::string::npos);
  pugi::xml_document document;
  REQUIRE(document.load_buffer(text.data(), text.size()));
  size_t elements = 0;
  const std::map<std::string, std::vector<std::string>> needed{{"system", {"version"}},
                                                               {"cpu", {"numaid"}},
                                                               {"pci", {"busid", "class", "link_speed", "link_width"}},
                                                               {"gpu", {"dev", "rank", "gdr"}},
                                                               {"net", {"name", "dev"}},
                                                               {"nvlink", {"target", "count", "tclass"}},
                                                               {"xgmi", {"target", "count", "tclass"}},
                                                               {"c2c", {"bw", "count"}},
                                                               {"nic", {}}};
  struct Walker : pugi::xml_tree_walker {
    std::function<void(pugi::xml_node)> visit;
    bool for_each(pugi::xml_node& node) override {
      visit(node);
      return true;
    }
  } walker;
  walker.visit = [&](pugi::xml_node node) {
    ++elements;
    INFO("<" << node.name() << ">");
    REQUIRE(needed.contains(node.name()));
    for (const std::string& attribute : needed.at(node.name())) CHECK(node.attribute(attribute.c_str()));
    size_t attributes = 0;
    for (const auto attribute : node.attributes()) {
      ++attributes;
      CHECK(std::string(attribute.value()).size() < 254);
    }
    CHECK(attributes <= 14);  // NCCL adds host_hash or rank, and keep
  };
  document.traverse(walker);
  CHECK(elements <= 255);
}

}  // namespace

TEST_CASE("NCCL: affinity masks, highest word first") {
  CHECK(*cpus_of_mask("0", 0) == std::vector<int>{});
  CHECK(*cpus_of_mask("3", 0) == std::vector<int>{0, 1});
  CHECK(*cpus_of_mask("00000001,80000000", 0) == std::vector<int>{31, 32});
  CHECK(*cpus_of_mask("3", 64) == std::vector<int>{64, 65});
  CHECK((*cpus_of_mask("0003ff,f0003fff", 0)).size() == 28);
  for (const char* wrong : {"x", "1,,2", "123456789", "1,", ",1", "-1", "1 2"})
    CHECK_FALSE(cpus_of_mask(wrong, 0).ok());
  CHECK_FALSE(cpus_of_mask("1", 8192).ok());
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 100; ++round) {
    std::vector<int> cpus;
    for (int i = 0; i < 300; ++i) {
      if (random() % 3 == 0) cpus.push_back(i);
    }
    CHECK(*cpus_of_mask(mask_of_cpus(cpus), 0) == cpus);
  }
}

TEST_CASE("NCCL: cores behind hardware threads") {
  const auto cores = [](const std::vector<std::string>& masks, const std::string& arch) {
    std::vector<NumaCpus> nodes;
    for (size_t i = 0; i < masks.size(); ++i) {
      nodes.push_back({static_cast<int>(i), static_cast<int>(i), *cpus_of_mask(masks[i], 0), arch});
    }
    std::vector<std::vector<int>> cpus;
    for (const Core& core : guess_cores(nodes)) cpus.push_back(core.cpus);
    return cpus;
  };
  using Cores = std::vector<std::vector<int>>;
  CHECK(cores({"0f"}, "x86_64") == Cores{{0}, {1}, {2}, {3}});
  CHECK(cores({"303", "c0c"}, "x86_64") == Cores{{0, 8}, {1, 9}, {2, 10}, {3, 11}});
  CHECK(cores({"55", "aa"}, "x86_64") == Cores{{0}, {2}, {4}, {6}, {1}, {3}, {5}, {7}});  // even and odd: no halves
  CHECK(cores({"303", "cc"}, "x86_64").size() == 8);  // not the same distance on both nodes
  CHECK(cores({"303"}, "arm64").size() == 4);
  CHECK(cores({"ff", "ff0"}, "ppc64le") == Cores{{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}});
  CHECK(cores({"f3"}, "ppc64le") == Cores{{0, 1}, {4, 5, 6, 7}});
  CHECK(cores({"3", "3"}, "x86_64") == Cores{{0}, {1}});  // claimed twice: the first node's
}

TEST_CASE("NCCL: a full dump") {
  const Machine m =
      read(cpu(gpu("0000:07:00.0", 1,
                   "<nvlink target=\"0000:0A:00.0\" count=\"4\" tclass=\"0x030200\"/>"
                   "<nvlink target=\"0000:EE:00.0\" count=\"2\" tclass=\"0x030200\"/>") +
               gpu("0000:0A:00.0", 0, "<nvlink target=\"0000:07:00.0\" count=\"4\" tclass=\"0x030200\"/>") +
               "<nic><net name=\"eth0\" dev=\"2\" speed=\"-1\" port=\"0\" guid=\"0x0\" gdr=\"0\"/></nic>"
               "<pci busid=\"0000:0b:00.0\" class=\"0x020700\" link_speed=\"\" link_width=\"\">"
               "<nic><net name=\"mlx5_1\" dev=\"1\" speed=\"200000\" port=\"2\" guid=\"0x5\" gdr=\"1\"/>"
               "<net name=\"mlx5_0\" dev=\"0\" speed=\"200000\" port=\"1\" guid=\"0x5\" gdr=\"1\"/></nic></pci>"));
  CHECK(m.host == "host");
  REQUIRE(m.gpus.size() == 2);
  CHECK(m.gpus[0].bus_id == "0000:0a:00.0");  // by "dev", in the kernel's writing
  CHECK(m.gpus[0].sm == 80);
  REQUIRE(m.links.size() == 3);
  CHECK(m.links[0].peer == 1);
  CHECK(m.links[1].peer == 0);
  CHECK(m.links[1].gb_per_s_each == 20);
  CHECK(m.links[2].peer == -1);  // names nothing that is there, and stays as it is
  CHECK(m.links[2].peer_bus_id == "0000:ee:00.0");
  REQUIRE(m.nics.size() == 3);
  CHECK(m.nics[0].name == "mlx5_0");
  CHECK(m.nics[0].gbps == 200);
  CHECK(m.nics[0].rdma);
  CHECK(m.nics[1].port == 2);
  CHECK(m.nics[1].pci == m.nics[0].pci);
  CHECK(m.nics[2].name == "eth0");
  CHECK_FALSE(m.nics[2].rdma);
  CHECK(m.nics[2].gbps == 10);  // what NCCL makes of it, and says so
  CHECK(m.notes.size() == 1);
  CHECK(m.pci[static_cast<size_t>(m.nics[0].pci)].link == PciLink{0, 0});
  CHECK(m.packages.front().model == 143);
  CHECK(m.cores.size() == 8);
}

TEST_CASE("NCCL: links to switches, processors, and without a class") {
  const Machine m = read(cpu(gpu("0000:07:00.0", 0,
                                 "<nvlink target=\"fffffff:ffff:ff\" count=\"18\" tclass=\"0x068000\"/>"
                                 "<nvlink target=\"0004:00:01.1\" count=\"3\" tclass=\"0x068001\"/>"
                                 "<nvlink target=\"0000:99:00.0\" count=\"6\"/><c2c bw=\"44712\" count=\"10\"/>")));
  REQUIRE(m.links.size() == 4);
  CHECK(m.links[0].end == LinkEnd::nvswitch);
  CHECK(m.links[1].end == LinkEnd::cpu);
  CHECK(m.links[2].end == LinkEnd::nvswitch);
  CHECK(m.links[3].kind == LinkKind::c2c);
  CHECK(m.links[3].peer == 0);
  CHECK(m.links[3].gb_per_s_each * m.links[3].count == Approx(447.12));
}

TEST_CASE("NCCL: device-only files of virtual machines, GPUs by class alone") {
  const std::string link = "link_speed=\"32.0 GT/s PCIe\" link_width=\"16\"";
  const Machine m = read(cpu("<pci busid=\"ffff:ff:01.0\" class=\"0x060400\" " + link + ">" +
                             "<pci busid=\"0002:00:00.0\" class=\"0x030200\" " + link + "/>" +
                             "<pci busid=\"0101:00:00.0\" class=\"0x020700\" " + link + "/></pci>" +
                             "<pci busid=\"0001:00:00.0\" class=\"0x120000\" " + link + "/>" +
                             "<pci busid=\"0003:00:00.0\" class=\"0x038000\" " + link + "/>" +
                             "<pci busid=\"0004:00:00.0\" class=\"0x030000\" vendor=\"0x1a03\" " + link + "/>"));
  REQUIRE(m.gpus.size() == 3);  // the last is a server's own screen
  CHECK(m.gpus[0].bus_id == "0001:00:00.0");
  CHECK(m.gpus[1].bus_id == "0002:00:00.0");
  REQUIRE(m.nics.size() == 1);
  CHECK(m.nics[0].name.empty());
  CHECK(find_paths(m).to_nic(1, 0).kind == PathClass::pix);
}

TEST_CASE("NCCL: machines without NUMA, and Grace") {
  Machine m = read(cpu(gpu("0000:07:00.0", 0), "numaid=\"-1\" affinity=\"ff\""));
  CHECK(m.numa.size() == 1);
  CHECK(m.cores.size() == 8);
  CHECK(m.gpus[0].numa == 0);
  m = read(cpu(gpu("0000:07:00.0", 0), "numaid=\"-1\""));
  CHECK(m.cores.empty());
  CHECK(m.gpus[0].numa == -1);
  m = read("<cpu numaid=\"0\" affinity=\"ffff\" arch=\"arm64\">" + gpu("0009:01:00.0", 0) + "</cpu>");
  CHECK(m.packages[0].arch == "arm64");
  CHECK(m.cores.size() == 16);
}

TEST_CASE("NCCL: ports that NCCL joined into one are listed once, as what they are") {
  const std::string net = "speed=\"200000\" port=\"1\" guid=\"0x5\" gdr=\"1\"/>";
  const std::string fused = "<net name=\"mlx5_0+mlx5_1\" dev=\"2\" " + net;
  CHECK(read(cpu("<nic><net name=\"mlx5_0\" " + net + "<net name=\"mlx5_1\" " + net + fused + "</nic>")).nics.size() ==
        2);
  const Machine alone = read(cpu("<nic>" + fused + "</nic>"));
  REQUIRE(alone.nics.size() == 1);
  CHECK(alone.nics[0].name == "mlx5_0+mlx5_1");
}

TEST_CASE("NCCL: several hosts in one file") {
  std::string text = "<system version=\"1\">";
  for (const char* hash : {"0x1", "0x2"}) {
    for (const char* numa : {"0", "1"}) {
      text += cpu(gpu("0000:07:0" + std::string(numa) + ".0", numa[0] - '0'),
                  "host_hash=\"" + std::string(hash) + "\" numaid=\"" + numa + "\" affinity=\"f\"");
    }
  }
  text += "</system>";
  const auto hosts = read_nccl_hosts(text, "rack");
  REQUIRE(hosts.ok());
  REQUIRE(hosts->size() == 2);
  CHECK((*hosts)[1].host == "rack-1");
  CHECK((*hosts)[1].gpus.size() == 2);
  CHECK_FALSE((*hosts)[0].gpus[0].nvlink_domain.empty());
  CHECK((*hosts)[0].gpus[0].nvlink_domain == (*hosts)[1].gpus[1].nvlink_domain);
  CHECK(refusal(text).find("2 hosts") != std::string::npos);
}

TEST_CASE("NCCL: what is wrong is named with its line") {
  CHECK(refusal("<system version=\"1\">\n<cpu>\n").starts_with("line "));
  CHECK(refusal("<system/>").find("no <cpu>") != std::string::npos);
  CHECK(refusal("<topology/>").find("<topology>") != std::string::npos);
  CHECK(refusal("<graphs version=\"1\"/>").find("NCCL_TOPO_DUMP_FILE") != std::string::npos);
  CHECK(refusal("<system>\n<cpu numaid=\"0\">\n<gpu dev=\"0\"/></cpu></system>") ==
        "line 3: <gpu> does not belong into <cpu>");
  CHECK(refusal("<system>\n<pci/></system>").starts_with("line 2: <pci> directly in <system>"));
  CHECK(refusal("<system><cpu numaid=\"0\">\n<pci class=\"0x03\"/></cpu></system>") == "line 2: <pci> without busid");
  CHECK(refusal("<system><cpu numaid=\"zero\"/></system>").find("numaid=\"zero\" is not a number") !=
        std::string::npos);
  CHECK(refusal("<system><cpu numaid=\"0\" affinity=\"xyz\"/></system>").find("affinity") != std::string::npos);
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "<pci busid=\"0000:00:00.0\">";
  CHECK(refusal("<system><cpu numaid=\"0\">" + deep).size() < 200);
  std::string closed = deep;
  for (int i = 0; i < 100000; ++i) closed += "</pci>";
  CHECK(refusal("<system><cpu numaid=\"0\">" + closed + "</cpu></system>").find("levels") != std::string::npos);
  std::string many;
  for (int i = 0; i < 300; ++i) many += gpu("0000:07:00.0", i);
  CHECK(refusal("<system>" + cpu(many) + "</system>").find("300 GPUs") != std::string::npos);
}

TEST_CASE("NCCL: every recording is written so that NCCL takes it, and read again without loss") {
  std::vector<std::pair<std::string, Machine>> machines;
  for (const auto& file : tests::recordings("nccl")) {
    const auto machine = read_nccl_xml(tests::read_text(file), "host");
    INFO(file << (machine ? "" : ": " + machine.error().message));
    REQUIRE(machine.ok());
    machines.emplace_back(file.filename().string(), *machine);
  }
  for (const auto& file : tests::recordings("hwloc")) {
    const auto machine = read_hwloc_xml(tests::read_text(file), "host");
    INFO(file << (machine ? "" : ": " + machine.error().message));
    REQUIRE(machine.ok());
    machines.emplace_back(file.filename().string(), *machine);
  }
  for (const auto& [file, machine] : machines) {
    INFO(file);
    const auto text = write_nccl_xml(machine);
    REQUIRE(text.ok());
    check_acceptable(*text);
    const auto again = read_nccl_xml(*text, "");
    REQUIRE(again.ok());
    CHECK(again->host == machine.host);
    const Essence before = essence(machine), after = essence(*again);
    CHECK(before.cores == after.cores);
    CHECK(before.facts == after.facts);
    CHECK(*write_nccl_xml(*again) == *write_nccl_xml(*read_nccl_xml(*write_nccl_xml(*again), "")));
  }
}

TEST_CASE("NCCL: too much for NCCL is refused, bridges that nothing depends on go first") {
  Machine m = read(cpu(""));
  const auto add = [&](const std::string& id, int parent, uint32_t pci_class) {
    PciDevice device;
    device.bus_id = id;
    device.parent = parent;
    device.numa = 0;
    device.pci_class = pci_class;
    device.link = {16, 16};
    m.pci.push_back(device);
    return static_cast<int>(m.pci.size()) - 1;
  };
  for (int i = 0; i < 80; ++i) {
    const std::string number = std::to_string(10 + i);
    Gpu gpu;
    gpu.index = i;
    gpu.numa = 0;
    gpu.sm = 90;
    gpu.bus_id = "00" + number + ":03:00.0";
    gpu.pci = add(gpu.bus_id, add("ffff:" + number + ":00.0", -1, 0x060400), 0x030200);
    m.gpus.push_back(gpu);
  }
  add("eeee:00:00.0", -1, 0x060400);  // nothing below it: never written
  auto text = write_nccl_xml(m);      // 1 + 1 + 80 x (bridge, device, gpu) = 242
  REQUIRE(text.ok());
  CHECK(text->find("ffff:") != std::string::npos);
  CHECK(text->find("eeee:") == std::string::npos);
  for (int i = 0; i < 10; ++i) {
    Gpu gpu = m.gpus[static_cast<size_t>(i)];
    gpu.index = 80 + i;
    gpu.bus_id = "1" + gpu.bus_id.substr(1);
    gpu.pci = add(gpu.bus_id, -1, 0x030200);
    m.gpus.push_back(gpu);
  }
  text = write_nccl_xml(m);  // 262, without the bridges 182
  REQUIRE(text.ok());
  check_acceptable(*text);
  CHECK(text->find("ffff:") == std::string::npos);
  for (size_t i = 0; i < 80; ++i) {
    GpuLink link;
    link.gpu = static_cast<int>(i);
    link.end = LinkEnd::nvswitch;
    link.count = 18;
    m.links.push_back(link);
  }
  const auto refused = write_nccl_xml(m);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == mds::ErrorCode::infeasible);
  CHECK(refused.error().message.find("262") != std::string::npos);
  m.gpus[0].bus_id.clear();
  CHECK(write_nccl_xml(m).error().message.find("no bus id") != std::string::npos);
}
