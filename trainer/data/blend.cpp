#include "trainer/data/blend.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace mds::trainer {

std::vector<int64_t> blend_sizes(const std::vector<double>& weights, int64_t samples) {
  std::vector<int64_t> sizes;
  for (const double weight : weights) {
    sizes.push_back(static_cast<int64_t>(std::ceil(static_cast<double>(samples) * weight * 1.005)));
  }
  return sizes;
}

Blend::Blend(std::vector<std::unique_ptr<Dataset>> parts, std::vector<double> weights, int64_t size)
    : parts_(std::move(parts)) {
  double sum = 0;
  for (const double weight : weights) sum += weight;
  for (double& weight : weights) weight /= sum;

  std::vector<int64_t> taken(parts_.size(), 0);
  chosen_.reserve(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    const double so_far = std::max(static_cast<double>(i), 1.0);
    const auto lag = [&](size_t part) { return weights[part] * so_far - static_cast<double>(taken[part]); };
    size_t furthest = 0;
    for (size_t part = 1; part < parts_.size(); ++part) {
      if (lag(part) > lag(furthest)) furthest = part;
    }
    // Parts are asked for a little more than their share; where rounding asks for still more, they begin again.
    const int64_t index = taken[furthest]++ % parts_[furthest]->size();
    chosen_.push_back({static_cast<int32_t>(furthest), index});
  }
}

Status Blend::sample(int64_t index, int64_t* tokens) const {
  const Choice& choice = chosen_[static_cast<size_t>(index)];
  return parts_[static_cast<size_t>(choice.part)]->sample(choice.index, tokens);
}

}  // namespace mds::trainer
