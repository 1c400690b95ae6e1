// The lower half of the placement picture for many ranks: a tile for each tensor group.
#include <algorithm>

#include "topology/doctor/machine_checks.hpp"
#include "topology/picture/placement_picture.hpp"

namespace mds::topology::picture {
namespace {

constexpr int kReplicasMax = 16, kStagesMax = 12, kContextsMax = 8, kRowsMax = 4;
constexpr double kWidthMax = 1544;
constexpr double kHeight = 36, kRowGap = 14, kStageGap = 28, kContextGap = 6;
constexpr double kLabelWidth = 92, kHeader = 26, kCut = 24;

std::string label_of(const std::vector<int>& ranks) {
  const std::string label = doctor::number_ranges(ranks);
  return label.find(',') == std::string::npos ? label
                                              : std::to_string(ranks.front()) + "…" + std::to_string(ranks.back());
}

/// Rows are replicas and columns stages. Where there is one stage only, replicas go on in rows of as many as fit.
class TensorGroups : public Part {
 public:
  explicit TensorGroups(const Drawn& drawn) : drawn_(drawn) {
    const RankGrid& grid = drawn.grid;
    contexts_ = std::min(grid.size(Axis::context), kContextsMax);
    std::vector<int> last = grid.group(Axis::tensor, grid.world_size() - 1);
    width_ = std::max(contexts_ > 2 ? 64. : 84., text_width(label_of(last), 11, true) + 12);
    const int fitting = std::max(1, static_cast<int>((kWidthMax - kLabelWidth) / (stage_width() + kStageGap)));
    stages_ = std::min({fitting, grid.size(Axis::pipeline), kStagesMax});
    across_ = grid.size(Axis::pipeline) == 1 ? std::min({fitting, grid.size(Axis::data), kStagesMax}) : 1;
    replicas_ = std::min(grid.size(Axis::data), across_ > 1 ? across_ * kRowsMax : kReplicasMax);
  }

  Size size() const override {
    const int columns = across_ > 1 ? across_ : stages_;
    const int rows = (replicas_ + across_ - 1) / across_;
    Size size{kLabelWidth + columns * (stage_width() + kStageGap) - kStageGap,
              kHeader + rows * (kHeight + kRowGap) - kRowGap};
    if (cut_text().empty()) return size;
    size.height += kCut;
    size.width = std::max(size.width, kLabelWidth + text_width(cut_text(), 11));
    return size;
  }

  void draw(SvgCanvas& canvas, double x, double y) const override {
    const bool one_stage = drawn_.grid.size(Axis::pipeline) == 1;
    for (int stage = 0; stage < stages_; ++stage) {
      const std::string label = one_stage ? "all layers" : "stage " + std::to_string(stage);
      canvas.text(left_of(x, stage) + stage_width() / 2, y + 14, stage_width(), label,
                  {11, kSoftInk, false, Anchor::middle});
    }
    for (int replica = 0; replica < replicas_; ++replica) {
      const double top = y + kHeader + replica / across_ * (kHeight + kRowGap);
      if (replica % across_ == 0) {
        canvas.text(x, top + 22, kLabelWidth - 10, "replica " + std::to_string(replica), {11, kSoftInk});
      }
      for (int stage = 0; stage < stages_; ++stage) {
        draw_stage(canvas, left_of(x, across_ > 1 ? replica % across_ : stage), top, replica, stage);
      }
    }
    if (!cut_text().empty()) {
      canvas.text(x + kLabelWidth, y + size().height - 4, size().width - kLabelWidth, cut_text(), {11, kSoftInk});
    }
  }

 private:
  double stage_width() const { return contexts_ * (width_ + kContextGap) - kContextGap; }
  double left_of(double x, int column) const { return x + kLabelWidth + column * (stage_width() + kStageGap); }

  /// "… and 24 more replicas, 4 more stages".
  std::string cut_text() const {
    const RankGrid& grid = drawn_.grid;
    std::string text;
    const auto add = [&](int all, int shown, const char* noun) {
      if (all == shown) return;
      text += (text.empty() ? "… and " : ", ") + std::to_string(all - shown) + " more " + noun;
    };
    add(grid.size(Axis::data), replicas_, "replicas");
    add(grid.size(Axis::pipeline), stages_, "stages");
    add(grid.size(Axis::context), contexts_, "context ranks");
    return text;
  }

  void draw_stage(SvgCanvas& canvas, double x, double y, int replica, int stage) const {
    const RankGrid& grid = drawn_.grid;
    const bool last = replica + 1 == replicas_;
    const double centre = y + kHeight / 2;
    for (int context = 0; context < contexts_; ++context) {
      const Box tile{x + context * (width_ + kContextGap), y, width_, kHeight};
      const double middle = tile.x + tile.width / 2;
      if (across_ == 1 && replica > 0) canvas.line(middle, tile.y - kRowGap, middle, tile.y, kFaintInk, 1.6);
      if (across_ == 1 && last && replicas_ < grid.size(Axis::data)) {
        canvas.line(middle, tile.bottom(), middle, tile.bottom() + 6, kFaintInk, 1.6);
      }
      if (context > 0) canvas.line(tile.x - kContextGap, centre, tile.x, centre, kFaintInk, 3);
      draw_group(canvas, tile, {0, context, replica, stage});
    }
    const double right = x + stage_width();
    if (across_ > 1 && !last && (replica + 1) % across_ != 0) {
      canvas.line(right, centre, right + kStageGap, centre, kFaintInk, 1.6);
    }
    if (stage + 1 < grid.size(Axis::pipeline)) {
      canvas.arrow(right + 5, centre, right + kStageGap - 5, centre, kSoftInk);
    }
  }

  void draw_group(SvgCanvas& canvas, const Box& tile, const Coordinates& first) const {
    const Tone tone = tone_of(drawn_.grid, first);
    const std::vector<int> ranks = drawn_.grid.group(Axis::tensor, drawn_.grid.rank(first));
    std::vector<std::string> hosts;
    for (const int rank : ranks) {
      const auto node = static_cast<size_t>(drawn_.placement.ranks[static_cast<size_t>(rank)].node);
      const std::string& host = drawn_.cluster.nodes[node].host;
      if (hosts.empty() || hosts.back() != host) hosts.push_back(host);
    }
    canvas.rect(tile, {tone.fill, tone.edge, 6, 1.2, "group"});
    const double middle = tile.x + tile.width / 2, inner = tile.width - 8;
    canvas.text(middle, tile.y + 16, inner, label_of(ranks), {11, tone.ink, true, Anchor::middle});
    const std::string where = hosts.size() == 1 ? hosts.front() : doctor::amount(hosts.size(), "node");
    canvas.text(middle, tile.y + 29, inner, where, {8.5, tone.ink, false, Anchor::middle});
  }

  Drawn drawn_;
  int stages_ = 1, replicas_ = 1, contexts_ = 1;
  int across_ = 1;  ///< replicas side by side
  double width_ = 84;
};

}  // namespace

std::unique_ptr<Part> tensor_groups(const Drawn& drawn) { return std::make_unique<TensorGroups>(drawn); }

}  // namespace mds::topology::picture
