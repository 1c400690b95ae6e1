#include "trainer/engine/batches.hpp"

#include <algorithm>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

namespace mds::trainer {

int64_t sample_index(const BatchShape& shape, int64_t first, int64_t micro_batch, int64_t i) {
  return first + (micro_batch * shape.data_size + shape.data_rank) * shape.micro_batch_size + i;
}

Result<std::vector<MicroBatch>> read_batches(const Dataset& dataset, const BatchShape& shape, int64_t first,
                                             c10::Device device) {
  std::vector<MicroBatch> batches;
  std::vector<int64_t> sample(shape.seq_len + 1);
  for (int64_t m = 0; m < shape.micro_batches; ++m) {
    const auto options = at::TensorOptions(at::kLong);
    at::Tensor tokens = at::empty({shape.micro_batch_size, shape.seq_len}, options), labels = at::empty_like(tokens);
    for (int64_t i = 0; i < shape.micro_batch_size; ++i) {
      const int64_t index = sample_index(shape, first, m, i);
      if (Status status = dataset.sample(index, sample.data()); !status) {
        return status.error().within("sample " + std::to_string(index));
      }
      std::copy_n(sample.data(), shape.seq_len, tokens.data_ptr<int64_t>() + i * shape.seq_len);
      std::copy_n(sample.data() + 1, shape.seq_len, labels.data_ptr<int64_t>() + i * shape.seq_len);
    }
    batches.push_back({tokens.to(device), labels.to(device)});
  }
  return batches;
}

}  // namespace mds::trainer
