#include "topology/fabric/read_fabric.hpp"

#include <cstdio>
#include <map>
#include <random>

#include "tests/catch.hpp"
#include "tests/topology/recordings.hpp"

using namespace mds;
using namespace mds::topology;

namespace {

Fabric read(const std::string& text, std::vector<std::string>* notes = nullptr) {
  std::vector<std::string> own;
  const auto fabric = read_fabric(text, notes ? *notes : own);
  INFO((fabric ? "" : fabric.error().message));
  REQUIRE(fabric);
  CHECK(looks_like_fabric(text));
  return *fabric;
}

std::string error_of(const std::string& text) {
  std::vector<std::string> notes;
  const auto fabric = read_fabric(text, notes);
  REQUIRE_FALSE(fabric);
  CHECK(fabric.error().code == ErrorCode::bad_input);
  return fabric.error().message;
}

/// "leaf: host host" for every switch with hosts, and "switch < parent parent".
std::string shape_of(const Fabric& fabric) {
  std::map<std::string, std::string> lines;
  for (const FabricSwitch& s : fabric.switches) {
    std::string& line = lines[s.name];
    line = s.name + "@" + std::to_string(s.level);
    for (const int parent : s.parents) line += " <" + fabric.switches[parent].name;
  }
  for (const FabricPort& port : fabric.ports) {
    lines[fabric.switches[port.leaf].name] += " " + port.host + (port.nic.empty() ? "" : "/" + port.nic);
  }
  std::string text;
  for (const auto& [name, line] : lines) text += line + "\n";
  for (const FabricBlock& block : fabric.blocks) {
    text += "[" + block.name + "]";
    for (const std::string& host : block.hosts) text += " " + host;
    text += "\n";
  }
  return text;
}

}  // namespace

TEST_CASE("Slurm's topology.conf: trees", "[fabric]") {
  std::vector<std::string> notes;
  const Fabric fabric = read(
      "# a comment\n\nSwitchName=s0 Nodes=tux[0-1,07]r[0-1] # another\n"
      "SWITCHNAME=s1 nodes=a LinkSpeed=100\r\nSwitchName=s2 \\\n  Switches=s[0-1] Colour=\"a b\"\n",
      &notes);
  CHECK(shape_of(fabric) == "s0@0 <s2 tux0r0 tux0r1 tux1r0 tux1r1 tux07r0 tux07r1\ns1@0 <s2 a\ns2@1\n");
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].find("colour=") != std::string::npos);
  // Uneven trees, and what `scontrol show topology` prints.
  CHECK(shape_of(read("SwitchName=top Level=2 LinkSpeed=1 Nodes=n[1-3] Switches=mid,leaf2\n"
                      "SwitchName=mid Level=1 LinkSpeed=1 Nodes=n[1-2] Switches=leaf1\n"
                      "SwitchName=leaf1 Level=0 LinkSpeed=1 Nodes=n[1-2] Switches=(null)\n"
                      "SwitchName=leaf2 Level=0 LinkSpeed=1 Nodes=n3\n")) ==
        "leaf1@0 <mid n1 n2\nleaf2@0 <top n3\nmid@1 <top\ntop@2\n");
}

TEST_CASE("Slurm's topology.conf: blocks", "[fabric]") {
  CHECK(shape_of(read("BlockName=b1 Nodes=n[1-2]\nBlockName=b2 Nodes=n[3-4]\nBlockSizes=2,4\n")) ==
        "[b1] n1 n2\n[b2] n3 n4\n");
  CHECK(shape_of(read("BlockSizes=2\nBlockName=b1 BlockIndex=0 Nodes=n[1-2] BlockSize=2\n"
                      "AggregatedBlock=b[1-2] BlockIndex=2 Nodes=n[1-4] BlockSize=4\nBlockName=b2 Nodes=(null)\n")) ==
        "[b1] n1 n2\n[b2]\n");
}

