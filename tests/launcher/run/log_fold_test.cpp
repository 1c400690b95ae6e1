#include "launcher/log_fold.hpp"

#include <map>
#include <random>

#include "launcher/rank_set.hpp"
#include "tests/agent/random_seed.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;

namespace {

using Log = std::vector<std::string>;

std::vector<FoldedLine> fold(const std::vector<Log>& logs) {
  std::vector<int> ranks;
  for (size_t r = 0; r < logs.size(); ++r) ranks.push_back(static_cast<int>(r));
  LogFold fold(ranks);
  std::vector<size_t> next(logs.size());
  std::vector<FoldedLine> out;
  while (true) {
    for (size_t r = 0; r < logs.size(); ++r) {
      while (fold.wants(r) && next[r] < logs[r].size()) fold.add(r, logs[r][next[r]++]);
    }
    FoldedLine line;
    if (!fold.next(line)) return out;
    out.push_back(line);
  }
}

}  // namespace

TEST_CASE("equal lines of ranks become one, lines of one rank stand between", "[logs]") {
  const auto out = fold({{"a", "x", "b"}, {"a", "b"}, {"a", "b", "c"}});
  const std::vector<FoldedLine> wanted{{{0, 1, 2}, "a"}, {{0}, "x"}, {{0, 1, 2}, "b"}, {{2}, "c"}};
  CHECK(out == wanted);
  CHECK(fold({}).empty());
  CHECK(fold({{}, {}}).empty());
  CHECK(fold({{"a", "a"}, {"a"}}) == std::vector<FoldedLine>{{{0, 1}, "a"}, {{0}, "a"}});
}

TEST_CASE("folding keeps every line of every rank in its order, whatever they say", "[logs]") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 200; ++round) {
    std::vector<Log> logs(1 + random() % 8);
    for (Log& log : logs) {
      for (size_t n = random() % 300; n > 0; --n) log.push_back("line " + std::to_string(random() % 20));
    }
    std::vector<Log> back(logs.size());
    for (const FoldedLine& line : fold(logs)) {
      REQUIRE(!line.ranks.empty());
      for (const int rank : line.ranks) back[static_cast<size_t>(rank)].push_back(line.text);
    }
    REQUIRE(back == logs);
  }
}

TEST_CASE("ranks that say the same fold to one log, and so do late ones", "[logs]") {
  Log log;
  for (int i = 0; i < 5000; ++i) log.push_back("step " + std::to_string(i));
  Log late = log;
  late.insert(late.begin(), 30, "waiting");
  const auto out = fold({log, late, log});
  REQUIRE(out.size() == log.size() + 30);
  CHECK(out.back().ranks == std::vector<int>{0, 1, 2});
}

TEST_CASE("sets of ranks are written in few characters", "[logs]") {
  CHECK(number_ranges({}) == "");
  CHECK(number_ranges({5}) == "5");
  CHECK(number_ranges({1, 0}) == "0,1");
  CHECK(number_ranges({7, 0, 1, 2, 2, 4}) == "0-2,4,7");
}
