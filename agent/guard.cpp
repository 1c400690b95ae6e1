#include "agent/guard.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include "agent/rank_process.hpp"

namespace mds::agent {
namespace {

constexpr int kSweepMs = 20;  // between two looks at what is left

sigset_t guard_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGCHLD);
  return set;
}

int fail(const char* what) {
  std::fprintf(stderr, "mdsagent: %s: %s\n", what, std::strerror(errno));
  return 1;
}

int run_agent(const std::function<int(GuardLink)>& agent, pid_t guard, ProcessMark* mark) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  GuardLink link{open_pidfd(guard), mark};
  // If the guard has died before the pidfd was opened, that is another process, or none.
  if (!link.guard_pidfd || getppid() != guard) return 1;
  return agent(std::move(link));
}

// Waits for the agent's end, passing SIGTERM on. Returns its exit code.
int watch(pid_t agent, int agent_pidfd, int signals) {
  pollfd polled[] = {{agent_pidfd, POLLIN, 0}, {signals, POLLIN, 0}};
  while (true) {
    poll(polled, 2, -1);
    signalfd_siginfo info{};
    while (read(signals, &info, sizeof info) == ssize_t{sizeof info}) {
      if (info.ssi_signo == SIGTERM) send_signal(agent_pidfd, SIGTERM);
    }
    if (const auto status = reap(agent)) return status->signal ? 128 + *status->signal : status->exit_code.value_or(1);
  }
}

void kill_what_is_left(const ProcessMark& mark, int signals) {
  while (true) {
    const bool childless = reap_all();
    const auto left = childless ? marked_processes(mark) : descendants(getpid());
    if (childless && left.empty()) return;
    kill_processes(left);
    pollfd polled{signals, POLLIN, 0};
    poll(&polled, 1, kSweepMs);
    signalfd_siginfo info{};
    while (read(signals, &info, sizeof info) > 0) {
    }
  }
}

}  // namespace

int run_guarded(const std::function<int(GuardLink)>& agent) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  void* page = mmap(nullptr, sizeof(ProcessMark), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return fail("shared page");
  auto* mark = new (page) ProcessMark;

  // Blocked before the fork, so that none is lost between it and signalfd; the agent gets its mask back.
  const sigset_t watched = guard_signals();
  sigset_t before;
  sigprocmask(SIG_BLOCK, &watched, &before);
  const UniqueFd signals(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return fail("signalfd");
  const pid_t guard = getpid();
  const pid_t child = fork();
  if (child < 0) return fail("fork");
  if (child == 0) {
    sigprocmask(SIG_SETMASK, &before, nullptr);
    return run_agent(agent, guard, mark);
  }
  const UniqueFd pidfd = open_pidfd(child);
  // The bootstrap line is the agent's to read; the guard never sees the key.
  if (const int null = open("/dev/null", O_RDWR | O_CLOEXEC); null >= 0) {
    dup2(null, STDIN_FILENO);
    ::close(null);
  }
  const int exit_code = watch(child, pidfd.get(), signals.get());
  kill_what_is_left(*mark, signals.get());
  return exit_code;
}

}  // namespace mds::agent
