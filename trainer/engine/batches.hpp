// Which samples this data-parallel rank trains on, as tensors.
#pragma once

#include <cstdint>
#include <vector>

#include "topology/result.hpp"
#include "trainer/data/dataset.hpp"
#include "trainer/model/model.hpp"

namespace mds::trainer {

struct BatchShape {
  int64_t seq_len = 0;
  int64_t micro_batch_size = 1;
  int64_t micro_batches = 1;        ///< per step and data-parallel rank
  int data_rank = 0;
  int data_size = 1;

  int64_t global_batch_size() const { return micro_batch_size * micro_batches * data_size; }
  int64_t global_tokens() const { return global_batch_size() * seq_len; }
};

/// Index of sample `i` of micro batch `micro_batch` in a global batch that starts at sample `first`: micro batches are
/// dealt out to the data-parallel ranks in turn (Megatron-LM's MegatronPretrainingSampler), so that every layout trains
/// on the same samples in the same step.
int64_t sample_index(const BatchShape& shape, int64_t first, int64_t micro_batch, int64_t i);

/// This rank's micro batches of the global batch that starts at sample `first`. Errors: corrupt (data set).
Result<std::vector<MicroBatch>> read_batches(const Dataset& dataset, const BatchShape& shape, int64_t first,
                                             c10::Device device);

}  // namespace mds::trainer
