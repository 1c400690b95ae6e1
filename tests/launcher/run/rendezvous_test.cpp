#include "launcher/rendezvous.hpp"

#include <algorithm>
#include <random>

#include "tests/agent/random_seed.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;

TEST_CASE("rendezvous: values come back by index, whatever the order in which ranks arrive (R1, R2)") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const int world = 12;
  Rendezvous rendezvous(world);
  std::vector<Contribution> parts;
  for (int name = 0; name < 20; ++name) {
    const int count = 1 + static_cast<int>(random() % world);
    std::vector<int> ranks(world);
    for (int r = 0; r < world; ++r) ranks[r] = r;
    std::shuffle(ranks.begin(), ranks.end(), random);
    for (int i = 0; i < count; ++i) {
      const std::string bytes = std::to_string(ranks[i]) + std::string(1, '\0') + std::to_string(name);
      parts.push_back({"name" + std::to_string(name), i, count, ranks[i], bytes});
    }
  }
  std::shuffle(parts.begin(), parts.end(), random);
  int complete = 0;
  for (const Contribution& part : parts) {
    const auto result = rendezvous.put(part);
    REQUIRE(result.ok());
    if (!*result) continue;
    ++complete;
    const Exchange& exchange = **result;
    REQUIRE(exchange.ranks.size() == static_cast<size_t>(part.count));
    for (int i = 0; i < part.count; ++i) {
      CHECK(exchange.values[i] ==
            std::to_string(exchange.ranks[i]) + std::string(1, '\0') + exchange.name.substr(4));
    }
  }
  CHECK(complete == 20);
  CHECK(rendezvous.waiting().empty());
}

TEST_CASE("rendezvous: a rank that breaks the rules gets an error and disturbs nobody") {
  Rendezvous rendezvous(4);
  REQUIRE(rendezvous.put({"a", 0, 2, 0, "x"}).ok());
  const auto refused = [&](const Contribution& c, const std::string& word) {
    const auto result = rendezvous.put(c);
    REQUIRE(!result.ok());
    INFO(result.error().message);
    CHECK(result.error().message.find(word) != std::string::npos);
  };
  refused({"a", 1, 3, 1, ""}, "others said 2");
  refused({"a", 0, 2, 1, ""}, "given by rank 0");
  refused({"a", 2, 2, 1, ""}, "out of range");
  refused({"a", -1, 2, 1, ""}, "out of range");
  refused({"b", 0, 5, 1, ""}, "count");
  refused({"b", 0, 0, 1, ""}, "count");
  refused({"b", 0, 1, 4, ""}, "no such rank");
  refused({"", 0, 1, 0, ""}, "name");
  refused({std::string(300, 'n'), 0, 1, 0, ""}, "name");
  refused({"b", 0, 1, 0, std::string(Rendezvous::kValueBytesMax + 1, 'v')}, "1 MiB");
  CHECK(rendezvous.waiting() == std::vector<std::string>{"a: ranks 0 of 2 are there"});
  const auto done = rendezvous.put({"a", 1, 2, 3, "y"});
  REQUIRE(done.ok());
  REQUIRE(*done);
  CHECK((*done)->ranks == std::vector<int>{0, 3});
  refused({"a", 0, 2, 0, "x"}, "used before");

  rendezvous.reset();  // a new attempt
  CHECK(rendezvous.put({"a", 0, 2, 0, "x"}).ok());
}

TEST_CASE("rendezvous: what ranks can make the head hold is bounded (R3)") {
  Rendezvous rendezvous(1000);
  const std::string value(Rendezvous::kValueBytesMax, 'v');
  size_t held = 0;
  while (held < 1000) {
    if (!rendezvous.put({"wide", static_cast<int>(held), 1000, static_cast<int>(held), value}).ok()) break;
    ++held;
  }
  CHECK(held == Rendezvous::kHeldBytesMax / Rendezvous::kValueBytesMax);
}