TEST_CASE("Slurm's topology.conf: errors name the line", "[fabric]") {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"SwitchName=a Nodes=n1\nSwitchName=a Nodes=n2\n", "line 2: the switch \"a\" is given twice"},
      {"SwitchName=a Nodes=n[1\n", "line 1: "},
      {"SwitchName=a Nodes=n1\nNodes=n2\n", "line 2: "},
      {"SwitchName=a Nodes=n1\n\nSwitchName b\n", "line 3: expected Key=value"},
      {"SwitchName= Nodes=n1\n", "line 1: "},
      {"BlockName=a Nodes=n1\nBlockName=a Nodes=n2\n", "line 2: the block \"a\" is given twice"},
      {"SwitchName=a Switches=b\nSwitchName=b Switches=a\n", "stands above itself"},
      {"SwitchName=a Nodes=n[1-65536]\nSwitchName=b Nodes=n1\n", "line 2: more than 65,536 hosts"},
      {"SwitchName=a Nodes=\"n1\n", "line 1: a quote is not closed"},
      {"SwitchName=a \\", "line 1: the file ends"},
      {"SwitchName=a Nodes=n\xff\n", "the name \"n?\" has characters that are not printable"},
      {"SwitchName=a Nodes=n1\n\xff\n", "line 2: expected Key=value, not \"?\""},
  };
  for (const auto& [text, message] : cases) {
    INFO(text);
    CHECK(error_of(text).find(message) != std::string::npos);
  }
}

TEST_CASE("Slurm's topology.yaml", "[fabric]") {
  const std::string tree =
      "tree:\n    switches:\n      - switch: root\n        children: s[1-2]\n"
      "      - switch: s1\n        nodes: node[1-2]\n      - switch: s2\n        nodes: [node3, \"node[4-5]\"]\n";
  const std::string block =
      "block:\n    block_sizes: [2, 4]\n    blocks:\n      - block: b1\n        nodes: node[1-2]\n      - block: b2\n";
  const std::string tree_shape = "root@1\ns1@0 <root node1 node2\ns2@0 <root node3 node4 node5\n";
  CHECK(shape_of(read("---\n- topology: t\n  cluster_default: true\n  " + tree)) == tree_shape);
  std::vector<std::string> notes;
  CHECK(shape_of(read(
            "- topology: b\n  cluster_default: false\n  " + block + "- topology: t\n  cluster_default: true\n  " + tree,
            &notes)) == tree_shape);
  CHECK(notes == std::vector<std::string>{"of 2 topologies the default one, \"t\", was read"});
  CHECK(shape_of(read("# c\n- topology: b\n  " + block + "- topology: t\n  " + tree)) == "[b1] node1 node2\n[b2]\n");
  CHECK(read("- topology: f\n  flat: true\n").empty());
  CHECK(read("- topology: t\n  tree:\n    switches: []\n").empty());

  CHECK(error_of("- topology: t\n  cube: 3\n").find("line 1: expected one of tree:") == 0);
  CHECK(error_of("- topology: t\n  tree:\n    switches:\n      - nodes: a\n").find("line 4: expected \"switch:\"") ==
        0);
  CHECK(error_of("- topology: t\n  tree:\n    switches: 3\n").find("line 3: switches: expected a list") == 0);
  CHECK(error_of("- topology: t\n  tree: *x\n").find("line 2: ") == 0);
  CHECK(error_of("- topology: t\n  topology: u\n").find("line 2: the key \"topology\" is given twice") == 0);
  CHECK(error_of("- topology: t\n  tree: {a: [}\n").find("line 2: not YAML: ") == 0);
  CHECK(error_of("- topology: " + std::string(100, '[') + "\n").find("more than 64 levels deep") != std::string::npos);
}

