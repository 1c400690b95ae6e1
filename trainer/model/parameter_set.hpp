// ParameterSet: declares the parameters of one rank and works out which slices of the logical tensors they hold.
//
// A dimension of n elements is split over t tensor ranks as [n r / t, n (r + 1) / t), evenly or not: what a rank holds
// of the vocabulary does not depend on padding.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "trainer/model/parameter.hpp"

namespace mds::trainer {

/// A layout-free tensor: a matrix [rows, columns], or a vector [rows] if columns is 0.
struct LogicalTensor {
  std::string name;
  int64_t rows = 0;
  int64_t columns = 0;
  Init init = Init::normal;
};

/// Half-open range of a dimension.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

/// Part `part` of `parts` of n elements.
inline Range split_range(int64_t n, int part, int parts) { return {n * part / parts, n * (part + 1) / parts}; }

class ParameterSet {
 public:
  /// `sequence_parallel`: gradients of replicated parameters are partial sums.
  ParameterSet(int tensor_rank, int tensor_size, bool sequence_parallel)
      : rank_(tensor_rank), size_(tensor_size), sequence_parallel_(sequence_parallel) {}

  /// Every logical tensor split along its rows and the local parts stacked: column-parallel weights and biases,
  /// embeddings. Vectors get no weight decay. Rows of zeros fill the last `tile`.
  Parameter* split_rows(const std::string& name, const std::vector<LogicalTensor>& tensors, int64_t tile = 1);
  /// Split along its columns: row-parallel weights.
  Parameter* split_columns(const LogicalTensor& tensor);
  /// Whole on every tensor rank. Vectors get no weight decay.
  Parameter* replicated(const LogicalTensor& tensor);

  /// In the order of declaration; valid for the set's life.
  const std::vector<Parameter*>& all() const { return pointers_; }
  int tensor_rank() const { return rank_; }
  int tensor_size() const { return size_; }

 private:
  Parameter* add(Parameter parameter);

  int rank_;
  int size_;
  bool sequence_parallel_;
  std::deque<Parameter> owned_;  // a deque, so that pointers stay valid
  std::vector<Parameter*> pointers_;
};

}  // namespace mds::trainer
