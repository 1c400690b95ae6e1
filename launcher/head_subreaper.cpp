#include "launcher/head_subreaper.hpp"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/process_tree.hpp"

namespace mds::launcher {

namespace {

bool has_children() {
  siginfo_t info{};
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

bool contains(const std::vector<pid_t>& pids, pid_t pid) {
  return std::find(pids.begin(), pids.end(), pid) != pids.end();
}

}  // namespace

Subreaper::Subreaper() {
  if (has_children()) {
    for (const agent::ProcessEntry& entry : agent::descendants(getpid())) foreign_.push_back(entry.pid);
  }
  prctl(PR_SET_CHILD_SUBREAPER, 1);
}

void Subreaper::end_all() {
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
    agent::kill_processes(left);
    // The death of one of them wakes us; its children are ours by then, and the loop goes on until there are none.
    if (waitid(P_ALL, 0, &info, WEXITED) != 0 && errno != EINTR) return;
  }
}

}  // namespace mds::launcher