TEST_CASE("topograph's models in all their shapes", "[fabric]") {
  const std::string shape = "core@2\nl1@0 <s1 n1 n2\nl2@0 <s1 n3\ns1@1 <core\n[d1] n1 n2\n[d2] n3\n";
  CHECK(
      shape_of(read("switches:\n  core:\n    labels: {region: x}\n    switches: [s1]\n  s1:\n    switches:\n    - l1\n"
                    "    - l2\nblocks:\n- switch: l1\n  nodes: [\"n[1-2]\"]\n  annotations:\n"
                    "    accelerator.topology.test/domain: d1\n- switch: l2\n  nodes:\n  - n3\n  labels:\n"
                    "    accelerated.topology.nvidia.com/level-0: d2\n    other/label: 7\n")) == shape);
  CHECK(shape_of(read(
            "switches:\n- name: core\n  metadata: {group: c}\n  switches: [s1]\n- name: s1\n  switches: [l1,l2]\n"
            "- name: l1\n  capacity_blocks: [c1]\n- name: l2\n  capacity_blocks: [c2]\ncapacity_blocks:\n"
            "- name: c1\n  type: H100\n  nvlink: d1\n  nodes: [n1,n2]\n- name: c2\n  nvlink: d2\n  nodes: [n3]\n")) ==
        shape);
  CHECK(
      shape_of(read("switches:\n  core: {switches: [s1]}\n  s1: {switches: [l1, l2]}\n  l1: {nodes: [\"n[1-2]\"]}\n"
                    "  l2: {nodes: [n3]}\nnodes:\n  n1: {capacity_block: c, attributes: {nvlink: d1}}\n"
                    "  n2: {attributes: {nvlink: d1}}\n  n3: {type: H100, attributes: {nvlink: d2}}\ncapacity_blocks:\n"
                    "  c: {nodes: [\"n[1-2]\"]}\n")) == shape);
  // Domains of domains; nodes without a switch.
  CHECK(shape_of(read("blocks:\n- switch: l1\n  nodes: [a]\n  annotations:\n    accelerator.x/domain: d\n"
                      "    accelerator.x/sub-domain: r1\n- nodes: [b]\n  annotations:\n    accelerator.x/domain: d\n"
                      "    accelerator.x/sub-domain: r2\n")) == "l1@0 a\n[d] a b\n[r1] a\n[r2] b\n");
  CHECK(error_of("switches:\n  a: {switches: [c]}\n  b: {switches: [c]}\n").find("line 3: the switch \"c\" has two") ==
        0);
  CHECK(error_of("switches:\n  a: {switches: [a]}\n").find("stands above itself") != std::string::npos);
  CHECK(error_of("switches: 7\n").find("line 1: ") == 0);
  CHECK(error_of("blocks:\n- switch: a\n  nodes: [\"n[2-1]\"]\n").find("line 3: [2-1]") == 0);
}

TEST_CASE("recorded topograph models", "[fabric][recordings]") {
  const std::map<std::string, std::string> shapes{
      {"topograph-medium.yaml",
       "sw11@0 <sw21 1101 1102\nsw12@0 <sw21 1201 1202\nsw13@0 <sw22 1301 1302\nsw14@0 <sw22 1401 1402\n"
       "sw21@1 <sw3\nsw22@1 <sw3\nsw3@2\n[nvl1] 1101 1102\n[nvl2] 1201 1202\n[nvl3] 1301 1302\n[nvl4] 1401 1402\n"},
      {"topograph-small-tree.yaml",
       "S1@1\nS2@0 <S1 I21 I22 I25\nS3@0 <S1 I34 I35 I36\n[nvl2] I21 I22 I25\n[nvl3] I34 I35 I36\n"}};
  for (const auto& file : tests::recordings("fabric")) {
    INFO(file);
    const Fabric fabric = read(tests::read_text(file));
    CHECK_FALSE(fabric.empty());
    const auto known = shapes.find(file.filename());
    if (known != shapes.end()) CHECK(shape_of(fabric) == known->second);
  }
}

namespace {

/// Writes what ibnetdiscover would print.
class Discovery {
 public:
  int add(char kind, const std::string& description) {
    nodes_.push_back({kind, description, {}});
    return static_cast<int>(nodes_.size()) - 1;
  }
  void cable(int a, int b, const std::string& speed = "4xNDR") {
    const int pa = static_cast<int>(nodes_[a].lines.size()) + 1, pb = static_cast<int>(nodes_[b].lines.size()) + 1;
    nodes_[a].lines.push_back(line(a, pa, b, pb, speed));
    nodes_[b].lines.push_back(line(b, pb, a, pa, speed));
  }
  std::string text(bool adapters = true) const {
    std::string text =
        "#\n# Topology file: generated on Tue Jun  5 14:15:10 2007\n#\n# Initiated from node 0008 port 0009\n";
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const Node& node = nodes_[i];
      if (node.kind == 'H' && !adapters) continue;
      text += "\nvendid=0x2c9\ndevid=0xd2f2\nsysimgguid=0x9a\n" +
              std::string(node.kind == 'S' ? "switchguid=0x9a(9a)\nSwitch\t65 " : "caguid=0x9a\nCa\t1 ") + "\"" +
              id(static_cast<int>(i)) + "\"\t\t# \"" + node.description +
              (node.kind == 'S' ? "\" enhanced port 0 lid 13 lmc 0\n" : "\"\n");
      for (const std::string& line : node.lines) text += line;
    }
    return text;
  }

