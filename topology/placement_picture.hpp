// Inside of placement_svg: what its two halves, the machines and the groups, share.
#pragma once

#include <string>

#include "topology/placement.hpp"
#include "topology/svg_canvas.hpp"

namespace mds::topology::picture {

inline const std::string kInk = "#0f172a", kSoftInk = "#475569", kFaintInk = "#94a3b8";
inline const std::string kNodeFill = "#f1f5f9", kNodeEdge = "#cbd5e1", kPanelEdge = "#e2e8f0", kWhite = "#ffffff";

/// The colours of one group of ranks.
struct Tone {
  std::string fill, edge, ink;
};

/// What a colour stands for: tensor groups, or where those have one rank only, pipeline stages or else replicas.
enum class ColouredBy { tensor_group, pipeline_stage, replica };
ColouredBy coloured_by(const RankGrid& grid);

/// Number of the tensor group of a rank, counted by their first ranks.
int tensor_group(const RankGrid& grid, const Coordinates& coordinates);
Tone tone_of(const RankGrid& grid, const Coordinates& coordinates);

/// A part of the picture that is laid out before it is drawn.
struct Size {
  double width = 0, height = 0;
};

/// The ranks on a grid: a column of tiles per (stage, context, tensor) position, a row per replica, with outlines round
/// tensor groups, lines along data-parallel groups and arrows along the pipeline. Large grids are cut short.
Size groups_size(const RankGrid& grid);
void draw_groups(SvgCanvas& canvas, double x, double y, const RankGrid& grid);

}  // namespace mds::topology::picture
