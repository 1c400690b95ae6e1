// At most one agent for a node of a job.
#include "agent/node_lock.hpp"

#include <poll.h>

#include <random>
#include <thread>

#include "agent/bootstrap.hpp"
#include "tests/catch.hpp"

using namespace mds::agent;
using namespace std::chrono_literals;

namespace {

std::string fresh_name() { return "mds-test-" + std::to_string(std::random_device{}()) + "-0"; }

}  // namespace

TEST_CASE("the second comer asks the first to leave and waits until it has") {
  const std::string name = fresh_name();
  UniqueFd first = make_door();
  REQUIRE(take_node_lock(first.get(), name, 1s).ok());
  CHECK_FALSE(is_asked_to_leave(first.get()));
  std::thread holder([&] {
    pollfd polled{first.get(), POLLIN, 0};
    REQUIRE(poll(&polled, 1, 10'000) == 1);
    CHECK(is_asked_to_leave(first.get()));
    first.reset();
  });
  const UniqueFd second = make_door();
  CHECK(take_node_lock(second.get(), name, 10s).ok());
  holder.join();
}

TEST_CASE("one that does not leave is named in time") {
  const std::string name = fresh_name();
  const UniqueFd first = make_door(), second = make_door();
  REQUIRE(take_node_lock(first.get(), name, 1s).ok());
  const auto taken = take_node_lock(second.get(), name, 30ms);
  REQUIRE(!taken.ok());
  CHECK(taken.error().code == mds::ErrorCode::unavailable);
}

TEST_CASE("an agent finds its node by its place") {
  Bootstrap bootstrap{"::1", 4711, *make_credentials(), 0, "/run/folder", true};
  bootstrap.node_from = "SLURM_PROCID";
  bootstrap.nodes = {{3, 5}, {9, 9}};
  bootstrap.lifeline = bootstrap.signals_to_head = true;
  auto read = bootstrap_from_line(to_line(bootstrap));
  REQUIRE(read.ok());
  CHECK(read->nodes == bootstrap.nodes);
  CHECK(read->lifeline);
  CHECK(read->signals_to_head);
  const int expected[] = {3, 4, 5, 9};
  for (int place = 0; place < 4; ++place) {
    REQUIRE(settle_node(*read, std::to_string(place).c_str()).ok());
    CHECK(read->node == expected[place]);
  }
  for (const char* wrong : {"4", "-1", "", "x", "99999999999"}) CHECK_FALSE(settle_node(*read, wrong).ok());
  CHECK_FALSE(settle_node(*read, nullptr).ok());
}

TEST_CASE("ranges of nodes that are none") {
  Bootstrap bootstrap{"::1", 4711, *make_credentials(), 0, "/run/folder", true};
  bootstrap.nodes = {{3, 5}};
  const std::string line = to_line(bootstrap);
  for (const char* wrong : {"[[5,3]]", "[[1]]", "[3]", "[[-1,2]]", "[[0,99999999]]", "\"0-3\"", "[[0.5,1]]"}) {
    std::string broken = line;
    broken.replace(broken.find("[[3,5]]"), 7, wrong);
    INFO(wrong);
    CHECK_FALSE(bootstrap_from_line(broken).ok());
  }
}
