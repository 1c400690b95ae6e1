#include "launcher/head_subreaper.hpp"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <string>

#include "agent/process_tree.hpp"
#include "agent/rank_process.hpp"

namespace mds::launcher {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kAgentPatience{1'000};

bool has_children() {
  siginfo_t info{};
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

bool contains(const std::vector<pid_t>& pids, pid_t pid) {
  return std::find(pids.begin(), pids.end(), pid) != pids.end();
}

/// An agent whose guard was killed clears its node better than we can. False: there is none.
bool await_end_of_an_agent(const std::vector<agent::ProcessEntry>& processes, Clock::time_point until) {
  for (const agent::ProcessEntry& process : processes) {
    std::string name;
    std::getline(std::ifstream("/proc/" + std::to_string(process.pid) + "/comm"), name);
    const agent::UniqueFd pidfd = agent::open_pidfd(process.pid);
    if (name != "mdsagent" || !pidfd) continue;
    pollfd polled{pidfd.get(), POLLIN, 0};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    poll(&polled, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    return true;
  }
  return false;
}

}  // namespace

Subreaper::Subreaper() {
  if (has_children()) {
    for (const agent::ProcessEntry& entry : agent::descendants(getpid())) foreign_.push_back(entry.pid);
  }
  prctl(PR_SET_CHILD_SUBREAPER, 1);
}

void Subreaper::end_all() {
  const auto patience = Clock::now() + kAgentPatience;
  while (has_children()) {
    siginfo_t info{};
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0) info.si_pid = 0;
    std::vector<agent::ProcessEntry> left = agent::descendants(getpid());
    for (size_t known = foreign_.size() + 1; known != foreign_.size();) {  // theirs are foreign, too; in any order
      known = foreign_.size();
      for (const agent::ProcessEntry& entry : left) {
        if (contains(foreign_, entry.parent) && !contains(foreign_, entry.pid)) foreign_.push_back(entry.pid);
      }
    }
    std::erase_if(left, [&](const agent::ProcessEntry& entry) { return contains(foreign_, entry.pid); });
    // Whoever died while we looked has left us its children behind our back.
    if (left.empty() && waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) continue;
    if (left.empty()) return;
    if (Clock::now() < patience && await_end_of_an_agent(left, patience)) continue;
    agent::kill_processes(left);
    // The death of one of them wakes us; its children are ours by then, and the loop goes on until there are none.
    if (waitid(P_ALL, 0, &info, WEXITED) != 0 && errno != EINTR) return;
  }
}

}  // namespace mds::launcher
