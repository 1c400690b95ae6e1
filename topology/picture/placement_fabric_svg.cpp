// The upper half of the placement picture for many nodes: cells under their leaves and spines.
#include <algorithm>
#include <climits>
#include <cmath>
#include <utility>

#include "topology/picture/placement_picture.hpp"

namespace mds::topology::picture {
namespace {

constexpr size_t kNodesWithRanksMax = 128, kNodesMax = 4096;
constexpr double kWidthMax = 1544;
constexpr double kCell = 20, kCellGap = 2, kNumaGap = 6, kNicHeight = 4;
constexpr size_t kCellsPerRow = 8, kRowsMax = 8;
constexpr double kNodePadding = 6, kNodeHeader = 28, kNodeGap = 8;
constexpr double kTinyNode = 13, kTinyGap = 3;
constexpr size_t kSlicesMax = 4;
constexpr double kBoxPadding = 9, kBoxHeader = 19, kBoxGap = 10;
const std::string kNicFill = "#3b82f6";
const std::string kBoxFills[] = {"#ffffff", "#f8fafc", "#f1f5f9", "#e2e8f0"};

/// A box with its size and the place of what is in it.
struct Laid {
  const FabricBox* box = nullptr;
  std::vector<Laid> inside;
  std::vector<Box> places;  ///< of `inside` or of the nodes, relative to this box
  Size size;
  int height = 0;  ///< boxes on top of each other in here
};

class NodesUnderLeaves : public Part {
 public:
  explicit NodesUnderLeaves(const Drawn& drawn) : drawn_(drawn) {
    std::vector<FabricBox> boxes = fabric_boxes(drawn.cluster, drawn.placement);
    tiny_ = drawn.placement.nodes.size() > kNodesWithRanksMax;
    if (tiny_) {
      node_ = {kTinyNode, kTinyNode};
      gap_ = kTinyGap;
    } else {
      for (size_t node = 0; node < drawn.placement.nodes.size(); ++node) fit_node(node);
      gap_ = kNodeGap;
    }
    size_t left = kNodesMax;
    for (FabricBox& box : boxes) cut(box, left);
    std::erase_if(boxes, [](const FabricBox& box) { return box.nodes.empty() && box.inside.empty(); });
    whole_box_.inside = std::move(boxes);
    choose_layout();
  }

  Size size() const override {
    Size size = whole_.size;
    if (drawn_.placement.nodes.size() > kNodesMax) size.height += 22;
    return size;
  }

  void draw(SvgCanvas& canvas, double x, double y) const override {
    draw_box(canvas, x, y, whole_, true);
    if (drawn_.placement.nodes.size() <= kNodesMax) return;
    canvas.text(x, y + whole_.size.height + 16, whole_.size.width,
                "… and " + std::to_string(drawn_.placement.nodes.size() - kNodesMax) + " more nodes", {13, kSoftInk});
  }

 private:
  /// As many nodes side by side in a leaf as make the picture smallest, and not too high.
  void choose_layout() {
    double best = 0;
    for (const size_t across : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32}) {
      Laid laid = lay_out(whole_box_, kWidthMax, across, true);
      const double area = laid.size.width * laid.size.height;
      const double shape = std::max(1., laid.size.height / laid.size.width / 1.2);
      if (laid.size.width > kWidthMax + 1 || (best > 0 && area * shape >= best)) continue;
      best = area * shape;
      whole_ = std::move(laid);
    }
    if (best == 0) whole_ = lay_out(whole_box_, kWidthMax, 1, true);
  }

  static void cut(FabricBox& box, size_t& left) {
    if (box.nodes.size() > left) box.nodes.resize(left);
    left -= box.nodes.size();
    for (FabricBox& one : box.inside) cut(one, left);
    std::erase_if(box.inside, [](const FabricBox& one) { return one.nodes.empty() && one.inside.empty(); });
  }

  const RankPlacement& rank(const NodePlacement& node, size_t local) const {
    return drawn_.placement.ranks[static_cast<size_t>(node.first_rank) + local];
  }

  int numa_of(const RankPlacement& rank) const {
    const Machine& machine = drawn_.cluster.nodes[static_cast<size_t>(rank.node)];
    if (rank.gpu >= 0) return machine.gpus[static_cast<size_t>(rank.gpu)].numa;
    return rank.memory_nodes.empty() ? 0 : rank.memory_nodes.front();
  }

