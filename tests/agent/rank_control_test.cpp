#include "agent/rank_control.hpp"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "agent/shared_beat.hpp"
#include "tests/catch.hpp"

using namespace mds;
using namespace mds::agent;

TEST_CASE("a rank started by hand is alone in its world", "[control]") {
  unsetenv("MDS_CONTROL_FD");
  unsetenv("MDS_BEAT_FD");
  auto control = RankControl::from_environment();
  REQUIRE(control.ok());
  (*control)->beat(1);
  CHECK((*control)->progress({{"step", 1}}).ok());
  CHECK(*(*control)->exchange("name", 0, 1, "value") == std::vector<std::string>{"value"});
  CHECK_FALSE((*control)->exchange("name", 0, 2, "value").ok());
  CHECK_FALSE((*control)->poll().stop);
}

TEST_CASE("a malformed variable is told", "[control]") {
  for (const char* value : {"", "x", "100x", "-1", "99999"}) {
    setenv("MDS_CONTROL_FD", value, 1);
    const auto control = RankControl::from_environment();
    REQUIRE_FALSE(control.ok());
    CHECK(control.error().code == ErrorCode::bad_input);
    CHECK(control.error().message.find("MDS_CONTROL_FD") != std::string::npos);
  }
  unsetenv("MDS_CONTROL_FD");
}

TEST_CASE("a lost agent is an error of whatever waits for it", "[control]") {
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  setenv("MDS_CONTROL_FD", std::to_string(pair[1]).c_str(), 1);
  auto control = RankControl::from_environment();
  unsetenv("MDS_CONTROL_FD");
  REQUIRE(control.ok());
  CHECK_FALSE((*control)->exchange("too long", 0, 2, std::string((1u << 20) + 1, 'x')).ok());
  shutdown(pair[0], SHUT_RDWR);
  const auto result = (*control)->exchange("name", 0, 2, "value");
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().code == ErrorCode::unavailable);
  close(pair[0]);
  CHECK_FALSE((*control)->progress({{"step", 1}}).ok());  // and no SIGPIPE
}

TEST_CASE("beats are seen through the page, whose size is fixed", "[control]") {
  auto ours = SharedBeat::create();
  REQUIRE(ours.ok());
  auto theirs = SharedBeat::attach(ours->fd());
  REQUIRE(theirs.ok());
  CHECK(ours->beats() == 0);
  theirs->beat(41);
  theirs->beat(42);
  CHECK(ours->beats() == 2);
  CHECK(ours->step() == 42);
  CHECK(ftruncate(ours->fd(), 0) < 0);
  CHECK_FALSE(SharedBeat::attach(STDIN_FILENO).ok());
}
