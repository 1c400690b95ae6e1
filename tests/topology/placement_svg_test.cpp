#include <cstdlib>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "topology/placement.hpp"
#include "topology/svg_canvas.hpp"
#include "topology/synthetic.hpp"

using namespace mds;
using namespace mds::topology;

namespace {

std::string picture(const Cluster& cluster, int per_node, int tp, int cp, int dp, int pp, DeviceKind device) {
  const PlacementRequest request{*RankGrid::make(tp, cp, dp, pp), per_node, device, false};
  const auto placement = place(cluster, request);
  REQUIRE(placement);
  return placement_svg(cluster, *placement, request.grid);
}

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

double number_after(const std::string& tag, const std::string& name) {
  const size_t at = tag.find(" " + name + "=\"");
  return at == std::string::npos ? 0 : std::atof(tag.c_str() + at + name.size() + 3);
}

/// Every element is closed, nothing is drawn outside of the page, and texts are shorter than what they stand on.
void check_well_formed(const std::string& svg) {
  std::vector<std::string> open;
  const double page_width = number_after(svg, "width"), page_height = number_after(svg, "height");
  REQUIRE(page_width > 0);
  for (size_t at = 0; (at = svg.find('<', at)) != std::string::npos;) {
    const size_t end = svg.find('>', at);
    REQUIRE(end != std::string::npos);
    const std::string tag = svg.substr(at, end - at + 1);
    const std::string name = tag.substr(1, tag.find_first_of(" />", 2) - 1);
    at = end + 1;
    if (tag[1] == '/') {
      REQUIRE_FALSE(open.empty());
      REQUIRE(tag == "</" + open.back() + ">");
      open.pop_back();
      continue;
    }
    INFO(tag);
    REQUIRE(count(tag, "\"") % 2 == 0);
    if (tag[tag.size() - 2] != '/') open.push_back(name);
    if (name == "rect" && tag.find("100%") == std::string::npos) {
      REQUIRE(number_after(tag, "x") >= 0);
      REQUIRE(number_after(tag, "x") + number_after(tag, "width") <= page_width);
      REQUIRE(number_after(tag, "y") + number_after(tag, "height") <= page_height);
    }
    if (name != "text") continue;
    const std::string content = svg.substr(at, svg.find('<', at) - at);
    const double size = number_after(tag, "font-size");
    const double width = text_width(content, size, tag.find("font-weight") != std::string::npos);
    const double shift = tag.find("middle") != std::string::npos    ? 0.5
                         : tag.find("\"end\"") != std::string::npos ? 1
                                                                    : 0;
    const double left = number_after(tag, "x") - shift * width;
    INFO(content);
    REQUIRE(left >= 0);
    REQUIRE(left + width <= page_width);
    REQUIRE(number_after(tag, "y") <= page_height);
  }
  REQUIRE(open.empty());
}

}  // namespace

TEST_CASE("pictures of small and large placements are well-formed and complete") {
  struct Case {
    const char* machine;
    int per_node, tp, cp, dp, pp;
    DeviceKind device;
  };
  for (const Case& c :
       {Case{"cpu", 1, 1, 1, 1, 1, DeviceKind::cpu}, Case{"cpu:cores=2 x2", 2, 2, 1, 2, 1, DeviceKind::cpu},
        Case{"cpu:cores=300,numa=3", 7, 7, 1, 1, 1, DeviceKind::cpu},
        Case{"dgx-h100 x8", 8, 8, 1, 4, 2, DeviceKind::cuda}, Case{"gh200 x16", 1, 1, 2, 4, 2, DeviceKind::cuda},
        Case{"dgx-a100 x8", 4, 2, 2, 1, 8, DeviceKind::cuda}}) {
    INFO(c.machine);
    const Cluster cluster = *synthetic_cluster(c.machine);
    const std::string svg = picture(cluster, c.per_node, c.tp, c.cp, c.dp, c.pp, c.device);
    check_well_formed(svg);
    const int ranks = c.tp * c.cp * c.dp * c.pp;
    for (int rank = 0; rank < ranks; ++rank) {
      CHECK(count(svg, ">" + std::to_string(rank) + "</text>") >= 2);  // on its tile and among the groups
    }
    for (int node = 0; node < ranks / c.per_node; ++node) {
      CHECK(count(svg, ">Node " + std::to_string(node) + "</text>") == 1);
      CHECK(count(svg, ">" + cluster.nodes[node].host + "</text>") == 1);
    }
    if (c.device == DeviceKind::cuda) CHECK(count(svg, ">GPU 0</text>") == static_cast<size_t>(ranks / c.per_node));
    if (c.tp > 1) CHECK(count(svg, "tensor group 0</text>") >= 1);
  }
}

TEST_CASE("a picture of thousands of ranks is cut short and says so") {
  const std::string svg = picture(*synthetic_cluster("dgx-h100 x512"), 8, 8, 1, 32, 16, DeviceKind::cuda);
  check_well_formed(svg);
  CHECK(svg.size() < 2'000'000);
  CHECK(svg.find("and 496 more nodes") != std::string::npos);
  CHECK(svg.find("and 24 more replicas") != std::string::npos);
  CHECK(svg.find("+ 11 stages") != std::string::npos);
}

TEST_CASE("names in a picture are escaped and cut") {
  Cluster cluster = *synthetic_cluster("dgx-h100");
  cluster.nodes[0].host = "<a&\"b\">";
  cluster.nodes[0].gpus[0].name = std::string(300, 'W');
  const std::string svg = picture(cluster, 8, 8, 1, 1, 1, DeviceKind::cuda);
  check_well_formed(svg);
  CHECK(svg.find("&lt;a&amp;&quot;b&quot;&gt;") != std::string::npos);
  CHECK(svg.find("WW…") != std::string::npos);
}

TEST_CASE("texts are fitted to their box") {
  CHECK(fitted("short", 100, 10) == "short");
  CHECK(fitted("much too long", 40, 10).size() < 13);
  CHECK(text_width(fitted("much too long", 40, 10), 10) <= 40);
  CHECK(fitted("x", 1, 10).empty());
  CHECK(fitted("×××××", 30, 10) == "××…");
  CHECK(hsl(0, 1, 0.5) == "#ff0000");
  CHECK(hsl(120, 1, 0.25) == "#008000");
}