  /// Where the cells of a node are, relative to it: a gap where the NUMA node changes.
  std::vector<Box> cells_of(const NodePlacement& node) const {
    std::vector<Box> cells;
    double x = kNodePadding, y = kNodeHeader;
    const size_t count = std::min<size_t>(static_cast<size_t>(node.ranks), kCellsPerRow * kRowsMax);
    for (size_t i = 0; i < count; ++i) {
      if (i > 0 && i % kCellsPerRow == 0) {
        x = kNodePadding;
        y += kCell + kNicHeight + 5;
      } else if (i > 0 && numa_of(rank(node, i)) != numa_of(rank(node, i - 1))) {
        x += kNumaGap;
      }
      cells.push_back({x, y, kCell, kCell});
      x += kCell + kCellGap;
    }
    return cells;
  }

  void fit_node(size_t index) {
    for (const Box& cell : cells_of(drawn_.placement.nodes[index])) {
      node_.width = std::max(node_.width, cell.right() + kNodePadding);
      node_.height = std::max(node_.height, cell.bottom() + kNicHeight + 2 + kNodePadding);
    }
    node_.width = std::max(node_.width, 92.);
  }

  /// Puts `sizes` into rows no wider than `width`, and equal ones so that the rows are equally long.
  static Size flow(const std::vector<Size>& sizes, double width, double gap, std::vector<Box>& places) {
    double widest = 1;
    for (const Size& size : sizes) widest = std::max(widest, size.width);
    const auto most = static_cast<size_t>(std::max(1., std::floor((width + gap) / (widest + gap))));
    const size_t rows = (sizes.size() + most - 1) / most;
    const size_t across = rows == 0 ? 1 : (sizes.size() + rows - 1) / rows;
    double x = 0, y = 0, row = 0;
    Size all;
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (i > 0 && i % across == 0) {
        x = 0;
        y += row + gap;
        row = 0;
      }
      places.push_back({x, y, sizes[i].width, sizes[i].height});
      x += sizes[i].width + gap;
      row = std::max(row, sizes[i].height);
      all.width = std::max(all.width, x - gap);
    }
    all.height = sizes.empty() ? 0 : y + row;
    return all;
  }

  /// `across`: nodes side by side in a leaf.
  Laid lay_out(const FabricBox& box, double width, size_t across, bool whole) const {
    Laid laid;
    laid.box = &box;
    const bool framed = !whole && !box.name.empty();
    const double inner = width - (framed ? 2 * kBoxPadding : 0);
    std::vector<Size> sizes;
    for (const FabricBox& one : box.inside) {
      laid.inside.push_back(lay_out(one, inner, across, false));
      sizes.push_back(laid.inside.back().size);
      laid.height = std::max(laid.height, laid.inside.back().height + 1);
    }
    sizes.resize(sizes.size() + box.nodes.size(), node_);
    const double nodes_width = static_cast<double>(across) * (node_.width + gap_) - gap_;
    const bool limited = framed && !box.nodes.empty();
    laid.size =
        flow(sizes, limited ? std::min(inner, nodes_width) : inner, box.nodes.empty() ? kBoxGap : gap_, laid.places);
    if (!framed) return laid;
    laid.size.width = std::max(laid.size.width, tiny_ ? 78. : node_.width) + 2 * kBoxPadding;
    laid.size.height += kBoxHeader + kBoxPadding;
    for (Box& place : laid.places) {
      place.x += kBoxPadding;
      place.y += kBoxHeader;
    }
    return laid;
  }

  void draw_box(SvgCanvas& canvas, double x, double y, const Laid& laid, bool whole) const {
    const FabricBox& box = *laid.box;
    if (!whole && !box.name.empty()) {
      const size_t shade = std::min<size_t>(static_cast<size_t>(laid.height) + 1, std::size(kBoxFills) - 1);
      const char* kind = box.nodes.empty() ? "spine" : "leaf";
      canvas.rect({x, y, laid.size.width, laid.size.height}, {kBoxFills[shade], kNodeEdge, 8, 1, kind});
      canvas.text(x + kBoxPadding, y + 13.5, laid.size.width - 2 * kBoxPadding, box.name, {10, kSoftInk, true});
    }
    for (size_t i = 0; i < laid.inside.size(); ++i) {
      draw_box(canvas, x + laid.places[i].x, y + laid.places[i].y, laid.inside[i], false);
    }
    for (size_t i = 0; i < box.nodes.size(); ++i) {
      const Box& place = laid.places[laid.inside.size() + i];
      const NodePlacement& node = drawn_.placement.nodes[static_cast<size_t>(box.nodes[i])];
      if (tiny_) {
        draw_tiny_node(canvas, {x + place.x, y + place.y, place.width, place.height}, node);
      } else {
        draw_node(canvas, {x + place.x, y + place.y, place.width, place.height}, node);
      }
    }
  }

