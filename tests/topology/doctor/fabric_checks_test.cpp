#include "topology/doctor/fabric_checks.hpp"

#include <algorithm>
#include <functional>
#include <random>
#include <set>

#include "tests/catch.hpp"
#include "topology/fabric/read_fabric.hpp"
#include "topology/read/synthetic.hpp"

using namespace mds;
using namespace mds::topology;

namespace {

std::string text_of(const std::vector<Finding>& findings) {
  std::string text;
  for (const Finding& f : findings) text += f.code + " [" + f.host + "] " + f.subject + ": " + f.message + "\n";
  return text;
}

/// A fabric of random shape in which every leaf has enough nodes to tell right from wrong.
struct Sample {
  std::string name;
  Cluster cluster;
  int nodes, leaf, rails;
};

Sample random_sample(std::mt19937& random) {
  Sample sample;
  const char* machines[] = {"dgx-h100", "dgx-a100", "mi300x-8", "gb200-nvl72", "l40s-8"};
  const char* machine = machines[random() % 5];
  const bool domains = std::string(machine) == "gb200-nvl72";
  sample.leaf = domains ? 18 * (1 + static_cast<int>(random() % 2)) : 4 + static_cast<int>(random() % 6);
  sample.nodes = sample.leaf * (2 + static_cast<int>(random() % 5));
  sample.rails = 1 << random() % 3;
  sample.name = std::string(machine) + " x" + std::to_string(sample.nodes) +
                " fabric:leaf=" + std::to_string(sample.leaf) + ",spine=" + std::to_string(1 + random() % 4) +
                ",rails=" + std::to_string(sample.rails) + ",spines=" + std::to_string(1 + random() % 3);
  sample.cluster = *synthetic_cluster(sample.name);
  std::shuffle(sample.cluster.nodes.begin(), sample.cluster.nodes.end(), random);
  return sample;
}

}  // namespace

TEST_CASE("no false alarm on clean fabrics", "[doctor][fabric]") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  for (int round = 0; round < 60; ++round) {
    const Sample sample = random_sample(random);
    INFO(sample.name);
    CHECK(text_of(examine_fabric(sample.cluster)) == "");
  }
  for (const char* clean : {"dgx-h100 x4", "dgx-h100 x1 fabric:leaf=1", "cpu x7 fabric:leaf=2,spine=2",
                            "dgx-h100 x3 fabric:leaf=1", "dgx-h100 x5 fabric:leaf=4,rails=8"}) {
    INFO(clean);
    CHECK(text_of(examine_fabric(*synthetic_cluster(clean))) == "");
  }
}

TEST_CASE("rails on spines of their own are no islands", "[doctor][fabric]") {
  Cluster cluster = *synthetic_cluster("dgx-h100 x16 fabric:leaf=8,rails=8");
  Fabric& fabric = cluster.fabric;
  std::vector<int> spines;
  for (int rail = 0; rail < 8; ++rail) {
    spines.push_back(static_cast<int>(fabric.switches.size()));
    fabric.switches.push_back({"plane" + std::to_string(rail), 1, {}});
  }
  for (FabricSwitch& s : fabric.switches) {
    if (s.level == 0) s.parents = {spines[s.name.back() - '0']};
  }
  CHECK(text_of(examine_fabric(cluster)) == "");
}

