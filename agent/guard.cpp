#include "agent/guard.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <new>

#include "agent/node_lock.hpp"
#include "agent/rank_process.hpp"
#include "agent/stage_store.hpp"
#include "container/session.hpp"

namespace mds::agent {
namespace {

constexpr std::chrono::seconds kContainerPatience{3};
constexpr int kSweepMs = 20;  // between two looks at what is left

sigset_t guard_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGCHLD);
  return set;
}

int fail(const char* what) {
  std::fprintf(stderr, "mdsagent: %s: %s\n", what, std::strerror(errno));
  return 1;
}

int run_agent(const std::function<int(GuardLink)>& agent, pid_t guard, GuardLink link) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  link.guard_pidfd = open_pidfd(guard);
  // If the guard has died before the pidfd was opened, that is another process, or none.
  if (!link.guard_pidfd || getppid() != guard) return 1;
  return agent(std::move(link));
}

// What the guard listens to.
struct Watched {
  int agent_pidfd, signals, door, from_agent, input;
};

// Waits for the agent's end, passing signals on, or ends it when somebody may ask for that. Returns its exit code.
int watch(pid_t agent, const Watched& on) {
  // A negative descriptor is skipped: standard input is not watched before the agent has said so, as it may end
  // rightly once its line is read.
  pollfd polled[] = {{on.agent_pidfd, POLLIN, 0}, {on.signals, POLLIN, 0}, {on.door, POLLIN, 0},
                     {on.from_agent, POLLIN, 0}, {-1, POLLRDHUP, 0}};
  while (true) {
    poll(polled, std::size(polled), -1);
    signalfd_siginfo info{};
    while (read(on.signals, &info, sizeof info) == ssize_t{sizeof info}) {
      const int signal = static_cast<int>(info.ssi_signo);
      if (signal == SIGTERM || signal == SIGUSR1) send_signal(on.agent_pidfd, signal);
    }
    char word = 0;
    if (polled[3].revents && read(on.from_agent, &word, 1) <= 0) polled[3].fd = -1;
    if (word == kWatchLifeline) polled[4].fd = on.input;
    const bool cut = polled[4].fd >= 0 && (polled[4].revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0;
    if (cut) polled[4].fd = -1;
    if (cut || (polled[2].revents && is_asked_to_leave(on.door))) send_signal(on.agent_pidfd, SIGKILL);
    if (const auto status = reap(agent)) return status->signal ? 128 + *status->signal : status->exit_code.value_or(1);
  }
}

void kill_what_is_left(const ProcessMark& mark, int signals) {
  // A container ends by itself now that the agent's end of its input is closed, and cleans up better than we can.
  auto patience = std::chrono::steady_clock::now();
  if (mark.expects_container()) patience += kContainerPatience;
  bool forced = false;
  while (true) {
    const bool childless = reap_all();
    const bool patient = std::chrono::steady_clock::now() < patience;
    const auto left = childless || patient ? marked_processes(mark) : descendants(getpid());
    if (childless && left.empty()) break;
    forced = forced || !patient;
    kill_processes(left);
    pollfd polled{signals, POLLIN, 0};
    poll(&polled, 1, kSweepMs);
    signalfd_siginfo info{};
    while (read(signals, &info, sizeof info) > 0) {
    }
  }
  std::error_code ignored;
  if (const std::string folder = mark.folder(); !folder.empty()) std::filesystem::remove_all(folder, ignored);
  if (const std::string stage = mark.stage_folder(); !stage.empty()) leave_stage(stage, mark.stage_run());
  if (auto cleanup = mark.cleanup(); forced && !cleanup.empty()) container::run_quietly(std::move(cleanup));
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
  UniqueFd door = make_door();
  if (!door) return fail("socket");
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return fail("pipe");
  UniqueFd from_agent(ends[0]), to_guard(ends[1]);
  const pid_t guard = getpid();
  const pid_t child = fork();
  if (child < 0) return fail("fork");
  if (child == 0) {
    sigprocmask(SIG_SETMASK, &before, nullptr);
    from_agent.reset();
    return run_agent(agent, guard, GuardLink{UniqueFd(), mark, std::move(door), std::move(to_guard)});
  }
  to_guard.reset();
  const UniqueFd pidfd = open_pidfd(child);
  // The bootstrap line is the agent's to read; the guard never reads, it only sees the end.
  const int exit_code = watch(child, {pidfd.get(), signals.get(), door.get(), from_agent.get(), STDIN_FILENO});
  kill_what_is_left(*mark, signals.get());
  return exit_code;
}

}  // namespace mds::agent
