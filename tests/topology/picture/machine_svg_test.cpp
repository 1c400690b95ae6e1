#include "topology/picture/machine_svg.hpp"

#include <random>
#include <string>

#include "tests/topology/doctor/clean_machine.hpp"
#include "tests/topology/picture/svg_checks.hpp"
#include "tests/topology/recordings.hpp"
#include "topology/read/open_topology.hpp"
#include "tests/catch.hpp"

using namespace mds;
using namespace mds::topology;
using namespace mds::topology::tests;

TEST_CASE("a machine's picture shows its parts", "[picture]") {
  const auto cluster = open_topology("dgx-h100");
  REQUIRE(cluster);
  const std::string svg = cluster_svg(*cluster);
  const Box page = check_picture(svg);
  CHECK(page.width <= 1600);
  const Machine& machine = cluster->nodes[0];
  CHECK(count(svg, "class=\"gpu\"") == machine.gpus.size());
  CHECK(count(svg, "class=\"nic\"") == machine.nics.size());
  CHECK(count(svg, "class=\"core\"") == machine.cores.size());
  CHECK(count(svg, "class=\"numa\"") == machine.numa.size());
  CHECK(count(svg, "class=\"nvswitch\"") == 1);
  CHECK(count(svg, ">18 ×</text>") == machine.gpus.size());
  for (const Gpu& gpu : machine.gpus) CHECK(count(svg, ">GPU " + std::to_string(gpu.index) + "</text>") == 1);
}

TEST_CASE("machines that are alike are drawn once", "[picture]") {
  auto cluster = open_topology("dgx-h100 x64");
  REQUIRE(cluster);
  CHECK(count(cluster_svg(*cluster), "class=\"gpu\"") == 8);
  CHECK(count(cluster_svg(*cluster), "×64") == 1);
  cluster->nodes[7].gpus[0].memory_bytes /= 2;  // one of another kind
  const std::string svg = cluster_svg(*cluster);
  check_picture(svg);
  CHECK(count(svg, "class=\"gpu\"") == 16);
  CHECK(count(svg, "×63") == 1);
}

TEST_CASE("what the doctor finds is marked", "[picture]") {
  auto cluster = open_topology("dgx-h100");
  REQUIRE(cluster);
  CHECK(count(cluster_svg(*cluster), "class=\"mark\"") == 0);
  Machine& machine = cluster->nodes[0];
  machine.pci[static_cast<size_t>(machine.gpus[2].pci)].link.width = 4;
  std::erase_if(machine.links, [](const GpuLink& link) { return link.gpu == 5; });
  const std::string svg = cluster_svg(*cluster);
  check_picture(svg);
  CHECK(count(svg, "class=\"mark\"") == 4);  // on both GPUs, and in the list
  CHECK(svg.find("gpu-without-nvlink") != std::string::npos);
  CHECK(svg.find("pci-link-narrow") != std::string::npos);
}

TEST_CASE("pictures of made-up and recorded machines keep to their boxes", "[picture]") {
  const unsigned seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 30; ++i) {
    Cluster cluster;
    for (const Joined joined : {Joined::not_at_all, Joined::mesh, Joined::by_switches}) {
      cluster.nodes.push_back(clean_machine(random, joined));
      cluster.nodes.back().host += std::to_string(cluster.nodes.size());
    }
    check_picture(cluster_svg(cluster));
  }
  for (const char* folder : {"nccl", "hwloc"}) {
    for (const auto& file : recordings(folder)) {
      INFO(file);
      const auto cluster = open_topology(file.string());
      REQUIRE(cluster);
      CHECK(check_picture(cluster_svg(*cluster)).width <= 1600);
    }
  }
  CHECK_NOTHROW(check_picture(cluster_svg(Cluster{{Machine{}}, {}})));
}
