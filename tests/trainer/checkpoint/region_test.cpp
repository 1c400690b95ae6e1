#include "trainer/checkpoint/region.hpp"

#include <map>
#include <random>

#include "tests/catch.hpp"

using namespace mds::trainer;

namespace {

Region random_region(const std::vector<int64_t>& shape, std::mt19937& random) {
  Region region;
  for (const int64_t size : shape) {
    const auto offset = static_cast<int64_t>(random() % static_cast<size_t>(size + 1));
    const bool whole = random() % 3 == 0;
    region.offset.push_back(whole ? 0 : offset);
    region.extent.push_back(whole ? size : static_cast<int64_t>(random() % static_cast<size_t>(size - offset + 1)));
  }
  const int64_t elements = product(region.extent);
  region.flat_end = elements;
  if (random() % 2 == 0) {
    region.flat_begin = static_cast<int64_t>(random() % static_cast<size_t>(elements + 1));
    region.flat_end =
        region.flat_begin + static_cast<int64_t>(random() % static_cast<size_t>(elements - region.flat_begin + 1));
  }
  return region;
}

/// Where each element of the logical tensor (by its row-major number there) lies in the region; slow and obvious.
std::map<int64_t, int64_t> elements_of(const std::vector<int64_t>& shape, const Region& region) {
  std::map<int64_t, int64_t> places;
  for (int64_t flat = region.flat_begin; flat < region.flat_end; ++flat) {
    int64_t rest = flat, number = 0, stride = 1;
    for (size_t d = shape.size(); d-- > 0;) {
      number += (region.offset[d] + rest % region.extent[d]) * stride;
      rest /= region.extent[d];
      stride *= shape[d];
    }
    places[number] = flat - region.flat_begin;
  }
  return places;
}

}  // namespace

TEST_CASE("what two regions have in common is found exactly") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 3000; ++round) {
    std::vector<int64_t> shape(random() % 4);
    for (int64_t& size : shape) size = 1 + random() % 6;
    const Region a = random_region(shape, random), b = random_region(shape, random);
    REQUIRE(fits(a, shape));
    std::map<int64_t, int64_t> expected;
    const auto in_b = elements_of(shape, b);
    for (const auto& [number, place] : elements_of(shape, a)) {
      if (const auto found = in_b.find(number); found != in_b.end()) expected[place] = found->second;
    }
    std::map<int64_t, int64_t> actual;
    for (const Run& run : common_runs(shape, a, b)) {
      for (int64_t i = 0; i < run.count; ++i) CHECK(actual.emplace(run.a + i, run.b + i).second);
    }
    CHECK(actual == expected);
  }
}

TEST_CASE("a split by rows is one run") {
  const Region whole{{0, 0, 0}, {8, 4, 2}, 0, 64}, rows{{2, 0, 0}, {3, 4, 2}, 0, 24};
  const auto runs = common_runs({8, 4, 2}, whole, rows);
  REQUIRE(runs.size() == 1);
  CHECK(runs[0].a == 16);
  CHECK(runs[0].b == 0);
  CHECK(runs[0].count == 24);
}

TEST_CASE("regions outside of their tensor do not fit") {
  const std::vector<int64_t> shape{4, 4};
  CHECK(fits({{0, 0}, {4, 4}, 0, 16}, shape));
  CHECK(fits({{4, 4}, {0, 0}, 0, 0}, shape));
  CHECK(fits({{}, {}, 0, 1}, {}));
  const int64_t far = std::numeric_limits<int64_t>::max();
  for (const Region& bad : {Region{{0}, {4}, 0, 4}, Region{{0, 1}, {4, 4}, 0, 16}, Region{{-1, 0}, {4, 4}, 0, 16},
                            Region{{0, 0}, {4, 4}, 0, 17}, Region{{0, 0}, {4, 4}, -1, 16}, Region{{0, 0}, {4, 4}, 9, 8},
                            Region{{1, 0}, {far, 4}, 0, 1}, Region{{far, 0}, {1, 4}, 0, 1}}) {
    CHECK(!fits(bad, shape));
  }
  CHECK(product({int64_t{1} << 40, int64_t{1} << 40}) == -1);
  CHECK(product({0, int64_t{1} << 40}) == 0);
}
