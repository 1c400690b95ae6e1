#include "topology/core_shares.hpp"

#include <map>
#include <random>
#include <set>

#include "tests/catch.hpp"
#include "topology/read/synthetic.hpp"

using namespace mds::topology;

namespace {

Machine machine_of(const char* description) { return mds::topology::synthetic_cluster(description)->nodes.front(); }

std::vector<std::set<int>> numa_of(const std::vector<CoreShare>& shares) {
  std::vector<std::set<int>> out;
  for (const CoreShare& share : shares) {
    out.emplace_back();
    for (const Core* core : share.cores) out.back().insert(core->numa);
  }
  return out;
}

}  // namespace

TEST_CASE("a NUMA node without cores counts as its package's nearest") {
  Machine machine = machine_of("cpu:packages=2,cores=8,numa=4");  // nodes 0-3 and 4-7, two cores each
  std::erase_if(machine.cores, [](const Core& core) { return core.numa == 3 || core.numa == 4; });
  CHECK(numa_with_cores(machine, 3) == 2);
  CHECK(numa_with_cores(machine, 4) == 5);  // not 2 or 3, which another package has
  CHECK(numa_with_cores(machine, 6) == 6);
  CHECK(numa_with_cores(machine, -1) == -1);
  CHECK(numa_with_cores(machine, 99) == 7);
  const auto shares = divide_cores(machine, {3, 4});
  CHECK(numa_of(shares) == std::vector<std::set<int>>{{2}, {5}});
}

TEST_CASE("ranks that find no room stay in the package") {
  const Machine machine = machine_of("cpu:packages=2,cores=8,numa=2");  // 4 cores on each of 0, 1 | 2, 3
  const auto shares = divide_cores(machine, {0, 0, 0, 0, 0, 0});
  const auto numa = numa_of(shares);
  for (int rank = 0; rank < 4; ++rank) CHECK(numa[rank] == std::set<int>{0});
  for (int rank = 4; rank < 6; ++rank) CHECK(numa[rank] == std::set<int>{1});
  const auto crowded = numa_of(divide_cores(machine, std::vector<int>(10, 3)));
  CHECK(crowded[7] == std::set<int>{2});
  CHECK(*crowded[9].begin() < 2);  // both nodes of the package are full
}

TEST_CASE("random wishes: whole cores, none twice unless there are too few, wishes granted as far as cores go") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  for (int round = 0; round < 500; ++round) {
    INFO("seed " << seed << ", round " << round);
    Machine machine = machine_of("cpu:packages=2,cores=8,numa=2");
    while (machine.cores.size() > 1 && pick(0, 4) > 0) {
      machine.cores.erase(machine.cores.begin() + pick(0, static_cast<int>(machine.cores.size()) - 1));
    }
    std::vector<int> wishes(static_cast<size_t>(pick(1, 20)));
    for (int& wish : wishes) wish = pick(-1, 3);
    const auto shares = divide_cores(machine, wishes);
    REQUIRE(shares.size() == wishes.size());
    std::map<const Core*, int> users;
    std::map<int, size_t> cores_there, wishing, granted;
    for (const Core& core : machine.cores) ++cores_there[core.numa];
    for (size_t rank = 0; rank < shares.size(); ++rank) {
      REQUIRE_FALSE(shares[rank].cores.empty());
      const int wish = numa_with_cores(machine, wishes[rank]);
      if (wish >= 0) ++wishing[wish];
      if (wish >= 0 && shares[rank].cores.front()->numa == wish) ++granted[wish];
      for (const Core* core : shares[rank].cores) ++users[core];
    }
    for (const CoreShare& share : shares) {
      bool shared = false;
      for (const Core* core : share.cores) shared |= users[core] > 1;
      REQUIRE(share.shared == shared);
      REQUIRE((!shared || wishes.size() > machine.cores.size()));
    }
    for (const auto& [numa, count] : wishing) REQUIRE(granted[numa] >= std::min(count, cores_there[numa]));
  }
}
