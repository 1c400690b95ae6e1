// The placement as a picture: nodes with their ranks above, the groups of ranks below, a legend.
#include "topology/picture/placement_svg.hpp"

#include <algorithm>

#include "topology/picture/placement_picture.hpp"
#include "topology/placement_reasons.hpp"

namespace mds::topology {
namespace {

using namespace picture;

constexpr double kMargin = 28, kWidthMax = 1560;
constexpr size_t kDetailedNodesMax = 8, kDetailedRanksMax = 64, kNodesWithRanksMax = 128;

/// What the smallest cell of the upper half is.
enum class Detail { all, ranks, nodes };

Detail detail_of(const Placement& placement) {
  const size_t nodes = placement.nodes.size();
  if (nodes <= kDetailedNodesMax && placement.ranks.size() <= kDetailedRanksMax) return Detail::all;
  return nodes <= kNodesWithRanksMax ? Detail::ranks : Detail::nodes;
}

/// Signs and their meaning, side by side and wrapped. Returns the height.
double draw_legend(SvgCanvas& canvas, double x, double y, double width, const Drawn& drawn, Detail detail) {
  const RankGrid& grid = drawn.grid;
  const auto& ranks = drawn.placement.ranks;
  const Tone tone = tone_of(grid, {});
  const auto colour = coloured_by(grid);
  std::string same = colour == ColouredBy::tensor_group     ? "a colour: a tensor group, which splits every layer"
                     : colour == ColouredBy::pipeline_stage ? "a colour: a pipeline stage, the same layers"
                                                            : "a colour: a replica of the model";
  if (grid.size(Axis::pipeline) > 1 && grid.size(Axis::data) > 1) {
    same = "hue: pipeline stage, shade: replica";
    if (colour == ColouredBy::tensor_group) same += "; a colour: a tensor group, which splits every layer";
  }
  enum class Sign { tile, core, shared, nic, line, arrow, bar };
  const auto sharing = std::count_if(ranks.begin(), ranks.end(), [](const auto& rank) { return rank.shares_cores; });
  std::vector<std::pair<Sign, std::string>> items{{Sign::tile, same}};
  if (detail == Detail::nodes) items[0].second += "; a cell: a node, the shades in it its tensor groups";
  if (detail == Detail::ranks) {
    items[0].second += "; a cell: a rank; a gap: another NUMA node";
    items.push_back({Sign::nic, "the NIC of the ranks above it"});
  }
  if (detail == Detail::all && sharing < std::ssize(ranks)) items.push_back({Sign::core, "a core of the rank's own"});
  if (detail == Detail::all && sharing > 0) items.push_back({Sign::shared, "a core shared with other ranks"});
  if (grid.size(Axis::data) > 1) items.push_back({Sign::line, "a data-parallel group, which sums gradients"});
  if (grid.size(Axis::pipeline) > 1) items.push_back({Sign::arrow, "the pipeline, which hands activations on"});
  if (grid.size(Axis::context) > 1) items.push_back({Sign::bar, "a context-parallel group, which splits the sequence"});
  double left = x, top = y;
  for (const auto& [sign, text] : items) {
    const double item = 28 + text_width(text, 11);
    if (left > x && left + item > x + width) {
      left = x;
      top += 22;
    }
    if (sign == Sign::tile) canvas.rect({left, top, 20, 15}, {tone.fill, tone.edge, 4, 1.2});
    if (sign == Sign::core || sign == Sign::shared) {
      draw_cores(canvas, {left + 5, top + 2, 12, 12}, 1, sign == Sign::shared, tone);
    }
    if (sign == Sign::nic) canvas.rect({left, top + 6, 20, 4}, {"#3b82f6", "none", 2});
    if (sign == Sign::line) canvas.line(left + 10, top, left + 10, top + 15, kFaintInk, 1.6);
    if (sign == Sign::bar) canvas.line(left, top + 7.5, left + 20, top + 7.5, kFaintInk, 3);
    if (sign == Sign::arrow) canvas.arrow(left, top + 7.5, left + 20, top + 7.5, kSoftInk);
    canvas.text(left + 28, top + 11.5, width - 28, text, {11, kSoftInk});
    left += item + 22;
  }
  return top + 18 - y;
}

std::string sizes_text(const RankGrid& grid) {
  std::string text = "tensor " + std::to_string(grid.size(Axis::tensor)) + " × pipeline " +
                     std::to_string(grid.size(Axis::pipeline)) + " × data " + std::to_string(grid.size(Axis::data));
  if (grid.size(Axis::context) > 1) text += " × context " + std::to_string(grid.size(Axis::context));
  return text;
}

}  // namespace

std::string placement_svg(const Cluster& cluster, const Placement& placement, const RankGrid& grid) {
  const Drawn drawn{cluster, placement, grid};
  const Detail detail = detail_of(placement);
  const auto nodes = detail == Detail::all ? detailed_nodes(drawn) : nodes_under_leaves(drawn);
  auto groups = rank_groups(drawn);
  if (detail != Detail::all || groups->size().width > kWidthMax) groups = tensor_groups(drawn);
  const std::string title = counted(placement.ranks.size(), "rank") + " on " + counted(placement.nodes.size(), "node");
  const double inner = std::max({nodes->size().width, groups->size().width, 520.});

  SvgCanvas page;
  page.text(kMargin, 46, inner, title, {22, kInk, true});
  page.text(kMargin, 67, inner, sizes_text(grid), {13, kSoftInk});
  double y = 86;
  nodes->draw(page, kMargin, y);
  y += nodes->size().height + 16;
  page.text(kMargin, y + 20, inner, "How the ranks work together", {15, kInk, true});
  groups->draw(page, kMargin, y + 32);
  y += 32 + groups->size().height + 26;
  y += draw_legend(page, kMargin, y, inner, drawn, detail);
  return page.document(inner + 2 * kMargin, y + kMargin, title + ": " + sizes_text(grid));
}

}  // namespace mds::topology