  /// "PP 3 · DP 0-1": the stage and the replicas that the ranks of a node belong to.
  std::string coordinates_text(const NodePlacement& node) const {
    int stage_min = INT_MAX, stage_max = 0, replica_min = INT_MAX, replica_max = 0;
    for (size_t i = 0; i < static_cast<size_t>(node.ranks); ++i) {
      const Coordinates& at = rank(node, i).coordinates;
      stage_min = std::min(stage_min, at.pipeline);
      stage_max = std::max(stage_max, at.pipeline);
      replica_min = std::min(replica_min, at.data);
      replica_max = std::max(replica_max, at.data);
    }
    const auto range = [](int min, int max) {
      return min == max ? std::to_string(min) : std::to_string(min) + "-" + std::to_string(max);
    };
    const std::string stages = drawn_.grid.size(Axis::pipeline) > 1 ? "PP " + range(stage_min, stage_max) : "";
    const std::string replicas = drawn_.grid.size(Axis::data) > 1 ? "DP " + range(replica_min, replica_max) : "";
    return stages + (stages.empty() || replicas.empty() ? "" : " · ") + replicas;
  }

  void draw_node(SvgCanvas& canvas, const Box& box, const NodePlacement& node) const {
    const Machine& machine = drawn_.cluster.nodes[static_cast<size_t>(node.node)];
    canvas.rect(box, {kWhite, kNodeEdge, 6, 1, "node"});
    const double inner = box.width - 2 * kNodePadding;
    canvas.text(box.x + kNodePadding, box.y + 12, inner, machine.host, {9, kInk, true});
    canvas.text(box.x + kNodePadding, box.y + 23, inner, coordinates_text(node), {8.5, kSoftInk});
    const std::vector<Box> cells = cells_of(node);
    for (size_t i = 0; i < cells.size(); ++i) {
      const Box cell{box.x + cells[i].x, box.y + cells[i].y, kCell, kCell};
      const RankPlacement& one = rank(node, i);
      const Tone tone = tone_of(drawn_.grid, one.coordinates);
      canvas.rect(cell, {tone.fill, tone.edge, 3, 1, "rank"});
      const std::string number = std::to_string(one.rank);
      const double size = number.size() < 4 ? 8 : number.size() < 5 ? 7 : 5.5;
      canvas.text(cell.x + kCell / 2, cell.y + 13, kCell, number, {size, tone.ink, false, Anchor::middle});
    }
    draw_nics(canvas, box, node, cells);
    if (cells.size() < static_cast<size_t>(node.ranks)) {
      canvas.text(box.right() - kNodePadding, box.y + 12, 40, "+" + std::to_string(node.ranks - cells.size()),
                  {8.5, kSoftInk, true, Anchor::end});
    }
  }

  /// A bar below the cells for every NIC: short where a rank has it for itself, long where neighbours share it.
  void draw_nics(SvgCanvas& canvas, const Box& box, const NodePlacement& node, const std::vector<Box>& cells) const {
    for (size_t first = 0; first < cells.size();) {
      const auto& nics = rank(node, first).nics;
      size_t end = first + 1;
      while (end < cells.size() && cells[end].y == cells[first].y && rank(node, end).nics == nics) ++end;
      if (!nics.empty()) {
        canvas.rect({box.x + cells[first].x + 2, box.y + cells[first].bottom() + 2,
                     cells[end - 1].right() - cells[first].x - 4, kNicHeight},
                    {kNicFill, "none", 2, 1, "nic"});
      }
      first = end;
    }
  }

  /// One square in the colours of the node's tensor groups.
  void draw_tiny_node(SvgCanvas& canvas, const Box& box, const NodePlacement& node) const {
    std::vector<Tone> tones;
    int last = -1;
    for (size_t i = 0; i < static_cast<size_t>(node.ranks) && tones.size() <= kSlicesMax; ++i) {
      const int group = tensor_group(drawn_.grid, rank(node, i).coordinates);
      if (group != std::exchange(last, group)) tones.push_back(tone_of(drawn_.grid, rank(node, i).coordinates));
    }
    if (tones.size() > kSlicesMax) tones.resize(kSlicesMax);
    canvas.rect(box, {tones.front().fill, tones.front().edge, 2.5, 1, "node"});
    const double slice = box.width / static_cast<double>(tones.size());
    for (size_t i = 1; i < tones.size(); ++i) {
      canvas.rect({box.x + static_cast<double>(i) * slice, box.y, slice, box.height},
                  {tones[i].fill, tones[i].edge, 0, 0.7});
    }
  }

  Drawn drawn_;
  FabricBox whole_box_;
  Laid whole_;
  Size node_;
  double gap_ = kNodeGap;
  bool tiny_ = false;
};

}  // namespace

std::unique_ptr<Part> nodes_under_leaves(const Drawn& drawn) { return std::make_unique<NodesUnderLeaves>(drawn); }

}  // namespace mds::topology::picture
