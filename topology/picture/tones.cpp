// The colours of ranks.
#include <algorithm>
#include <array>
#include <cmath>

#include "topology/picture/placement_picture.hpp"

namespace mds::topology::picture {
namespace {

// Neighbours in this list differ well; after them the golden angle keeps on finding gaps.
constexpr std::array<double, 10> kHues{212, 26, 152, 335, 265, 48, 186, 4, 95, 300};

double hue_of(int index) {
  return index < static_cast<int>(kHues.size()) ? kHues[static_cast<size_t>(index)] : std::fmod(index * 137.508, 360);
}

bool is_bright(double hue) { return hue > 35 && hue < 200; }  // yellow to cyan: darker, so that white text can be read

}  // namespace

ColouredBy coloured_by(const RankGrid& grid) {
  if (grid.size(Axis::tensor) > 1) return ColouredBy::tensor_group;
  return grid.size(Axis::pipeline) > 1 ? ColouredBy::pipeline_stage : ColouredBy::replica;
}

int tensor_group(const RankGrid& grid, const Coordinates& at) {
  // The rank among those with tensor coordinate 0, counted along the other axes in the order of their strides.
  const int first = grid.rank({0, at.context, at.data, at.pipeline});
  const int stride = grid.size(Axis::tensor) > 1 ? grid.rank({1, 0, 0, 0}) : 1;
  return first / (stride * grid.size(Axis::tensor)) * stride + first % stride;
}

Tone tone_of(const RankGrid& grid, const Coordinates& at) {
  const int stages = grid.size(Axis::pipeline), replicas = grid.size(Axis::data);
  if (stages == 1) {
    const double hue = hue_of(coloured_by(grid) == ColouredBy::tensor_group ? tensor_group(grid, at) : at.data);
    return {hsl(hue, 0.85, 0.93), hsl(hue, 0.62, is_bright(hue) ? 0.38 : 0.5), hsl(hue, 0.65, 0.24)};
  }
  // Stages once round the circle where there are many; pale replicas first.
  const double stage =
      stages > static_cast<int>(kHues.size()) ? 212 + 360. * at.pipeline / stages : hue_of(at.pipeline);
  const double hue = std::fmod(stage + 9 * at.context, 360);
  const double shade = static_cast<double>(at.data) / std::max(replicas - 1, 3);  // few differ by little
  return {hsl(hue, 0.85 - 0.2 * shade, 0.94 - 0.26 * shade), hsl(hue, 0.62, is_bright(hue) ? 0.38 : 0.5),
          hsl(hue, 0.65, 0.2)};
}

}  // namespace mds::topology::picture
