// RankGrid: where each rank sits on the axes tensor, context, data and pipeline.
//
// Ranks are numbered with the first axis of `order` varying fastest. The default "tp-cp-dp-pp" is Megatron-LM's
// order (megatron/core/parallel_state.py), so that the tensor-parallel group is made of neighbouring ranks.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "topology/result.hpp"

namespace mds::topology {

enum class Axis { tensor, context, data, pipeline };

/// Coordinates of one rank on every axis, each 0-based.
struct Coordinates {
  int tensor = 0;
  int context = 0;
  int data = 0;
  int pipeline = 0;
  bool operator==(const Coordinates&) const = default;
};

class RankGrid {
 public:
  /// Sizes must be >= 1; `order` is a permutation of tp, cp, dp, pp joined by '-'. An expert axis is reserved: "ep" may
  /// stand in `order`, and its size must be 1. Errors: bad_input.
  static Result<RankGrid> make(int tensor, int context, int data, int pipeline,
                               const std::string& order = "tp-cp-dp-pp", int expert = 1);

  int world_size() const { return size_[0] * size_[1] * size_[2] * size_[3]; }
  int size(Axis axis) const { return size_[static_cast<int>(axis)]; }
  /// How far apart in rank numbers neighbours along `axis` are.
  int stride(Axis axis) const { return stride_[static_cast<int>(axis)]; }

  /// Requires 0 <= rank < world_size().
  Coordinates coordinates(int rank) const;
  int rank(const Coordinates& coordinates) const;

  /// Ranks of the group that `rank` belongs to along `axis`, in the order of that axis' coordinate.
  std::vector<int> group(Axis axis, int rank) const;

 private:
  std::array<int, 4> size_{1, 1, 1, 1};    // indexed by Axis
  std::array<int, 4> stride_{1, 1, 1, 1};  // indexed by Axis
};

}  // namespace mds::topology
