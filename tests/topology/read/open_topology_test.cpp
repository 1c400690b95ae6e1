#include "topology/read/open_topology.hpp"

#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/catch.hpp"
#include "topology/fabric/node_order.hpp"
#include "topology/read/read_machine.hpp"
#include "topology/read/synthetic.hpp"

using namespace mds;
using namespace mds::topology;

namespace {

struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string pattern = std::filesystem::temp_directory_path() / "open-XXXXXX";
    path = mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path / name, std::ios::binary) << text;
    return path / name;
  }
};

Cluster opened(const std::vector<std::string>& sources, std::vector<std::string>* notes = nullptr) {
  const auto cluster = open_topologies(sources, notes);
  INFO((cluster ? "" : cluster.error().message));
  REQUIRE(cluster);
  return *cluster;
}

std::string error_of(const std::vector<std::string>& sources) {
  const auto cluster = open_topologies(sources);
  REQUIRE_FALSE(cluster);
  CHECK(cluster.error().code == ErrorCode::bad_input);
  return cluster.error().message;
}

std::string hosts_of(const Cluster& cluster) {
  std::string text;
  for (const Machine& node : cluster.nodes) text += (text.empty() ? "" : " ") + node.host;
  return text;
}

bool has(const std::vector<std::string>& notes, const std::string& words) {
  return std::any_of(notes.begin(), notes.end(),
                     [&](const auto& note) { return note.find(words) != std::string::npos; });
}

const char* const kTree = "SwitchName=top Switches=l[1-2]\nSwitchName=l1 Nodes=b1,b10\nSwitchName=l2 Nodes=b2,b3\n";

}  // namespace

TEST_CASE("a folder of recordings: formats by content, order by nature", "[open_topology]") {
  const Folder folder;
  Machine h100 = synthetic_cluster("dgx-h100")->nodes[0];
  h100.host.clear();  // so that the file does not name it
  const std::string nccl = *write_nccl_xml(h100);
  folder.write("n10.xml", nccl);
  folder.write("n9.xml", nccl);
  folder.write("n2.dump", nccl);
  Machine named = h100;
  named.host = "inside";
  folder.write("n1.json", to_json(named).dump());
  folder.write("topology.conf", "SwitchName=s0 Nodes=n[2,9-10],inside\n");
  folder.write("README.md", "# read me");
  folder.write("notes.txt", "words");
  folder.write(".hidden.json", "{");
  std::filesystem::create_directory(folder.path / "more");
  std::vector<std::string> notes;
  const Cluster cluster = opened({folder.path}, &notes);
  CHECK(hosts_of(cluster) == "inside n2 n9 n10");
  CHECK(cluster.fabric.ports.size() == 4);
  CHECK(cluster.nodes[3].gpus.size() == 8);
  CHECK(notes.size() == 4);
  for (const char* name : {"README.md", "notes.txt", ".hidden.json", "more"}) CHECK(has(notes, name));

  folder.write("n3.json", "{\"version\": 1,");
  CHECK(error_of({folder.path}).find("n3.json: is not JSON") != std::string::npos);
  folder.write("n3.json", "words");
  CHECK(error_of({folder.path}).find("n3.json: is no topology that is known here") != std::string::npos);
  const Folder empty;
  CHECK(error_of({empty.path}).find("holds no topology recordings") != std::string::npos);
}

TEST_CASE("two views of a host become one node", "[open_topology]") {
  const Folder folder;
  Machine h100 = synthetic_cluster("dgx-h100")->nodes[0];
  h100.host.clear();  // so that the file does not name it
  Machine bare = h100;
  bare.host = "n1";
  bare.links.clear();
  folder.write("n1.hwloc.json", to_json(bare).dump());
  folder.write("n1.nccl.xml", *write_nccl_xml(h100));
  std::vector<std::string> notes;
  const Cluster cluster = opened({folder.path}, &notes);
  REQUIRE(hosts_of(cluster) == "n1");
  CHECK(cluster.nodes[0].links.size() == h100.links.size());
  CHECK(cluster.nodes[0].cores.size() == h100.cores.size());
  CHECK(has(notes, "n1.nccl.xml adds to what is known of n1"));
}

TEST_CASE("files of one format are as many nodes, whatever host they name", "[open_topology]") {
  const Folder folder;
  for (const char* name : {"n1.json", "n2.json", "n3.json"}) {
    folder.write(name, to_json(synthetic_cluster("gh200")->nodes[0]).dump());
  }
  std::vector<std::string> notes;
  CHECK(hosts_of(opened({folder.path}, &notes)) == "gh200-0000 n2 n3");
  CHECK(has(notes, "n3.json says it is of gh200-0000"));
  // The same file again is the same machine.
  const std::string file = folder.path / "n2.json";
  CHECK(hosts_of(opened({folder.path, file})) == "gh200-0000 n2 n3");
}

