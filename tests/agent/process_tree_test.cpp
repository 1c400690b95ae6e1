// Finding the processes of a node's ranks, by their parents and by their environment.
#include "agent/process_tree.hpp"

#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>

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

bool contains(const std::vector<ProcessEntry>& list, pid_t pid) {
  return std::any_of(list.begin(), list.end(), [&](const ProcessEntry& entry) { return entry.pid == pid; });
}

/// Of a child whose first thread has ended; the second starts a process, tells its number to `teller` and ends with it.
[[noreturn]] void live_on_in_a_thread(int teller) {
  std::thread([teller] {
    const pid_t pid = fork();
    if (pid > 0 && write(teller, &pid, sizeof pid) != ssize_t{sizeof pid}) _exit(1);
    while (pid == 0) pause();
    waitpid(pid, nullptr, 0);
    _exit(0);
  }).detach();
  syscall(SYS_exit, 0);
  _exit(1);
}

}  // namespace

TEST_CASE("a process whose first thread has ended has descendants still") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) live_on_in_a_thread(ends[1]);
  pid_t grandchild = 0;
  REQUIRE(read(ends[0], &grandchild, sizeof grandchild) == ssize_t{sizeof grandchild});
  std::string pid, name, state;
  while (state != "Z" && kill(child, 0) == 0) {
    std::ifstream("/proc/" + std::to_string(child) + "/stat") >> pid >> name >> state;
  }
  const std::vector<ProcessEntry> found = descendants(getpid());
  CHECK(contains(found, child));
  CHECK(contains(found, grandchild));
  kill(grandchild, SIGKILL);
  waitpid(child, nullptr, 0);
  for (const int end : ends) close(end);
  CHECK_FALSE(contains(descendants(getpid()), child));
}

TEST_CASE("marked processes are found whether or not they began after the mark was set") {
  const std::string run = "MDS_RUN_ID=test-" + std::to_string(getpid()), node = "GROUP_RANK=3";
  const pid_t earlier = start_sleep(run, node), other = start_sleep(run, "GROUP_RANK=33");
  ProcessMark mark;
  mark.set(run, node);
  const pid_t later = start_sleep(run, node);
  const auto is_found = [&](pid_t pid) { return contains(marked_processes(mark), pid); };
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
