// The doctor on clusters: findings folded over hosts, and nodes unlike their peers.
#include <functional>
#include <random>

#include "tests/topology/doctor/clean_machine.hpp"
#include "topology/doctor/doctor.hpp"
#include "tests/catch.hpp"

using namespace mds::topology;
using tests::clean_machine;
using tests::Joined;

namespace {

Cluster equal_nodes(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  const Machine machine = clean_machine(random, Joined::by_switches);
  Cluster cluster;
  for (size_t i = 0; i < count; ++i) {
    cluster.nodes.push_back(machine);
    std::string number = std::to_string(i);
    cluster.nodes.back().host = "node" + std::string(4 - number.size(), '0') + number;
  }
  return cluster;
}

}  // namespace

TEST_CASE("equal findings of many hosts are one", "[doctor]") {
  const unsigned seed = std::random_device()();
  INFO("seed " << seed);
  Cluster cluster = equal_nodes(64, seed);
  CHECK(examine(cluster).empty());
  for (size_t i = 8; i < 24; ++i) cluster.nodes[i].nics[0].gbps = 100;
  auto findings = examine(cluster);
  REQUIRE(findings.size() == 2);  // the NIC itself, and that the nodes differ
  CHECK(findings[0].code == "nic-slow");
  CHECK(findings[0].host == "node[0008-0023]");
  CHECK(findings[1].code == "node-nics-unlike");
  CHECK(findings[1].host == "node[0008-0023]");

  for (Machine& node : cluster.nodes) node.nics[0].gbps = 100;
  findings = examine(cluster);
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].host == "node[0000-0063]");
}

TEST_CASE("a node unlike its peers is named", "[doctor]") {
  struct Case {
    const char* code;
    std::function<void(Machine&)> change;
  };
  const std::vector<Case> cases{
      {"node-gpus-missing",
       [](Machine& m) {
         const int last = static_cast<int>(m.gpus.size()) - 1;
         std::erase_if(m.links, [&](const GpuLink& link) { return link.gpu == last; });
         m.gpus.pop_back();
       }},
      {"node-gpus-unlike",
       [](Machine& m) {
         for (Gpu& gpu : m.gpus) gpu.name = "NVIDIA H200";
       }},
      {"node-cores-fewer", [](Machine& m) { m.cores.pop_back(); }},
      {"node-memory-unlike",
       [](Machine& m) {
         for (NumaNode& node : m.numa) node.memory_bytes /= 2;
       }},
      {"node-nics-unlike",
       [](Machine& m) {
         m.nics.push_back({"eth9", "", -1, 100, false});
       }},
  };
  const unsigned seed = std::random_device()();
  INFO("seed " << seed);
  for (const Case& c : cases) {
    Cluster cluster = equal_nodes(12, seed);
    c.change(cluster.nodes[5]);
    auto findings = examine(cluster);
    INFO(c.code);
    REQUIRE(findings.size() == 1);
    CHECK(findings[0].code == c.code);
    CHECK(findings[0].host == "node0005");
    CHECK(findings[0].severity == Severity::warning);

    // Where many differ, the cluster is mixed on purpose.
    for (size_t i = 6; i < 10; ++i) c.change(cluster.nodes[i]);
    findings = examine(cluster);
    REQUIRE(findings.size() == 1);
    CHECK(findings[0].severity == Severity::note);
    CHECK(findings[0].host == "node[0005-0009]");
  }
}

TEST_CASE("virtual nodes of one machine are no finding, two machines of one name are", "[doctor]") {
  Cluster cluster = equal_nodes(2, 3);
  cluster.nodes[1].host = cluster.nodes[0].host;
  CHECK(examine(cluster).empty());
  cluster.nodes[1].numa[0].memory_bytes += 4096;
  const auto findings = examine(cluster);
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].code == "host-twice");
}
