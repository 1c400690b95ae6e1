#include "trainer/model/parameter_set.hpp"

#include <utility>

namespace mds::trainer {
namespace {

std::vector<int64_t> shape_of(int64_t rows, int64_t columns) {
  return columns == 0 ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, columns};
}

}  // namespace

Parameter* ParameterSet::add(Parameter parameter) {
  owned_.push_back(std::move(parameter));
  pointers_.push_back(&owned_.back());
  return pointers_.back();
}

Parameter* ParameterSet::split_rows(const std::string& name, const std::vector<LogicalTensor>& tensors,
                                    int64_t tile) {
  Parameter p;
  p.name = name;
  p.weight_decay = tensors.front().columns != 0;
  int64_t local_rows = 0;
  for (const LogicalTensor& t : tensors) {
    const Range range = split_range(t.rows, rank_, size_);
    p.slices.push_back({t.name, shape_of(t.rows, t.columns),
                        t.columns == 0 ? std::vector<int64_t>{range.begin} : std::vector<int64_t>{range.begin, 0},
                        local_rows, range.size(), t.init});
    local_rows += range.size();
  }
  p.shape = shape_of(local_rows, tensors.front().columns);
  p.padding_rows = (tile - local_rows % tile) % tile;
  return add(std::move(p));
}

Parameter* ParameterSet::split_columns(const LogicalTensor& t) {
  const Range range = split_range(t.columns, rank_, size_);
  Parameter p;
  p.name = t.name;
  p.shape = {t.rows, range.size()};
  p.slices.push_back({t.name, {t.rows, t.columns}, {0, range.begin}, 0, t.rows, t.init});
  return add(std::move(p));
}

Parameter* ParameterSet::replicated(const LogicalTensor& t) {
  Parameter p;
  p.name = t.name;
  p.shape = shape_of(t.rows, t.columns);
  p.weight_decay = t.columns != 0;
  p.tensor_replicated = true;
  p.sequence_partial = sequence_parallel_;
  p.slices.push_back({t.name, p.shape, std::vector<int64_t>(p.shape.size(), 0), 0, t.rows, t.init});
  return add(std::move(p));
}

}  // namespace mds::trainer