 private:
  struct Node {
    char kind;
    std::string description;
    std::vector<std::string> lines;
  };
  std::string id(int node) const {
    char guid[32];
    std::snprintf(guid, sizeof guid, "-%016x", node + 0x1000);
    return nodes_[node].kind + std::string(guid);
  }
  std::string line(int from, int port, int to, int to_port, const std::string& speed) const {
    const bool up = nodes_[from].kind == 'H';
    return "[" + std::to_string(port) + "]" + (up ? "(abc) \t" : "\t") + "\"" + id(to) + "\"[" +
           std::to_string(to_port) + "]" + (nodes_[to].kind == 'H' ? "(abc) " : "") + "\t\t# " +
           (up ? "lid 9 lmc 0 " : "") + "\"" + nodes_[to].description + "\" lid 1 " + speed + "\n";
  }
  std::vector<Node> nodes_;
};

}  // namespace

TEST_CASE("ibnetdiscover: a fat tree with rails", "[fabric]") {
  Discovery net;
  const int spine0 = net.add('S', "MF0;spine0:MQM9700/U1"), spine1 = net.add('S', "MF0;spine1:MQM9700/U1");
  std::vector<int> leaves;
  for (int leaf = 0; leaf < 4; ++leaf) {
    leaves.push_back(net.add('S', "MF0;leaf" + std::to_string(leaf) + ":MQM9700/U1"));
    for (const int spine : {spine0, spine1, spine0}) net.cable(leaves.back(), spine);
    net.cable(leaves.back(), net.add('H', "Mellanox Technologies Aggregation Node"), "4xHDR");
  }
  for (int host = 0; host < 8; ++host) {
    for (int nic = 0; nic < 2; ++nic) {
      const std::string device = host % 2 == 0 ? " mlx5_" + std::to_string(nic) : " HCA-" + std::to_string(nic + 1);
      net.cable(leaves[host / 4 * 2 + nic], net.add('H', "n" + std::to_string(host) + device), nic ? "2xHDR" : "4xNDR");
    }
  }
  net.cable(spine0, net.add('H', "ufm01 mlx5_0"), "4xHDR");
  net.cable(leaves[0], net.add('H', "MT4129 ConnectX7   Mellanox Technologies"));
  for (const bool adapters : {true, false}) {
    std::vector<std::string> notes;
    const Fabric fabric = read(net.text(adapters), &notes);
    CHECK(shape_of(fabric) ==
          "leaf0@0 <spine0 <spine1 n0/mlx5_0 n1/HCA-1 n2/mlx5_0 n3/HCA-1\n"
          "leaf1@0 <spine0 <spine1 n0/mlx5_1 n1/HCA-2 n2/mlx5_1 n3/HCA-2\n"
          "leaf2@0 <spine0 <spine1 n4/mlx5_0 n5/HCA-1 n6/mlx5_0 n7/HCA-1\n"
          "leaf3@0 <spine0 <spine1 n4/mlx5_1 n5/HCA-2 n6/mlx5_1 n7/HCA-2\n"
          "spine0@1 ufm01/mlx5_0\nspine1@1\n");
    CHECK(fabric.ports.front().gbps == 400);
    CHECK(fabric.ports[1].gbps == 100);
    REQUIRE(notes.size() == 1);
    CHECK(notes[0].find("1 adapters do not say whose they are") == 0);
  }
}

