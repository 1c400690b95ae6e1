// The upper half of the placement picture for few nodes: each with its NUMA nodes, ranks, cores and NICs.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "topology/picture/device_tree.hpp"
#include "topology/picture/placement_picture.hpp"
#include "topology/placement_reasons.hpp"

namespace mds::topology::picture {
namespace {

constexpr int kTilesPerRowMax = 4;
constexpr double kGap = 16, kWidthMax = 1560;
constexpr double kTileHeight = 100, kTileGap = 8, kBracketHeight = 22;
constexpr double kPanelPadding = 10, kPanelHeader = 24;
constexpr double kNodePadding = 14, kNodeHeader = 36, kNodeFooter = 32;

const std::string kNicFill = "#eff6ff", kNicEdge = "#3b82f6", kNicInk = "#1e3a8a";

/// The ranks of one node whose (first) cores lie in one NUMA node.
struct Panel {
  int numa = 0;
  std::vector<const RankPlacement*> ranks;
};

struct NodePicture {
  const Machine* machine = nullptr;
  int node = 0;
  bool is_virtual = false;  ///< another node is on the same host
  std::string leaf{};       ///< "leaf l3"; empty: the fabric does not say
  std::vector<Panel> panels;
  std::map<int, const Core*> core_of_cpu;
};

/// Everything that is alike for all nodes, so that they line up.
struct Layout {
  int columns = 1;  ///< tiles side by side in a panel
  int rows = 1;     ///< rows of tiles in a panel
  int panels_per_row = 1;
  int panel_rows = 1;
  int nodes_per_row = 1;
  double tile_width = 100;
  bool brackets = false;  ///< there are tensor groups to bracket

