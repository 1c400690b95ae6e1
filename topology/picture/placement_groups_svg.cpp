// The lower half of the placement picture: how the ranks work together.
#include <algorithm>

#include "topology/picture/placement_picture.hpp"

namespace mds::topology::picture {
namespace {

constexpr int kReplicasMax = 8;
constexpr int kTilesMax = 40;
constexpr double kTileHeight = 26, kTileGap = 4, kFrame = 5, kRowGap = 14;
constexpr double kBlockGap = 14, kStageGap = 34;
constexpr double kLabelWidth = 92, kHeader = 26;
constexpr double kCutHeight = 24, kCutWidth = 84, kWidthMax = 1560;

struct Extent;
double stage_width(const RankGrid& grid, const Extent& extent);

/// How much of the grid is drawn, and how large a tile is.
struct Extent {
  int stages, replicas;
  double tile_width;

  explicit Extent(const RankGrid& grid) {
    const int tiles_per_stage = grid.size(Axis::tensor) * grid.size(Axis::context);
    stages = std::clamp(kTilesMax / tiles_per_stage, 1, grid.size(Axis::pipeline));
    replicas = std::min(grid.size(Axis::data), kReplicasMax);
    const double digits = static_cast<double>(std::to_string(grid.world_size() - 1).size());
    tile_width = std::max(stages * tiles_per_stage > 20 ? 28. : 36., digits * 7.5 + 8);
    const double fitting = (kWidthMax - kLabelWidth - kCutWidth) / (stage_width(grid, *this) + kStageGap);
    stages = std::clamp(static_cast<int>(fitting), 1, stages);
  }
};

double frame_width(const RankGrid& grid, const Extent& extent) {
  const int tensor = grid.size(Axis::tensor);
  return tensor * extent.tile_width + (tensor - 1) * kTileGap + 2 * kFrame;
}

double stage_width(const RankGrid& grid, const Extent& extent) {
  const int context = grid.size(Axis::context);
  return context * frame_width(grid, extent) + (context - 1) * kBlockGap;
}

double row_height() { return kTileHeight + 2 * kFrame; }

/// One tensor group: its frame and tiles, and the lines from them to the same tiles of the replica above.
void draw_group(SvgCanvas& canvas, double x, double y, const RankGrid& grid, const Extent& extent, Coordinates at) {
  const Tone tone = tone_of(grid, at);
  const bool cut_below = at.data + 1 == extent.replicas && extent.replicas < grid.size(Axis::data);
  if (grid.size(Axis::tensor) > 1) {
    canvas.rect({x, y, frame_width(grid, extent), row_height()}, {kWhite, tone.edge, 8, 1.2, "tensor"});
  }
  for (at.tensor = 0; at.tensor < grid.size(Axis::tensor); ++at.tensor) {
    const Box tile{x + kFrame + at.tensor * (extent.tile_width + kTileGap), y + kFrame, extent.tile_width, kTileHeight};
    const double middle = tile.x + tile.width / 2;
    if (at.data > 0) canvas.line(middle, tile.y - 2 * kFrame - kRowGap, middle, tile.y, kFaintInk, 1.6);
    if (cut_below) canvas.line(middle, tile.bottom(), middle, tile.bottom() + kFrame + 6, kFaintInk, 1.6);
    canvas.rect(tile, {tone.fill, tone.edge, 5, 1, "group"});
    canvas.text(middle, tile.y + 17.5, tile.width, std::to_string(grid.rank(at)), {12, tone.ink, true, Anchor::middle});
  }
}

void draw_headers(SvgCanvas& canvas, double x, double y, const RankGrid& grid, const Extent& extent) {
  const double width = stage_width(grid, extent);
  for (int stage = 0; stage < extent.stages; ++stage) {
    const double left = x + kLabelWidth + stage * (width + kStageGap);
    const std::string label = grid.size(Axis::pipeline) > 1 ? "stage " + std::to_string(stage) : "all layers";
    canvas.text(left + width / 2, y + 14, width + kStageGap - 4, label, {11, kSoftInk, false, Anchor::middle});
  }
  for (int replica = 0; replica < extent.replicas; ++replica) {
    const double top = y + kHeader + replica * (row_height() + kRowGap);
    canvas.text(x, top + 22, kLabelWidth - 10, "replica " + std::to_string(replica), {11, kSoftInk});
  }
}

Size groups_size(const RankGrid& grid) {
  const Extent extent(grid);
  Size size;
  size.width = kLabelWidth + extent.stages * (stage_width(grid, extent) + kStageGap) - kStageGap;
  size.height = kHeader + extent.replicas * (row_height() + kRowGap) - kRowGap;
  if (extent.stages < grid.size(Axis::pipeline)) size.width += kCutWidth;
  if (extent.replicas < grid.size(Axis::data)) size.height += kCutHeight;
  return size;
}

void draw_groups(SvgCanvas& canvas, double x, double y, const RankGrid& grid) {
  const Extent extent(grid);
  const Size size = groups_size(grid);
  const double frame = frame_width(grid, extent), stage = stage_width(grid, extent);
  draw_headers(canvas, x, y, grid, extent);
  for (int d = 0; d < extent.replicas; ++d) {
    const double top = y + kHeader + d * (row_height() + kRowGap);
    for (int p = 0; p < extent.stages; ++p) {
      const double left = x + kLabelWidth + p * (stage + kStageGap);
      for (int c = 0; c < grid.size(Axis::context); ++c) {
        draw_group(canvas, left + c * (frame + kBlockGap), top, grid, extent, {0, c, d, p});
        const double middle = top + row_height() / 2;
        if (c > 0)
          canvas.line(left + c * (frame + kBlockGap) - kBlockGap, middle, left + c * (frame + kBlockGap), middle,
                      kFaintInk, 3);
      }
      if (p + 1 < grid.size(Axis::pipeline)) {
        const double right = left + stage;
        canvas.arrow(right + 6, top + row_height() / 2, right + kStageGap - 6, top + row_height() / 2, kSoftInk);
      }
    }
  }
  if (extent.replicas < grid.size(Axis::data)) {
    const std::string more = std::to_string(grid.size(Axis::data) - extent.replicas);
    canvas.text(x + kLabelWidth, y + size.height - 2, size.width - kLabelWidth, "… and " + more + " more replicas",
                {11, kSoftInk});
  }
  if (extent.stages < grid.size(Axis::pipeline)) {
    canvas.text(x + size.width, y + kHeader + 22, kCutWidth,
                "+ " + std::to_string(grid.size(Axis::pipeline) - extent.stages) + " stages",
                {11, kSoftInk, false, Anchor::end});
  }
}

class RankGroups : public Part {
 public:
  explicit RankGroups(const RankGrid& grid) : grid_(grid) {}
  Size size() const override { return groups_size(grid_); }
  void draw(SvgCanvas& canvas, double x, double y) const override { draw_groups(canvas, x, y, grid_); }

 private:
  const RankGrid& grid_;
};

}  // namespace

std::unique_ptr<Part> rank_groups(const Drawn& drawn) { return std::make_unique<RankGroups>(drawn.grid); }

}  // namespace mds::topology::picture
