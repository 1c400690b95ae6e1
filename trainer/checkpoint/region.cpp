#include "trainer/checkpoint/region.hpp"

#include <algorithm>

namespace mds::trainer {
namespace {

/// A tensor and two boxes in it, without the trailing dimensions that both boxes span wholly: those are folded into the
/// last one left, so that a split by rows becomes a single run.
struct Boxes {
  std::vector<int64_t> shape, a_offset, a_extent, b_offset, b_extent;

  void fold() {
    while (shape.size() > 1 && a_extent.back() == shape.back() && b_extent.back() == shape.back()) {
      const int64_t inner = shape.back();
      for (auto* sizes : {&shape, &a_offset, &a_extent, &b_offset, &b_extent}) {
        sizes->pop_back();
        sizes->back() *= inner;
      }
    }
  }
};

/// Row-major index of the point `at` in a box.
int64_t flat_index(const std::vector<int64_t>& at, const std::vector<int64_t>& offset,
                   const std::vector<int64_t>& extent) {
  int64_t index = 0;
  for (size_t d = 0; d < at.size(); ++d) index = index * extent[d] + (at[d] - offset[d]);
  return index;
}

}  // namespace

int64_t product(const std::vector<int64_t>& sizes) {
  constexpr int64_t kMax = int64_t{1} << 60;
  int64_t result = 1;
  for (const int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(result, size, &result) || result > kMax) return -1;
  }
  return result;
}

bool fits(const Region& region, const std::vector<int64_t>& shape) {
  const size_t dimensions = shape.size();
  if (region.offset.size() != dimensions || region.extent.size() != dimensions || product(shape) < 0) return false;
  for (size_t d = 0; d < dimensions; ++d) {
    if (region.offset[d] < 0 || region.offset[d] > shape[d]) return false;
    if (region.extent[d] < 0 || region.extent[d] > shape[d] - region.offset[d]) return false;
  }
  return 0 <= region.flat_begin && region.flat_begin <= region.flat_end && region.flat_end <= product(region.extent);
}

std::vector<Run> common_runs(const std::vector<int64_t>& shape, const Region& a, const Region& b) {
  Boxes boxes{shape, a.offset, a.extent, b.offset, b.extent};
  if (shape.empty()) boxes = {{1}, {0}, {1}, {0}, {1}};  // a scalar
  boxes.fold();
  const size_t last = boxes.shape.size() - 1;
  std::vector<int64_t> begin(last + 1), end(last + 1);
  for (size_t d = 0; d <= last; ++d) {
    begin[d] = std::max(boxes.a_offset[d], boxes.b_offset[d]);
    end[d] = std::min(boxes.a_offset[d] + boxes.a_extent[d], boxes.b_offset[d] + boxes.b_extent[d]);
    if (begin[d] >= end[d]) return {};
  }

  std::vector<Run> runs;
  std::vector<int64_t> row = begin;  // first common element of each row, in the logical tensor
  while (true) {
    const int64_t in_a = flat_index(row, boxes.a_offset, boxes.a_extent);
    const int64_t in_b = flat_index(row, boxes.b_offset, boxes.b_extent);
    const int64_t from = std::max({int64_t{0}, a.flat_begin - in_a, b.flat_begin - in_b});
    const int64_t to = std::min({end[last] - begin[last], a.flat_end - in_a, b.flat_end - in_b});
    if (from < to) runs.push_back({in_a + from - a.flat_begin, in_b + from - b.flat_begin, to - from});
    // The next row: count up the leading dimensions.
    size_t d = last;
    while (d > 0 && ++row[d - 1] == end[d - 1]) {
      row[d - 1] = begin[d - 1];
      --d;
    }
    if (d == 0) return runs;
  }
}

}  // namespace mds::trainer
