// The inside of placement_svg: its parts, each laid out before it is drawn.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "topology/picture/palette.hpp"
#include "topology/picture/svg_canvas.hpp"
#include "topology/placement.hpp"

namespace mds::topology::picture {

/// The colours of one group of ranks.
struct Tone {
  std::string fill, edge, ink;
};

/// What a colour stands for: a tensor group, or where those have one rank only, a pipeline stage or else a replica.
enum class ColouredBy { tensor_group, pipeline_stage, replica };
ColouredBy coloured_by(const RankGrid& grid);

/// Number of the tensor group of a rank, counted by their first ranks.
int tensor_group(const RankGrid& grid, const Coordinates& coordinates);

/// With several stages the hue is the stage's and the shade the replica's, so that a tensor group has a colour of its
/// own and who sums gradients with whom has one hue. Else neighbouring groups have hues far apart.
Tone tone_of(const RankGrid& grid, const Coordinates& coordinates);

/// A part of the page.
class Part {
 public:
  virtual ~Part() = default;
  virtual Size size() const = 0;
  virtual void draw(SvgCanvas& canvas, double x, double y) const = 0;
};

/// Everything that the parts draw; the caller's, who keeps it alive as long as the parts.
struct Drawn {
  const Cluster& cluster;
  const Placement& placement;
  const RankGrid& grid;
};

/// A card for every node with its NUMA nodes, and a tile for every rank with device, coordinates, cores and NIC.
std::unique_ptr<Part> detailed_nodes(const Drawn& drawn);
/// A cell for every rank, or with more than 128 nodes for every node, under their leaves and spines.
std::unique_ptr<Part> nodes_under_leaves(const Drawn& drawn);

/// The ranks on a grid: a column of tiles per (stage, context, tensor) position, a row per replica, with outlines round
/// tensor groups, lines along data-parallel groups and arrows along the pipeline. Large grids are cut short.
std::unique_ptr<Part> rank_groups(const Drawn& drawn);
/// The same with one tile for each tensor group.
std::unique_ptr<Part> tensor_groups(const Drawn& drawn);

/// Small squares, one a core, as large as the box allows; striped where another rank has the core, too. A bar where
/// squares would be too small to see.
void draw_cores(SvgCanvas& canvas, const Box& box, size_t count, bool shared, const Tone& tone);

/// Where nodes are in the fabric: switches of a level around those below.
struct FabricBox {
  std::string name;               ///< "leaf l3", "spines s[0-3]"; empty: the fabric does not say
  std::vector<FabricBox> inside;  ///< either boxes
  std::vector<int> nodes;         ///< or nodes: indices into Placement::nodes
};
std::vector<FabricBox> fabric_boxes(const Cluster& cluster, const Placement& placement);

}  // namespace mds::topology::picture
