#include "trainer/data/sample_order.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <string>

#include "trainer/data/numpy_random.hpp"

namespace mds::trainer {
namespace {

constexpr int64_t kDocumentVisitsMax = int64_t{1} << 30;  // 12 GiB of index
constexpr int64_t kTokensMax = int64_t{1} << 62;

struct Epochs {
  int64_t count = 1;
  int64_t samples = 0;              ///< on the whole line
  int64_t samples_before_last = 0;  ///< of the line without its last epoch
  bool last_is_separate = false;
};

/// The smallest number of epochs with enough samples, and whether the last one is shuffled apart. Requires
/// tokens_per_epoch >= 1 and a line below kTokensMax tokens.
Epochs plan_epochs(int64_t tokens_per_epoch, int64_t samples, int64_t seq_len) {
  Epochs epochs;
  epochs.count = std::max<int64_t>(1, (samples * seq_len + 1 + tokens_per_epoch - 1) / tokens_per_epoch);
  epochs.samples = (epochs.count * tokens_per_epoch - 1) / seq_len;
  if (epochs.count > 1) {
    epochs.samples_before_last = ((epochs.count - 1) * tokens_per_epoch - 1) / seq_len;
    const int64_t needed_of_last = samples - epochs.samples_before_last;
    const int64_t per_epoch = (tokens_per_epoch - 1) / seq_len;
    epochs.last_is_separate = needed_of_last < static_cast<int64_t>(0.80 * static_cast<double>(per_epoch));
  }
  return epochs;
}

/// Two stretches shuffled one after the other: [0, cut) and [cut, end).
template <typename T>
void shuffle_apart(std::vector<T>& values, int64_t cut, NumpyRandom& random) {
  const std::span<T> all(values);
  random.shuffle(all.first(static_cast<size_t>(cut)));
  random.shuffle(all.subspan(static_cast<size_t>(cut)));
}

}  // namespace

Result<SampleOrder> SampleOrder::make(const TokenSource& source, int64_t first, int64_t last, int64_t samples,
                                      int64_t seq_len, uint32_t seed) {
  int64_t tokens_per_epoch = 0;
  for (int64_t document = first; document < last; ++document) tokens_per_epoch += source.length(document);
  const int64_t count = last - first;
  if (tokens_per_epoch < 2) {
    return bad_input(source.path() + ": " + std::to_string(count) + " documents with " +
                     std::to_string(tokens_per_epoch) + " tokens are too few to make samples");
  }
  int64_t tokens = 0;
  if (__builtin_mul_overflow(samples, seq_len, &tokens) || tokens > kTokensMax - tokens_per_epoch ||
      count > std::numeric_limits<int32_t>::max()) {
    return bad_input(source.path() + ": more samples than can be counted are asked for");
  }
  const Epochs epochs = plan_epochs(tokens_per_epoch, samples, seq_len);
  if (epochs.count > kDocumentVisitsMax / count || epochs.samples > kDocumentVisitsMax) {
    return bad_input(source.path() + ": the run would read its " + std::to_string(tokens_per_epoch) + " tokens " +
                     std::to_string(epochs.count) + " times; give more data or fewer steps");
  }

  SampleOrder order;
  order.seq_len_ = seq_len;
  order.documents_.resize(static_cast<size_t>(epochs.count * count));
  for (size_t i = 0; i < order.documents_.size(); ++i) {
    order.documents_[i] = static_cast<int32_t>(first + static_cast<int64_t>(i) % count);
  }
  order.shuffled_.resize(static_cast<size_t>(epochs.samples));
  std::iota(order.shuffled_.begin(), order.shuffled_.end(), int64_t{0});
  // One generator for both shuffles, documents first. A stretch that is not kept apart is empty and draws nothing.
  NumpyRandom random(seed);
  const bool apart = epochs.last_is_separate;
  shuffle_apart(order.documents_, apart ? (epochs.count - 1) * count : epochs.count * count, random);
  shuffle_apart(order.shuffled_, apart ? epochs.samples_before_last : epochs.samples, random);

  order.begins_.reserve(order.documents_.size());
  int64_t begin = 0;
  for (const int32_t document : order.documents_) {
    order.begins_.push_back(begin);
    begin += source.length(document);
  }
  return order;
}

void SampleOrder::read(const TokenSource& source, int64_t index, int64_t* tokens) const {
  int64_t position = shuffled_[static_cast<size_t>(index)] * seq_len_;
  int64_t left = seq_len_ + 1;
  // The last document that begins at or before the position; empty ones before it begin at the same place.
  size_t visit = static_cast<size_t>(std::ranges::upper_bound(begins_, position) - begins_.begin()) - 1;
  while (left > 0) {
    const int32_t document = documents_[visit];
    const int64_t offset = position - begins_[visit];
    const int64_t count = std::min(left, source.length(document) - offset);
    if (count > 0) source.copy(document, offset, count, tokens);
    tokens += count;
    position += count;
    left -= count;
    ++visit;
  }
}

}  // namespace mds::trainer
