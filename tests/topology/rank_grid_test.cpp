#include "topology/rank_grid.hpp"

#include <algorithm>
#include <random>
#include <set>

#include "tests/catch.hpp"

using namespace mds;
using namespace mds::topology;
using Ranks = std::vector<int>;

TEST_CASE("the default order is Megatron's") {
  const auto grid = RankGrid::make(2, 1, 2, 2);
  REQUIRE(grid);
  REQUIRE(grid->world_size() == 8);
  CHECK(grid->group(Axis::tensor, 0) == Ranks{0, 1});
  CHECK(grid->group(Axis::tensor, 3) == Ranks{2, 3});
  CHECK(grid->group(Axis::tensor, 7) == Ranks{6, 7});
  CHECK(grid->group(Axis::data, 0) == Ranks{0, 2});
  CHECK(grid->group(Axis::data, 3) == Ranks{1, 3});
  CHECK(grid->group(Axis::data, 4) == Ranks{4, 6});
  CHECK(grid->group(Axis::data, 7) == Ranks{5, 7});
  CHECK(grid->group(Axis::pipeline, 4) == Ranks{0, 4});
  CHECK(grid->group(Axis::pipeline, 3) == Ranks{3, 7});
  CHECK(grid->group(Axis::context, 5) == Ranks{5});
  CHECK(grid->coordinates(6) == Coordinates{0, 0, 1, 1});
}

TEST_CASE("another order moves the axes") {
  // Megatron's --use-tp-pp-dp-mapping.
  const auto grid = RankGrid::make(2, 1, 2, 2, "tp-cp-pp-dp");
  REQUIRE(grid);
  CHECK(grid->group(Axis::tensor, 2) == Ranks{2, 3});
  CHECK(grid->group(Axis::pipeline, 0) == Ranks{0, 2});
  CHECK(grid->group(Axis::data, 0) == Ranks{0, 4});
}

TEST_CASE("the expert axis is reserved: named anywhere, of size 1") {
  for (const char* order : {"tp-cp-ep-dp-pp", "ep-tp-cp-dp-pp", "tp-cp-dp-pp-ep"}) {
    const auto grid = RankGrid::make(2, 2, 2, 2, order);
    INFO(order);
    REQUIRE(grid);
    for (int rank = 0; rank < 16; ++rank) {
      CHECK(grid->coordinates(rank) == RankGrid::make(2, 2, 2, 2)->coordinates(rank));
    }
  }
  CHECK(RankGrid::make(1, 1, 1, 1, "tp-cp-dp-pp", 2).error().message.find("reserved") != std::string::npos);
  CHECK_FALSE(RankGrid::make(1, 1, 1, 1, "tp-ep-cp-ep-dp-pp"));
  CHECK_FALSE(RankGrid::make(1, 1, 1, 1, "ep-tp-cp-dp"));
}

TEST_CASE("a stride is how far neighbours on an axis are apart") {
  const auto grid = RankGrid::make(2, 3, 4, 5, "tp-pp-dp-cp");
  CHECK(grid->stride(Axis::tensor) == 1);
  CHECK(grid->stride(Axis::pipeline) == 2);
  CHECK(grid->stride(Axis::data) == 10);
  CHECK(grid->stride(Axis::context) == 40);
}

TEST_CASE("ranks and coordinates are a bijection in every order, and groups partition the world") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  std::vector<std::string> names{"cp", "dp", "pp", "tp"};
  do {
    const std::string order = names[0] + "-" + names[1] + "-" + names[2] + "-" + names[3];
    std::uniform_int_distribution<int> size(1, 5);
    const int tp = size(random), cp = size(random), dp = size(random), pp = size(random);
    INFO("seed " << seed << ", order " << order << ", sizes " << tp << " " << cp << " " << dp << " " << pp);
    const auto grid = RankGrid::make(tp, cp, dp, pp, order);
    REQUIRE(grid);
    REQUIRE(grid->world_size() == tp * cp * dp * pp);
    std::set<std::vector<int>> seen;
    for (int rank = 0; rank < grid->world_size(); ++rank) {
      const Coordinates at = grid->coordinates(rank);
      REQUIRE(grid->rank(at) == rank);
      REQUIRE((at.tensor < tp && at.context < cp && at.data < dp && at.pipeline < pp));
      seen.insert({at.tensor, at.context, at.data, at.pipeline});
    }
    REQUIRE(static_cast<int>(seen.size()) == grid->world_size());
    for (const Axis axis : {Axis::tensor, Axis::context, Axis::data, Axis::pipeline}) {
      for (int rank = 0; rank < grid->world_size(); ++rank) {
        const auto group = grid->group(axis, rank);
        REQUIRE(static_cast<int>(group.size()) == grid->size(axis));
        REQUIRE(std::count(group.begin(), group.end(), rank) == 1);
        for (const int peer : group) REQUIRE(grid->group(axis, peer) == group);
      }
    }
  } while (std::next_permutation(names.begin(), names.end()));
}

TEST_CASE("a grid that makes no sense is refused") {
  for (const char* order : {"", "tp", "tp-cp-dp", "tp-cp-dp-dp", "tp-cp-dp-pp-", "tp-cp-dp-pp-tp", "-tp-cp-dp",
                            "tp cp dp pp", "TP-cp-dp-pp", "tp--dp-pp"}) {
    const auto grid = RankGrid::make(1, 1, 1, 1, order);
    INFO(order);
    REQUIRE_FALSE(grid);
    CHECK(grid.error().code == ErrorCode::bad_input);
    CHECK(grid.error().message.find("tp-cp-dp-pp") != std::string::npos);
  }
  CHECK(RankGrid::make(1, 1, 0, 1).error().message == "data parallel size must be at least 1, not 0");
  CHECK(RankGrid::make(-2, 1, 1, 1).error().code == ErrorCode::bad_input);
  CHECK_FALSE(RankGrid::make(1 << 16, 1, 1 << 16, 1));
  CHECK_FALSE(RankGrid::make(1 << 30, 1 << 30, 1 << 30, 1 << 30));
}