TEST_CASE("a recording is repeated, and gets a fabric", "[open_topology]") {
  const Folder folder;
  Machine machine = synthetic_cluster("dgx-h100")->nodes[0];
  machine.gpus[0].uuid = "GPU-1";
  const std::string file = folder.write("my node.json", to_json(machine).dump());
  const Cluster cluster = opened({file + " x3"});
  CHECK(hosts_of(cluster) == "my_node-0000 my_node-0001 my_node-0002");
  CHECK(cluster.nodes[2].gpus[0].uuid.empty());
  CHECK(hosts_of(opened({file})) == "dgx-h100-0000");
  const Cluster wired = opened({file + " x6 fabric:leaf=2,rails=4"});
  CHECK(wired.fabric.ports.size() == 48);
  CHECK(fabric_distance(wired, 0, 1) == 2);
  CHECK(fabric_distance(wired, 0, 2) == 3);
  CHECK(error_of({file + " x0"}).find("x0") != std::string::npos);
  CHECK(error_of({file + " x2 fabric:rails=2"}).find("how many nodes hang on a leaf") != std::string::npos);
  const std::string two = folder.write("two.json", to_json(*synthetic_cluster("gh200 x2")).dump());
  CHECK(error_of({two + " x2"}).find("holds 2 machines") != std::string::npos);
  CHECK(error_of({folder.path.string() + " x2"}).find("is a folder") != std::string::npos);
  CHECK(error_of({"no-such-file"}).find("there is no such file or folder") != std::string::npos);
}

TEST_CASE("machines are put into a fabric", "[open_topology]") {
  const Folder folder;
  const std::string tree = folder.write("tree", kTree);
  std::vector<std::string> notes;
  const Cluster cluster = opened({tree, "dgx-h100 x4"}, &notes);
  CHECK(hosts_of(cluster) == "b1 b2 b3 b10");
  CHECK(has(notes, "the machines take the fabric's hosts"));
  std::string order;
  for (const int node : node_order(cluster).nodes) order += cluster.nodes[node].host + " ";
  CHECK(order == "b1 b10 b2 b3 ");
  CHECK(hosts_of(opened({"dgx-h100 x2", tree})) == "b1 b2");
  CHECK(error_of({tree, "dgx-h100 x5"}).find("the fabric has 4 hosts (b1, ...), fewer than the 5 machines") !=
        std::string::npos);
  CHECK(error_of({tree}).find("switches, but no machines: give those, too, for example --topology \"dgx-h100 x4\"") ==
        0);
  // Real machines keep their names, whatever the fabric says.
  const std::string file = folder.write("real.json", to_json(synthetic_cluster("gh200")->nodes[0]).dump());
  notes.clear();
  CHECK(hosts_of(opened({tree, file}, &notes)) == "gh200-0000");
  CHECK(has(notes, "none of the fabric's hosts (b1, ...) is one of the nodes"));
  // Two fabrics together; two that contradict each other.
  const std::string block = folder.write("block", "BlockName=x Nodes=b[1-3]\n");
  CHECK(opened({tree, block, "gh200 x4"}).fabric.blocks.size() == 1);
  const std::string other = folder.write("other", "SwitchName=l7 Nodes=b1\n");
  CHECK(error_of({tree, other, "gh200"}).find("contradict each other") != std::string::npos);
}

TEST_CASE("adapters that ibnetdiscover calls HCA-1 are mlx5_0", "[open_topology]") {
  const Folder folder;
  std::string text = "Switch\t65 \"S-1\" # \"leaf\" base port 0 lid 6 lmc 0\n";
  for (const int adapter : {1, 4, 9}) {
    text += "[" + std::to_string(adapter) + "] \"H-" + std::to_string(adapter) + "\"[1](a) # \"n1 HCA-" +
            std::to_string(adapter) + "\" lid 4 4xNDR\n";
  }
  const Cluster cluster = opened({folder.write("ib.txt", text), "dgx-h100"});
  REQUIRE(cluster.fabric.ports.size() == 3);
  CHECK(cluster.fabric.ports[0].nic == "HCA-9");  // a DGX has no mlx5_8 for training
  CHECK(cluster.fabric.ports[1].nic == "mlx5_0");
  CHECK(cluster.fabric.ports[2].nic == "mlx5_3");
}

TEST_CASE("synthetic machines given twice are others", "[open_topology]") {
  CHECK(hosts_of(opened({"gh200 x2", "gh200 x1", "gh200"})) ==
        "gh200-0000 gh200-0001 copy1-gh200-0000 copy2-gh200-0000");
  CHECK(hosts_of(opened({"gh200", "cpu"})) == "gh200-0000 cpu-0000");
}

TEST_CASE("a folder of 2,048 recordings in under a second", "[open_topology]") {
  const Folder equal, own;
  const Cluster cluster = *synthetic_cluster("dgx-h100 x2048");
  Machine nameless = cluster.nodes[0];
  nameless.host.clear();
  const std::string nccl = *write_nccl_xml(nameless);
  for (const Machine& node : cluster.nodes) {
    equal.write(node.host + ".xml", nccl);
    // As recorded: every node's GPUs have other UUIDs.
    own.write(node.host + ".xml", nccl + "<!-- " + node.host + " -->\n");
  }
  for (const Folder* folder : {&equal, &own}) {
    const auto begin = std::chrono::steady_clock::now();
    const bool same = hosts_of(opened({folder->path})) == hosts_of(cluster);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    CHECK(same);
    WARN("2,048 NCCL files" << (folder == &equal ? ", all equal: " : ", all different: ") << seconds * 1e3 << " ms");
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(seconds < 3);  // the bound is one second on a machine that does nothing else
#endif
  }
}
