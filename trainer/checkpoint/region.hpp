// Region: a part of a logical tensor, as a rank stores or wants it, and what two regions have in common.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

namespace mds::trainer {

/// Of the box [offset, offset + extent) of a logical tensor, the elements [flat_begin, flat_end) in row-major order of
/// the box. Kept as one stretch of flat_end - flat_begin elements.
struct Region {
  std::vector<int64_t> offset, extent;  ///< as many as the tensor has dimensions
  int64_t flat_begin = 0, flat_end = 0;

  int64_t size() const { return flat_end - flat_begin; }
  auto operator<=>(const Region&) const = default;
};

/// True if the region lies within a tensor of this shape and no product of sizes overflows.
bool fits(const Region& region, const std::vector<int64_t>& shape);

/// Product of the sizes; -1 if one is negative or it exceeds 2^60.
int64_t product(const std::vector<int64_t>& sizes);

/// `count` elements that both regions hold, beginning at element `a` of one and `b` of the other.
struct Run {
  int64_t a = 0, b = 0, count = 0;
};

/// Everything that two regions of a tensor have in common. Both must fit the shape.
std::vector<Run> common_runs(const std::vector<int64_t>& shape, const Region& a, const Region& b);

}  // namespace mds::trainer
