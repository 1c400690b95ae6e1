#include "topology/picture/placement_svg.hpp"

#include <random>
#include <string>

#include "tests/topology/picture/svg_checks.hpp"
#include "topology/read/open_topology.hpp"
#include "tests/catch.hpp"

using namespace mds;
using namespace mds::topology;
using namespace mds::topology::tests;

namespace {

std::string picture(const Cluster& cluster, int per_node, int tp, int cp, int dp, int pp,
                    const std::string& order = "tp-cp-dp-pp") {
  const auto device = cluster.nodes[0].gpus.empty() ? DeviceKind::cpu : DeviceKind::cuda;
  const PlacementRequest request{*RankGrid::make(tp, cp, dp, pp, order), per_node, device};
  const auto placement = place(cluster, request);
  REQUIRE(placement);
  return placement_svg(cluster, *placement, request.grid);
}

Cluster machines(const std::string& description) {
  auto cluster = open_topology(description);
  INFO(description);
  REQUIRE(cluster);
  return *std::move(cluster);
}

}  // namespace

TEST_CASE("pictures of few ranks show every one, its node and its device", "[picture]") {
  struct Case {
    const char* machine;
    int per_node, tp, cp, dp, pp;
  };
  for (const Case& c :
       {Case{"cpu", 1, 1, 1, 1, 1}, Case{"cpu:cores=2 x2", 2, 2, 1, 2, 1}, Case{"cpu:cores=300,numa=3", 7, 7, 1, 1, 1},
        Case{"dgx-h100 x8", 8, 8, 1, 4, 2}, Case{"gh200 x8", 1, 1, 2, 2, 2}, Case{"dgx-a100 x4", 4, 2, 2, 1, 4}}) {
    INFO(c.machine);
    const Cluster cluster = machines(c.machine);
    const std::string svg = picture(cluster, c.per_node, c.tp, c.cp, c.dp, c.pp);
    check_picture(svg);
    const int ranks = c.tp * c.cp * c.dp * c.pp;
    for (int rank = 0; rank < ranks; ++rank) {
      CHECK(count(svg, ">" + std::to_string(rank) + "</text>") >= 2);  // on its tile and among the groups
    }
    for (int node = 0; node < ranks / c.per_node; ++node) {
      CHECK(count(svg, ">Node " + std::to_string(node) + "</text>") == 1);
      CHECK(count(svg, cluster.nodes[static_cast<size_t>(node)].host) >= 1);
    }
    const bool gpus = !cluster.nodes[0].gpus.empty();
    if (gpus) CHECK(count(svg, ">GPU 0</text>") == static_cast<size_t>(ranks / c.per_node));
    if (c.tp > 1) CHECK(count(svg, "tensor group 0</text>") >= 1);
  }
}

TEST_CASE("64 nodes fit a screen's width, with a cell a rank, under their leaves", "[picture]") {
  const std::string svg = picture(machines("dgx-h100 x64 fabric:leaf=8,spine=4"), 8, 8, 1, 8, 8);
  const Box page = check_picture(svg);
  CHECK(page.width <= 1600);
  CHECK(page.height <= 2400);
  CHECK(count(svg, "class=\"rank\"") == 512);
  CHECK(count(svg, "class=\"node\"") == 64);
  CHECK(count(svg, "class=\"leaf\"") == 8);
  CHECK(count(svg, "class=\"group\"") == 64);
  CHECK(count(svg, ">PP 7 · DP 7</text>") == 1);
  for (int rank = 0; rank < 512; ++rank) CHECK(count(svg, ">" + std::to_string(rank) + "</text>") == 1);
}

TEST_CASE("2,048 nodes have a cell each and the groups are cut short", "[picture]") {
  const std::string svg = picture(machines("dgx-h100 x2048 fabric:leaf=16,spine=16"), 8, 8, 1, 128, 16);
  CHECK(svg.size() < 1'000'000);
  CHECK(count(svg, "class=\"node\"") == 2048);
  CHECK(count(svg, "class=\"leaf\"") == 128);
  CHECK(svg.find("and 112 more replicas") != std::string::npos);
  CHECK(svg.find("more stages") != std::string::npos);
}

TEST_CASE("pictures of all kinds of layouts keep to their boxes", "[picture]") {
  const unsigned seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto power = [&](int most) { return 1 << std::uniform_int_distribution<int>(0, most)(random); };
  for (int i = 0; i < 24; ++i) {
    const int tp = power(4), cp = power(2), pp = power(3), dp = power(4);
    const int world = tp * cp * pp * dp;
    const int per_node = std::min(8, world);
    const char* machine = i % 3 == 0 ? "mi300x-8" : i % 3 == 1 ? "dgx-a100" : "dgx-h100";
    const char* fabric = i % 4 == 0 ? "" : i % 4 == 1 ? " fabric:leaf=4,spine=2" : " fabric:leaf=16,spine=4,rails=8";
    const char* order = i % 5 == 0 ? "pp-tp-dp-cp" : "tp-cp-dp-pp";
    const std::string source = std::string(machine) + " x" + std::to_string(world / per_node) + fabric;
    INFO(source << " tp " << tp << " cp " << cp << " dp " << dp << " pp " << pp << " " << order);
    const Box page = check_picture(picture(machines(source), per_node, tp, cp, dp, pp, order));
    CHECK(page.width <= 1700);
  }
}

TEST_CASE("names in a picture are escaped and cut", "[picture]") {
  Cluster cluster = machines("dgx-h100");
  cluster.nodes[0].host = "<a&\"b\">";
  cluster.nodes[0].gpus[0].name = std::string(300, 'W');
  const std::string svg = picture(cluster, 8, 8, 1, 1, 1);
  check_picture(svg);
  CHECK(svg.find("&lt;a&amp;&quot;b&quot;&gt;") != std::string::npos);
  CHECK(svg.find("WW…") != std::string::npos);
}

TEST_CASE("texts are fitted to their box", "[picture]") {
  CHECK(fitted("short", 100, 10) == "short");
  CHECK(fitted("much too long", 40, 10).size() < 13);
  CHECK(text_width(fitted("much too long", 40, 10), 10) <= 40);
  CHECK(fitted("x", 1, 10).empty());
  CHECK(fitted("×××××", 30, 10) == "××…");
  CHECK(hsl(0, 1, 0.5) == "#ff0000");
  CHECK(hsl(120, 1, 0.25) == "#008000");
}
