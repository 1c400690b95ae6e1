#include "topology/cluster.hpp"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/catch.hpp"
#include "topology/synthetic.hpp"

using namespace mds;
using namespace mds::topology;
using nlohmann::json;

namespace {

/// A machine with every field set to something random.
Machine random_machine(std::mt19937& random) {
  const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  Machine machine;
  machine.host = "host-" + std::to_string(pick(0, 9999));
  int cpu = 0;
  for (int i = 0, cores = pick(1, 40); i < cores; ++i) {
    Core core{i, pick(0, 3), pick(0, 7), {}};
    for (int t = 0, threads = pick(1, 4); t < threads; ++t) core.cpus.push_back(cpu++);
    machine.cores.push_back(core);
  }
  for (int i = 0; i < pick(0, 8); ++i) machine.numa.push_back({i, pick(0, 3), random() * uint64_t{4096}});
  for (int i = 0; i < pick(0, 8); ++i) {
    machine.gpus.push_back(
        {i, "GPU-" + std::to_string(random()), "0000:3b:00.0", "NVIDIA \"X\"", random() * uint64_t{64}, pick(-1, 7)});
  }
  for (int i = 0; i < pick(0, 8); ++i) {
    machine.nics.push_back({"mlx5_" + std::to_string(i), "", pick(-1, 7), pick(0, 4000) / 8.0, pick(0, 1) == 1});
  }
  for (int i = 0; i < pick(0, 3); ++i) machine.notes.push_back("note " + std::to_string(i));
  return machine;
}

struct TemporaryFolder {
  std::filesystem::path path;
  TemporaryFolder() {
    std::string pattern = std::filesystem::temp_directory_path() / "topology-XXXXXX";
    path = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path / name) << text;
    return path / name;
  }
};

}  // namespace

TEST_CASE("a cluster survives JSON and CBOR") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  for (int round = 0; round < 20; ++round) {
    const Cluster cluster{{random_machine(random), random_machine(random)}};
    const auto text = cluster_from_json(json::parse(to_json(cluster).dump()));
    REQUIRE(text);
    CHECK(*text == cluster);
    const auto machine = machine_from_json(json::from_cbor(json::to_cbor(to_json(cluster.nodes[0]))));
    REQUIRE(machine);
    CHECK(*machine == cluster.nodes[0]);
  }
}

TEST_CASE("each broken field is named") {
  const json good = to_json(*synthetic_cluster("dgx-h100 x2"));
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
      {"/nodes/0/cores", json::array(), "nodes[0].cores"},
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
  };
  for (const Case& c : cases) {
    json broken = good;
    broken[json::json_pointer(c.pointer)] = c.value;
    const auto cluster = cluster_from_json(broken);
    INFO(c.pointer);
    REQUIRE_FALSE(cluster);
    CHECK(cluster.error().code == ErrorCode::bad_input);
    INFO(cluster.error().message);
    CHECK(cluster.error().message.find("topology: " + std::string(c.place) + ": ") == 0);
  }
  for (const char* required : {"host", "cores", "numa"}) {
    json broken = good;
    broken["nodes"][0].erase(required);
    const auto cluster = cluster_from_json(broken);
    REQUIRE_FALSE(cluster);
    CHECK(cluster.error().message == "topology: nodes[0]." + std::string(required) + ": is missing");
  }
  CHECK(machine_from_json(json(3)).error().message == "topology: expected an object");
}

TEST_CASE("unknown keys of a newer recording are skipped") {
  json document = to_json(*synthetic_cluster("gh200"));
  document["nodes"][0]["links"] = json::array({1, 2, 3});
  CHECK(*cluster_from_json(document) == *synthetic_cluster("gh200"));
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

TEST_CASE("recordings are loaded from a file, a folder, or a single machine's file") {
  const TemporaryFolder folder;
  const Cluster two = *synthetic_cluster("dgx-h200 x2"), one = *synthetic_cluster("gh200");
  const std::string b = folder.write("b.json", to_json(two).dump());
  const std::string a = folder.write("a.json", to_json(one.nodes[0]).dump(2));
  folder.write("notes.txt", "not a recording");
  CHECK(*load_cluster(b) == two);
  CHECK(*load_cluster(a) == one);
  const auto all = load_cluster(folder.path);
  REQUIRE(all);
  REQUIRE(all->nodes.size() == 3);
  CHECK(all->nodes[0] == one.nodes[0]);
  CHECK(all->nodes[2] == two.nodes[1]);
  CHECK(*open_topology(folder.path) == *all);
  CHECK(*open_topology("gh200") == one);

  const auto error_of = [](const std::string& path) {
    const auto cluster = load_cluster(path);
    REQUIRE_FALSE(cluster);
    CHECK(cluster.error().code == ErrorCode::bad_input);
    return cluster.error().message;
  };
  CHECK(error_of(folder.write("c.json", "{\"version\": 1,")).find("c.json is not JSON") != std::string::npos);
  CHECK(error_of(folder.path).find("c.json is not JSON") != std::string::npos);
  CHECK(error_of(folder.write("d.json", "[]")).find("d.json: topology: expected an object") != std::string::npos);
  CHECK(error_of(folder.path / "none.json").find("none.json") != std::string::npos);
  CHECK(error_of(folder.write("e.json", "")).find("e.json is not JSON") != std::string::npos);
  const TemporaryFolder empty;
  CHECK(error_of(empty.path).find("holds no topology recordings") != std::string::npos);
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