TEST_CASE("ibnetdiscover: three levels, equal descriptions, ports of one adapter", "[fabric]") {
  Discovery net;
  const int core = net.add('S', "Quantum Mellanox Technologies"), core2 = net.add('S', "Quantum Mellanox Technologies");
  int host = 0;
  for (int pod = 0; pod < 2; ++pod) {
    std::vector<int> spines;
    for (int s = 0; s < 2; ++s) {
      spines.push_back(net.add('S', "MF0;dir" + std::to_string(pod) + ":CS7500/S" + std::to_string(s) + "/U1"));
      net.cable(spines.back(), core);
      net.cable(spines.back(), core2);
    }
    for (int l = 0; l < 2; ++l) {
      const int leaf = net.add('S', "MF0;dir" + std::to_string(pod) + ":CS7500/L" + std::to_string(l) + "/U1");
      for (const int spine : spines) net.cable(leaf, spine);
      const int adapter = net.add('H', "h" + std::to_string(host++) + " mlx5_0");
      net.cable(leaf, adapter);
      net.cable(leaf, adapter);
    }
  }
  const std::string text = net.text();
  CHECK(
      shape_of(read(text)) ==
      "Quantum Mellanox Technologies 0000000000001000@2\nQuantum Mellanox Technologies 0000000000001001@2\n"
      "dir0/L0/U1@0 <dir0/S0/U1 <dir0/S1/U1 h0/mlx5_0 h0/mlx5_0:2\n"
      "dir0/L1/U1@0 <dir0/S0/U1 <dir0/S1/U1 h1/mlx5_0 h1/mlx5_0:2\n"
      "dir0/S0/U1@1 <Quantum Mellanox Technologies 0000000000001000 <Quantum Mellanox Technologies 0000000000001001\n"
      "dir0/S1/U1@1 <Quantum Mellanox Technologies 0000000000001000 <Quantum Mellanox Technologies 0000000000001001\n"
      "dir1/L0/U1@0 <dir1/S0/U1 <dir1/S1/U1 h2/mlx5_0 h2/mlx5_0:2\n"
      "dir1/L1/U1@0 <dir1/S0/U1 <dir1/S1/U1 h3/mlx5_0 h3/mlx5_0:2\n"
      "dir1/S0/U1@1 <Quantum Mellanox Technologies 0000000000001000 <Quantum Mellanox Technologies 0000000000001001\n"
      "dir1/S1/U1@1 <Quantum Mellanox Technologies 0000000000001000 <Quantum Mellanox Technologies 0000000000001001\n");
  CHECK(error_of("vendid=0x2c9\n[1] \"H-12\"[1] # \"a mlx5_0\" lid 1 4xNDR\n").find("line 2: a port before any") == 0);
  CHECK(error_of("Switch\t2 \"S-12\" # \"a\"\n[1] \"Q-12\"[1]\n").find("line 2: expected \"S-GUID\"") == 0);
  CHECK(error_of("Switch\t2 \"S-12\" # \"a\"\n[1] garbage\n").find("line 2: expected a port") == 0);
}

TEST_CASE("the example of ibnetdiscover's manual page", "[fabric]") {
  const Fabric fabric = read(
      "#\n# Topology file: generated on Tue Jun  5 14:15:10 2007\n#\n# Max of 3 hops discovered\n\nNon-Chassis "
      "Nodes\n\n"
      "vendid=0x8f1\ndevid=0x5a06\nsysimgguid=0x5442ba00003000\nswitchguid=0x5442ba00003080(5442ba00003080)\n"
      "Switch  24 \"S-005442ba00003080\"         # \"ISR9024 Voltaire\" base port 0 lid 6 lmc 0\n"
      "[22]    \"H-0008f10403961354\"[1](8f10403961355)         # \"MT23108 InfiniHost Mellanox Technologies\" lid 4 "
      "4xSDR\n"
      "[10][ext 3]    \"S-0008f10400410015\"[1][ext 9]         # \"SW-6IB4 Voltaire\" lid 3 4xSDR\n"
      "[8]     \"H-0008f10403960558\"[2](8f1040396055a)         # \"node1 HCA-1\" lid 14 4xSDR\n");
  CHECK(shape_of(fabric) == "ISR9024 Voltaire@0 <SW-6IB4 Voltaire node1/HCA-1:2\nSW-6IB4 Voltaire@1\n");
  CHECK(fabric.ports[0].gbps == 10);
}

TEST_CASE("SLURM_TOPOLOGY_ADDR", "[fabric]") {
  const auto shape = [](const char* address, const char* pattern) {
    const auto fabric = fabric_from_slurm_address(address, pattern);
    INFO((fabric ? "" : fabric.error().message));
    REQUIRE(fabric);
    return shape_of(*fabric);
  };
  CHECK(shape("s0.s1.node7", "switch.switch.node") == "s0@1\ns1@0 <s0 node7\n");
  CHECK(shape("s0.s[4-5].node7.cluster", "switch.switch.node") ==
        "s0@1\ns4@0 <s0 node7.cluster\ns5@0 <s0 node7.cluster\n");
  CHECK(shape("b1.node7", "block.node") == "[b1] node7\n");
  CHECK(shape("node7", "node").empty());
  for (const auto& [address, pattern] :
       std::vector<std::pair<const char*, const char*>>{{"s0.node7", "switch.switch.node"},
                                                        {"s0.s1", "switch.switch"},
                                                        {"s0.s0.n", "switch.switch.node"},
                                                        {"", ""},
                                                        {"a.b", "shelf.node"},
                                                        {"s[1.n", "switch.node"}}) {
    INFO(address);
    CHECK_FALSE(fabric_from_slurm_address(address, pattern));
  }
}

