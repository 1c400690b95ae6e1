#include "topology/rank_grid.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

namespace mds::topology {
namespace {

constexpr std::array<const char*, 4> kNames{"tp", "cp", "dp", "pp"};                       // indexed by Axis
constexpr std::array<const char*, 4> kLongNames{"tensor", "context", "data", "pipeline"};  // indexed by Axis

/// Axis numbers from the fastest varying to the slowest; empty where `order` is no permutation of the four names. The
/// reserved expert axis may stand among them: of size 1 it makes no difference where.
std::optional<std::array<int, 4>> parse_order(const std::string& order) {
  std::array<int, 4> axes{};
  std::array<bool, 4> seen{};
  bool expert = false;
  int count = 0;
  for (size_t begin = 0; begin <= order.size();) {
    const size_t end = std::min(order.find('-', begin), order.size());
    const std::string name = order.substr(begin, end - begin);
    begin = end + 1;
    if (name == "ep" && !expert) {
      expert = true;
      continue;
    }
    const int axis = static_cast<int>(std::find(kNames.begin(), kNames.end(), name) - kNames.begin());
    if (axis == 4 || seen[axis]) return std::nullopt;
    seen[axis] = true;
    axes[count++] = axis;
  }
  if (count < 4) return std::nullopt;
  return axes;
}

std::array<int, 4> as_array(const Coordinates& c) { return {c.tensor, c.context, c.data, c.pipeline}; }

}  // namespace

Result<RankGrid> RankGrid::make(int tensor, int context, int data, int pipeline, const std::string& order, int expert) {
  if (expert != 1) {
    return bad_input("the expert axis (ep) is reserved: its size must be 1, not " + std::to_string(expert));
  }
  RankGrid grid;
  grid.size_ = {tensor, context, data, pipeline};
  const auto axes = parse_order(order);
  if (!axes) {
    return bad_input("rank order \"" + order +
                     "\" is not tp, cp, dp and pp, each once, joined by '-' (such as "
                     "\"tp-cp-dp-pp\"; ep is reserved and may stand anywhere)");
  }
  int64_t stride = 1;
  for (const int axis : *axes) {
    if (grid.size_[axis] < 1) {
      return bad_input(std::string(kLongNames[axis]) + " parallel size must be at least 1, not " +
                       std::to_string(grid.size_[axis]));
    }
    grid.stride_[axis] = static_cast<int>(stride);
    stride *= grid.size_[axis];
    if (stride > std::numeric_limits<int>::max()) return bad_input("the parallel sizes multiply to too many ranks");
  }
  return grid;
}

Coordinates RankGrid::coordinates(int rank) const {
  const auto along = [&](Axis axis) {
    const int i = static_cast<int>(axis);
    return rank / stride_[i] % size_[i];
  };
  return {along(Axis::tensor), along(Axis::context), along(Axis::data), along(Axis::pipeline)};
}

int RankGrid::rank(const Coordinates& coordinates) const {
  const auto position = as_array(coordinates);
  int rank = 0;
  for (int axis = 0; axis < 4; ++axis) rank += position[axis] * stride_[axis];
  return rank;
}

std::vector<int> RankGrid::group(Axis axis, int rank) const {
  const int i = static_cast<int>(axis);
  const int first = rank - rank / stride_[i] % size_[i] * stride_[i];
  std::vector<int> ranks(size_[i]);
  for (int k = 0; k < size_[i]; ++k) ranks[k] = first + k * stride_[i];
  return ranks;
}

}  // namespace mds::topology
