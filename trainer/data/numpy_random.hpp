// NumPy's legacy random numbers (numpy.random.RandomState), as far as Megatron's data set code uses them. NumPy has
// frozen this stream (NEP 19), so that orders of samples made from it are the same everywhere and for ever.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <utility>

namespace mds::trainer {

class NumpyRandom {
 public:
  /// RandomState(seed): NumPy takes seeds of 32 bits only.
  explicit NumpyRandom(uint32_t seed) : bits_(seed) {}

  /// RandomState.shuffle of a one-dimensional array: Fisher-Yates from the end.
  template <typename T>
  void shuffle(std::span<T> values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[interval(i - 1)]);
  }

 private:
  /// random_interval: uniform in [0, max], by drawing under the smallest covering mask until a number fits.
  uint64_t interval(uint64_t max) {
    uint64_t mask = max;
    for (const int shift : {1, 2, 4, 8, 16, 32}) mask |= mask >> shift;
    uint64_t value;
    do {
      value = max <= 0xffffffffu ? bits_() : wide();
      value &= mask;
    } while (value > max);
    return value;
  }

  uint64_t wide() {
    const uint64_t high = bits_();
    return high << 32 | bits_();
  }

  std::mt19937 bits_;  // same generator, seeding and tempering as NumPy's MT19937 under a 32-bit seed
};

}  // namespace mds::trainer