TEST_CASE("one fault gives exactly its finding", "[doctor][fabric]") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  const auto some_port = [&](Cluster& c) -> FabricPort& { return c.fabric.ports[random() % c.fabric.ports.size()]; };
  struct Fault {
    const char* code;
    int rails_min;
    std::function<std::string(Sample&)> inject;  // gives the host that must be named
  };
  const std::vector<Fault> faults{
      {"missing-rail", 1,
       [&](Sample& s) {
         auto& ports = s.cluster.fabric.ports;
         const auto victim = ports.begin() + static_cast<int>(random() % ports.size());
         const std::string host = victim->host;
         ports.erase(victim);
         return host;
       }},
      {"swapped-cables", 2,
       [&](Sample& s) {
         while (true) {
           FabricPort &a = some_port(s.cluster), &b = some_port(s.cluster);
           if (a.host != b.host || a.leaf == b.leaf) continue;
           std::swap(a.leaf, b.leaf);
           return a.host;
         }
       }},
      {"swapped-cables", 1,
       [&](Sample& s) {
         while (true) {
           FabricPort &a = some_port(s.cluster), &b = some_port(s.cluster);
           if (a.host == b.host || a.nic != b.nic || a.leaf == b.leaf) continue;
           std::swap(a.leaf, b.leaf);
           return std::string();
         }
       }},
      {"cable-on-wrong-leaf", 1,
       [&](Sample& s) {
         while (true) {
           FabricPort &a = some_port(s.cluster), &b = some_port(s.cluster);
           if (a.leaf == b.leaf) continue;
           a.leaf = b.leaf;
           return a.host;
         }
       }},
      {"slow-fabric-link", 1,
       [&](Sample& s) {
         FabricPort& port = some_port(s.cluster);
         port.gbps /= 2;
         return port.host;
       }},
      {"fabric-island", 1,
       [&](Sample& s) {
         auto& switches = s.cluster.fabric.switches;
         while (true) {
           FabricSwitch& leaf = switches[random() % switches.size()];
           if (leaf.level != 0) continue;
           leaf.parents.clear();
           return std::string();
         }
       }},
      {"host-not-in-fabric", 1,
       [&](Sample& s) {
         const std::string host = some_port(s.cluster).host;
         std::erase_if(s.cluster.fabric.ports, [&](const FabricPort& port) { return port.host == host; });
         return host;
       }},
      {"fabric-host-without-node", 1,
       [&](Sample& s) {
         s.cluster.nodes.pop_back();
         return std::string();
       }},
      {"empty-block", 1,
       [&](Sample& s) {
         s.cluster.fabric.blocks.push_back({"b", {}});
         return std::string();
       }},
  };
  for (int round = 0; round < 12; ++round) {
    for (const Fault& fault : faults) {
      Sample sample = random_sample(random);
      while (sample.rails < fault.rails_min) sample = random_sample(random);
      const std::string host = fault.inject(sample);
      const auto findings = examine_fabric(sample.cluster);
      INFO(sample.name << ", " << fault.code << " of " << host << "\n" << text_of(findings));
      REQUIRE(findings.size() == 1);
      CHECK(findings[0].code == fault.code);
      if (!host.empty()) CHECK(findings[0].host == host);
      CHECK_FALSE(findings[0].remedy.empty());
    }
  }
}

TEST_CASE("faults of trees without cables' names", "[doctor][fabric]") {
  const auto findings = [](const std::string& text, const std::string& machines) {
    Cluster cluster = *synthetic_cluster(machines);
    std::vector<std::string> notes;
    cluster.fabric = *read_fabric(text, notes);
    for (size_t i = 0; i < cluster.nodes.size(); ++i) cluster.nodes[i].host = "n" + std::to_string(i + 1);
    return text_of(examine_fabric(cluster));
  };
  const std::string tree = "SwitchName=top Switches=l[1-2]\nSwitchName=l1 Nodes=n[1-4]\n";
  CHECK(findings(tree + "SwitchName=l2 Nodes=n[5-8]\n", "dgx-h100 x8") == "");
  CHECK(findings(tree + "SwitchName=l2 Nodes=n[4-8]\n", "dgx-h100 x8") ==
        "host-on-two-leaves [n4] node: it hangs on 2 leaves (l[1-2]), all others on one\n");
  CHECK(findings("SwitchName=l1 Nodes=n[1-4]\nSwitchName=l2 Nodes=n[5-8]\n", "dgx-h100 x8") ==
        "fabric-island [n[5-8]] switch l2: nothing is above l2: the 4 nodes below it cannot reach what is below l1\n");
  CHECK(findings(tree + "SwitchName=l2 Nodes=n[5-6]\n", "dgx-h100 x8").find("host-not-in-fabric [n[7-8]]") == 0);
  CHECK(findings("SwitchName=l1 Nodes=m[1-4]\n", "dgx-h100 x8").find("fabric-of-other-hosts []") == 0);
  CHECK(findings("BlockName=a Nodes=n[1-4]\nBlockName=b Nodes=n[5-8]\n", "dgx-h100 x8") == "");
  CHECK(
      findings("BlockName=a Nodes=n[1-4]\nBlockName=b Nodes=n[5-7]\n", "dgx-h100 x8").find("host-not-in-fabric [n8]") ==
      0);
}

TEST_CASE("an NVLink domain over leaves that it shares is a note", "[doctor][fabric]") {
  const auto findings = examine_fabric(*synthetic_cluster("gb200-nvl72 x36 fabric:leaf=12"));
  REQUIRE(findings.size() == 2);
  CHECK(findings[0].code == "domain-over-leaves");
  CHECK(findings[0].severity == Severity::note);
  // Whole leaves: the domain is larger than one, that is all.
  CHECK(text_of(examine_fabric(*synthetic_cluster("gb200-nvl72 x36 fabric:leaf=9"))) == "");
}