  double row_height() const { return kTileHeight + (brackets ? kBracketHeight : 0); }
  double panel_width() const { return columns * tile_width + (columns - 1) * kTileGap + 2 * kPanelPadding; }
  double panel_height() const { return kPanelHeader + rows * row_height() + (rows - 1) * kTileGap + kPanelPadding; }
  double node_width() const { return panels_per_row * panel_width() + (panels_per_row - 1) * kGap + 2 * kNodePadding; }
  double node_height() const {
    return kNodeHeader + panel_rows * panel_height() + (panel_rows - 1) * kGap + kNodeFooter + kNodePadding;
  }
};

void name_leaves(const FabricBox& box, std::vector<NodePicture>& nodes) {
  for (const int node : box.nodes) nodes[static_cast<size_t>(node)].leaf = box.name;
  for (const FabricBox& inside : box.inside) name_leaves(inside, nodes);
}

std::vector<NodePicture> node_pictures(const Cluster& cluster, const Placement& placement) {
  std::vector<NodePicture> nodes;
  for (const NodePlacement& placed : placement.nodes) {
    NodePicture& node = nodes.emplace_back();
    node.node = static_cast<int>(nodes.size()) - 1;
    node.machine = &cluster.nodes[static_cast<size_t>(placed.node)];
    for (const Core& core : node.machine->cores) {
      for (const int cpu : core.cpus) node.core_of_cpu[cpu] = &core;
    }
    for (int i = 0; i < placed.ranks; ++i) {
      const RankPlacement& rank = placement.ranks[static_cast<size_t>(placed.first_rank + i)];
      int numa = rank.gpu >= 0 ? node.machine->gpus[static_cast<size_t>(rank.gpu)].numa : -1;
      if (!rank.cpus.empty()) numa = node.core_of_cpu.at(rank.cpus.front())->numa;
      auto panel = std::find_if(node.panels.begin(), node.panels.end(), [&](const Panel& p) { return p.numa == numa; });
      if (panel == node.panels.end()) panel = node.panels.insert(panel, {numa, {}});
      panel->ranks.push_back(&rank);
    }
  }
  for (const FabricBox& box : fabric_boxes(cluster, placement)) name_leaves(box, nodes);
  for (size_t i = 1; i < nodes.size(); ++i) {
    if (nodes[i].machine->host != nodes[i - 1].machine->host) continue;
    nodes[i].is_virtual = nodes[i - 1].is_virtual = true;
  }
  return nodes;
}

int divided_up(size_t count, int by) { return static_cast<int>((count + by - 1) / by); }

Layout make_layout(const std::vector<NodePicture>& nodes, const Drawn& drawn) {
  size_t ranks = 1, panels = 1;
  for (const NodePicture& node : nodes) {
    panels = std::max(panels, node.panels.size());
    for (const Panel& panel : node.panels) ranks = std::max(ranks, panel.ranks.size());
  }
  Layout layout;
  layout.brackets = drawn.grid.size(Axis::tensor) > 1;
  layout.columns = std::min<int>(static_cast<int>(ranks), ranks > 16 ? 2 * kTilesPerRowMax : kTilesPerRowMax);
  layout.rows = divided_up(ranks, layout.columns);
  layout.tile_width = layout.columns == 1 ? (panels == 1 ? 250 : 190) : layout.columns == 2 ? 128 : 112;
  layout.panels_per_row =
      std::clamp(2 * kTilesPerRowMax / layout.columns, 1, static_cast<int>(std::min<size_t>(panels, 4)));
  layout.panel_rows = divided_up(panels, layout.panels_per_row);
  // As many nodes side by side as bring the page nearest to the shape of a screen, with few gaps in the last row.
  double best = 0;
  const double below = rank_groups(drawn)->size().height;
  for (int across = 1; across <= static_cast<int>(nodes.size()); ++across) {
    const double width = across * (layout.node_width() + kGap);
    if (across > 1 && width > kWidthMax) break;
    const double height = divided_up(nodes.size(), across) * (layout.node_height() + kGap) + below;
    const double gaps =
        static_cast<double>(divided_up(nodes.size(), across)) - static_cast<double>(nodes.size()) / across;
    const double off = std::abs(std::log(width / height / 1.5)) + gaps / 2;
    if (across == 1 || off < best) {
      best = off;
      layout.nodes_per_row = across;
    }
  }
  return layout;
}

void draw_coordinates(SvgCanvas& canvas, const Box& box, const RankGrid& grid, const Coordinates& at,
                      const Tone& tone) {
  std::vector<std::pair<const char*, int>> values{{"TP", at.tensor}, {"PP", at.pipeline}, {"DP", at.data}};
  if (grid.size(Axis::context) > 1) values.push_back({"CP", at.context});
  const double width = std::min(34., box.width / static_cast<double>(values.size()));
  double x = box.x;
  for (const auto& [name, value] : values) {
    canvas.text(x, box.y + 8, width, name, {8, kSoftInk});
    canvas.text(x, box.y + 21, width - 2, std::to_string(value), {12, tone.ink, true});
    x += width;
  }
}

void draw_tile(SvgCanvas& canvas, const Box& box, const NodePicture& node, const RankGrid& grid,
               const RankPlacement& rank) {
  const Tone tone = tone_of(grid, rank.coordinates);
  canvas.rect(box, {tone.fill, tone.edge, 7, 1.2, "rank"});
  const double inner = box.width - 16, left = box.x + 8;
  const std::string device = rank.gpu >= 0 ? "GPU " + std::to_string(node.machine->gpus[rank.gpu].index) : "CPU";
  const double badge = text_width(device, 9.5, true) + 10;
  canvas.text(left, box.y + 24, inner - badge, std::to_string(rank.rank), {19, tone.ink, true});
  canvas.rect({box.right() - badge - 7, box.y + 8, badge, 16}, {rank.gpu >= 0 ? tone.edge : kWhite, tone.edge, 4});
  canvas.text(box.right() - 7 - badge / 2, box.y + 19.5, badge, device,
              {9.5, rank.gpu >= 0 ? kWhite : tone.ink, true, Anchor::middle});
  draw_coordinates(canvas, {left, box.y + 31, inner, 24}, grid, rank.coordinates, tone);

  std::set<const Core*> cores;
  for (const int cpu : rank.cpus) cores.insert(node.core_of_cpu.at(cpu));
  draw_cores(canvas, {left, box.y + 58, inner, 22}, cores.size(), rank.shares_cores, tone);
  std::string caption = counted(cores.size(), "core");
  if (cores.size() == 1) caption = "core " + std::to_string((*cores.begin())->index);
  if (cores.empty()) caption = "cores unknown";
  if (rank.memory_nodes.size() > 1) caption += " · " + std::to_string(rank.memory_nodes.size()) + " NUMA";
  const std::string nic =
      rank.nics.empty() ? ""
                        : fitted(rank.nics.front(), std::max(30., inner - text_width(caption, 8.5) - 12), 8.5, true);
  const double chip = nic.empty() ? 0 : text_width(nic, 8.5, true) + 8;
  canvas.text(left, box.bottom() - 7, inner - chip - 2, caption, {8.5, kSoftInk});
  if (nic.empty()) return;
  const Box nic_box{box.right() - 7 - chip, box.bottom() - 18, chip, 14};
  canvas.rect(nic_box, {kNicFill, kNicEdge, 4, 1, "nic"});
  canvas.text(nic_box.x + chip / 2, nic_box.y + 10.2, chip, nic, {8.5, kNicInk, true, Anchor::middle});
}

/// Brackets under neighbouring tiles of one row that belong to one tensor group.
void draw_brackets(SvgCanvas& canvas, double x, double y, const Layout& layout, const RankGrid& grid,
                   const RankPlacement* const* ranks, size_t count) {
  const double pitch = layout.tile_width + kTileGap;
  for (size_t first = 0; first < count;) {
    const int group = tensor_group(grid, ranks[first]->coordinates);
    size_t end = first + 1;
    while (end < count && tensor_group(grid, ranks[end]->coordinates) == group) ++end;
    const Tone tone = tone_of(grid, ranks[first]->coordinates);
    const double left = x + static_cast<double>(first) * pitch, right = x + static_cast<double>(end) * pitch - kTileGap;
    canvas.bracket(left + 3, right - 3, y + 8, tone.edge);
    canvas.text((left + right) / 2, y + 19, right - left, "tensor group " + std::to_string(group),
                {9, tone.ink, false, Anchor::middle});
    first = end;
  }
}

void draw_panel(SvgCanvas& canvas, double x, double y, const Layout& layout, const RankGrid& grid,
                const NodePicture& node, const Panel& panel) {
  const Box box{x, y, layout.panel_width(), layout.panel_height()};
  canvas.rect(box, {kWhite, kPanelEdge, 8, 1, "numa"});
  std::string title = panel.numa < 0 ? "NUMA node unknown" : "NUMA node " + std::to_string(panel.numa);
  for (const NumaNode& numa : node.machine->numa) {
    if (numa.os_index != panel.numa) continue;
    title += " · package " + std::to_string(numa.package);
    if (numa.memory_bytes > 0) title += " · " + memory_text(numa.memory_bytes);
  }
  canvas.text(x + kPanelPadding, y + 16, box.width - 2 * kPanelPadding, title, {10, kSoftInk});
  const double left = x + kPanelPadding;
  for (size_t first = 0; first < panel.ranks.size(); first += layout.columns) {
    const double top =
        y + kPanelHeader + static_cast<double>(first) / layout.columns * (layout.row_height() + kTileGap);
    const size_t count = std::min<size_t>(layout.columns, panel.ranks.size() - first);
    for (size_t i = 0; i < count; ++i) {
      const double tile_x = left + static_cast<double>(i) * (layout.tile_width + kTileGap);
      draw_tile(canvas, {tile_x, top, layout.tile_width, kTileHeight}, node, grid, *panel.ranks[first + i]);
    }
    if (layout.brackets) draw_brackets(canvas, left, top + kTileHeight, layout, grid, &panel.ranks[first], count);
  }
}

/// "112 cores · 2 of 8 × NVIDIA H200"
std::string machine_text(const NodePicture& node) {
  std::string text = counted(node.machine->cores.size(), "core");
  if (node.machine->gpus.empty()) return text;
  size_t used = 0;
  for (const Panel& panel : node.panels) {
    for (const RankPlacement* rank : panel.ranks) used += rank->gpu >= 0;
  }
  text += " · ";
  if (used < node.machine->gpus.size()) text += std::to_string(used) + " of ";
  return text + std::to_string(node.machine->gpus.size()) + " × " + node.machine->gpus.front().name;
}

/// "8 × 400 Gbit/s RDMA · 1 × Ethernet"
std::string network_text(const Machine& machine) {
  std::map<std::pair<double, bool>, int> kinds;  // the fastest first
  for (const Nic& nic : machine.nics) ++kinds[{-nic.gbps, nic.rdma}];
  std::string text = kinds.empty() ? "no network interface" : "";
  for (const auto& [kind, count] : kinds) {
    if (!text.empty()) text += " · ";
    text += std::to_string(count) + " × ";
    if (kind.first < 0) text += std::to_string(std::lround(-kind.first)) + " Gbit/s ";
    text += kind.second ? "RDMA" : "Ethernet";
  }
  return text;
}

void draw_node(SvgCanvas& canvas, double x, double y, const Layout& layout, const RankGrid& grid,
               const NodePicture& node) {
  const Box box{x, y, layout.node_width(), layout.node_height()};
  canvas.rect(box, {kNodeFill, kNodeEdge, 12, 1, "node"});
  const double inner = box.width - 2 * kNodePadding;
  const std::string name = "Node " + std::to_string(node.node);
  const double name_width = text_width(name, 14, true) + 4;
  canvas.text(x + kNodePadding, y + 23, inner, name, {14, kInk, true});
  const std::string host =
      node.machine->host + (node.is_virtual ? " · virtual node" : "") + (node.leaf.empty() ? "" : " · " + node.leaf);
  canvas.text(x + kNodePadding + name_width, y + 23, inner - name_width, host, {11, kSoftInk});
  for (size_t i = 0; i < node.panels.size(); ++i) {
    const int column = static_cast<int>(i) % layout.panels_per_row, row = static_cast<int>(i) / layout.panels_per_row;
    draw_panel(canvas, x + kNodePadding + column * (layout.panel_width() + kGap),
               y + kNodeHeader + row * (layout.panel_height() + kGap), layout, grid, node, node.panels[i]);
  }
  canvas.text(x + kNodePadding, box.bottom() - 28, inner, machine_text(node), {10, kSoftInk});
  canvas.text(x + kNodePadding, box.bottom() - 12, inner, network_text(*node.machine), {10, kSoftInk});
}

class DetailedNodes : public Part {
 public:
  explicit DetailedNodes(const Drawn& drawn)
      : grid_(drawn.grid), nodes_(node_pictures(drawn.cluster, drawn.placement)), layout_(make_layout(nodes_, drawn)) {}

