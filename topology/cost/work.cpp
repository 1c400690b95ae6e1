#include "topology/cost/work.hpp"

#include <algorithm>

namespace mds::topology::cost {
namespace {

/// Of `total` items the share of part `index` of `parts`.
int64_t share(int64_t total, int64_t index, int64_t parts) {
  return total * (index + 1) / parts - total * index / parts;
}

}  // namespace

int64_t Work::micro_batches() const {
  return std::max<int64_t>(1, global_batch / std::max<int64_t>(1, layout.data * micro_batch));
}

int64_t stage_layers(const Work& work, int stage) { return share(work.model.layers, stage, work.layout.pipeline); }

int64_t layer_parameters(const Work& work) {
  const ModelShape& m = work.model;
  const int64_t t = work.layout.tensor;
  const int64_t q = m.query_width(), k = m.key_width(), f = m.intermediate;
  const int64_t norms = m.biases ? 4 * m.hidden : 2 * m.hidden;
  const int64_t matrices = (m.hidden * (2 * q + 2 * k) + (m.gated ? 3 : 2) * m.hidden * f) / t;
  const int64_t biases = m.biases ? (q + 2 * k + f) / t + 2 * m.hidden : 0;
  return norms + matrices + biases;
}

int64_t rank_parameters(const Work& work, int stage, int tensor_rank) {
  const ModelShape& m = work.model;
  const bool first = stage == 0, last = stage == work.layout.pipeline - 1;
  const int64_t words = share(m.vocabulary, tensor_rank, work.layout.tensor) * m.hidden;
  const int64_t norm = m.biases ? 2 * m.hidden : m.hidden;
  int64_t count = stage_layers(work, stage) * layer_parameters(work);
  if (first) count += words + m.learned_positions * m.hidden + (m.embedding_norm ? norm : 0);
  if (last) count += norm + (m.tied && first ? 0 : words);
  return count;
}

double model_flops(const Work& work) {
  const ModelShape& m = work.model;
  Work whole = work;
  whole.layout = {};
  const double head = static_cast<double>(m.vocabulary) * static_cast<double>(m.hidden);
  const double layers = static_cast<double>(m.layers) * static_cast<double>(layer_parameters(whole));
  const double attention =
      12.0 * static_cast<double>(m.layers) * static_cast<double>(m.query_width()) * static_cast<double>(work.seq_len);
  return static_cast<double>(work.global_batch * work.seq_len) * (6 * (layers + head) + attention);
}

}  // namespace mds::topology::cost