TEST_CASE("fabrics merge", "[fabric]") {
  const auto of = [](const char* address) { return *fabric_from_slurm_address(address, "switch.switch.node"); };
  const auto both = merge(of("s0.s1.n1"), of("s0.s2.n2"));
  REQUIRE(both);
  CHECK(shape_of(*both) == "s0@1\ns1@0 <s0 n1\ns2@0 <s0 n2\n");
  CHECK(shape_of(*merge({of("s0.s1.n1"), of("s0.s1.n1"), of("s0.s1.n3")})) == "s0@1\ns1@0 <s0 n1 n3\n");
  CHECK(merge(std::vector<Fabric>{})->empty());
  CHECK(merge(of("s0.s1.n1"), of("s0.s2.n1")).error().message.find("n1 hangs on the switch") != std::string::npos);
  CHECK(merge(of("s0.s1.n1"), of("s9.s1.n2")).error().message.find("\"s1\" is below") != std::string::npos);
  CHECK(merge(of("s0.s1.n1"), of("s1.s0.n2")).error().message.find("stands above itself") != std::string::npos);
}

TEST_CASE("other texts are no fabrics", "[fabric]") {
  for (const char* text : {"", "hello", "<system version=\"1\">\nSwitchName=a\n", "{\n\"switches\": 3}", "a: b\n",
                           "\t\tGPU0\tGPU1\n", "Switch off the light\n"}) {
    INFO(text);
    CHECK_FALSE(looks_like_fabric(text));
    CHECK(error_of(text).find("line 1: this describes no fabric") == 0);
  }
}

TEST_CASE("host lists that multiply are stopped", "[fabric]") {
  std::string nodes, children, model = "switches:\n";
  for (int i = 0; i < 2000; ++i) {
    const std::string number = std::to_string(i);
    nodes += "SwitchName=a" + number + " Switches=a0 Nodes=n[1-900000]\n";
    children += "SwitchName=a" + number + " Switches=n[1-900000]\n";
    model += "  a" + number + ": {nodes: [\"n[1-900000]\"]}\n";
  }
  for (const std::string& text : {nodes, children, model})
    CHECK(error_of(text).find("more than ") != std::string::npos);
}

TEST_CASE("no damage to a fabric does more than give an error", "[fabric]") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  Discovery net;
  const int leaf = net.add('S', "MF0;leaf:X/U1"), spine = net.add('S', "spine");
  net.cable(leaf, spine);
  net.cable(leaf, net.add('H', "n1 mlx5_0"));
  const std::vector<std::string> good{
      "SwitchName=s0 Nodes=tux[0-1,07]r[0-1]\nSwitchName=s1 Nodes=a\nSwitchName=s2 Switches=s[0-1]\nBlockName=b "
      "Nodes=a\n",
      "- topology: t\n  tree:\n    switches:\n      - switch: root\n        children: s1\n      - switch: s1\n        "
      "nodes: n[1-2]\n",
      "switches:\n  a: {switches: [b]}\nblocks:\n- switch: b\n  nodes: [\"n[1-2]\"]\n  annotations: {accelerator/x: "
      "d}\n",
      net.text()};
  for (const std::string& text : good) {
    int accepted = 0;
    for (int round = 0; round < 3000; ++round) {
      std::string broken = text;
      for (int k = 0; k < 3; ++k) broken[random() % broken.size()] = "0123456789-.[]{}\",:=\n\\&*#\xff"[random() % 27];
      if (random() % 8 == 0) broken.resize(random() % broken.size());
      std::vector<std::string> notes;
      const auto fabric = read_fabric(broken, notes);
      accepted += fabric.ok();
      if (!fabric) continue;
      for (const FabricSwitch& s : fabric->switches) {
        for (const int parent : s.parents) REQUIRE(fabric->switches.at(parent).level > s.level);
      }
      for (const FabricPort& port : fabric->ports) REQUIRE(static_cast<size_t>(port.leaf) < fabric->switches.size());
    }
    CHECK(accepted < 3000);
  }
}
