#include "trainer/data/numpy_random.hpp"

#include <numeric>
#include <vector>

#include "tests/catch.hpp"

using mds::trainer::NumpyRandom;

// Written by NumPy 2.4: r = numpy.random.RandomState(1234); x = numpy.arange(10); r.shuffle(x), twice.
TEST_CASE("a shuffle is NumPy's") {
  NumpyRandom random(1234);
  std::vector<int32_t> values(10);
  std::iota(values.begin(), values.end(), 0);
  random.shuffle(std::span(values));
  CHECK(values == std::vector<int32_t>{7, 2, 9, 1, 0, 8, 4, 5, 6, 3});
  random.shuffle(std::span(values));
  CHECK(values == std::vector<int32_t>{5, 1, 8, 2, 0, 6, 7, 9, 4, 3});

  NumpyRandom largest(0xffffffffu);
  std::iota(values.begin(), values.end(), 0);
  largest.shuffle(std::span(values));
  CHECK(values == std::vector<int32_t>{6, 9, 5, 1, 8, 0, 7, 4, 2, 3});
}

TEST_CASE("a shuffle of nothing or one draws nothing") {
  NumpyRandom random(7), same(7);
  std::vector<int64_t> none, one{5}, a(100), b(100);
  random.shuffle(std::span(none));
  random.shuffle(std::span(one));
  std::iota(a.begin(), a.end(), 0);
  std::iota(b.begin(), b.end(), 0);
  random.shuffle(std::span(a));
  same.shuffle(std::span(b));
  CHECK(a == b);
}
