// Blend: several data sets as one, by weights. Megatron-LM's BlendableDataset (megatron/data/helpers.cpp,
// build_blending_indices): sample i comes from the data set that lags furthest behind its share.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "trainer/data/dataset.hpp"

namespace mds::trainer {

/// How many samples each part must offer for `samples` of the blend: its share and 0.5 % to spare. `weights` must be
/// normalised.
std::vector<int64_t> blend_sizes(const std::vector<double>& weights, int64_t samples);

class Blend final : public Dataset {
 public:
  /// `weights` are positive and normalised here; parts with samples, and `size` samples in all.
  Blend(std::vector<std::unique_ptr<Dataset>> parts, std::vector<double> weights, int64_t size);

  int64_t size() const override { return static_cast<int64_t>(chosen_.size()); }
  Status sample(int64_t index, int64_t* tokens) const override;

 private:
  struct Choice {
    int32_t part;
    int64_t index;
  };
  std::vector<std::unique_ptr<Dataset>> parts_;
  std::vector<Choice> chosen_;
};

}  // namespace mds::trainer