  Size size() const override {
    return {layout_.nodes_per_row * (layout_.node_width() + kGap) - kGap,
            divided_up(nodes_.size(), layout_.nodes_per_row) * (layout_.node_height() + kGap) - kGap};
  }

  void draw(SvgCanvas& canvas, double x, double y) const override {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const int column = static_cast<int>(i) % layout_.nodes_per_row, row = static_cast<int>(i) / layout_.nodes_per_row;
      draw_node(canvas, x + column * (layout_.node_width() + kGap), y + row * (layout_.node_height() + kGap), layout_,
                grid_, nodes_[i]);
    }
  }

 private:
  const RankGrid& grid_;
  std::vector<NodePicture> nodes_;
  Layout layout_;
};

}  // namespace

/// Small squares, one a core, as large as the box allows; striped where another rank has the core, too. A bar where
/// squares would be too small to see.
void draw_cores(SvgCanvas& canvas, const Box& box, size_t count, bool shared, const Tone& tone) {
  for (const double cell : {11., 9., 7., 5., 4.}) {
    const double pitch = cell + (cell > 5 ? 2 : 1);
    const size_t columns = static_cast<size_t>((box.width + pitch - cell) / pitch);
    const size_t rows = static_cast<size_t>((box.height + pitch - cell) / pitch);
    if (columns * rows < count) continue;
    for (size_t i = 0; i < count; ++i) {
      const Box square{box.x + static_cast<double>(i % columns) * pitch,
                       box.y + static_cast<double>(i / columns) * pitch, cell, cell};
      canvas.rect(square, {shared ? kWhite : tone.edge, tone.edge, cell > 5 ? 2. : 1., cell > 5 ? 1. : 0.5});
      if (shared)
        canvas.line(square.x + 1.5, square.bottom() - 1.5, square.right() - 1.5, square.y + 1.5, tone.edge, 2);
    }
    return;
  }
  canvas.rect({box.x, box.y, box.width, 11}, {tone.edge, "none", 3});
}

std::unique_ptr<Part> detailed_nodes(const Drawn& drawn) { return std::make_unique<DetailedNodes>(drawn); }

}  // namespace mds::topology::picture
