// Finding the processes of a node's ranks by their environment.
#include "agent/process_tree.hpp"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "tests/catch.hpp"

using namespace mds::agent;

namespace {

/// `sleep` with these two entries as its whole environment.
pid_t start_sleep(std::string run, std::string node) {
  char program[] = "sleep", seconds[] = "1000";
  char* argv[] = {program, seconds, nullptr};
  char* environment[] = {run.data(), node.data(), nullptr};
  pid_t pid = 0;
  REQUIRE(posix_spawn(&pid, "/bin/sleep", nullptr, nullptr, argv, environment) == 0);
  return pid;
}

}  // namespace

TEST_CASE("marked processes are found whether or not they began after the mark was set") {
  const std::string run = "MDS_RUN_ID=test-" + std::to_string(getpid()), node = "GROUP_RANK=3";
  const pid_t earlier = start_sleep(run, node), other = start_sleep(run, "GROUP_RANK=33");
  ProcessMark mark;
  mark.set(run, node);
  const pid_t later = start_sleep(run, node);
  const auto is_found = [&](pid_t pid) {
    const auto found = marked_processes(mark);
    return std::any_of(found.begin(), found.end(), [&](const ProcessEntry& entry) { return entry.pid == pid; });
  };
  // Numbers up to our own are left out, if at all: these three are above it, or all numbers are looked at.
  CHECK((mark.before() == 0 || mark.before() == getpid()));
  CHECK(is_found(earlier));
  CHECK(is_found(later));
  CHECK_FALSE(is_found(other));
  for (const pid_t pid : {earlier, other, later}) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  CHECK_FALSE(is_found(later));
}
