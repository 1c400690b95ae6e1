#include "agent/rank_process.hpp"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/mempolicy.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <sstream>
#include <utility>

#include "agent/core_limit.hpp"

namespace mds::agent {
namespace {

enum class Step : int { streams, session, cpus, memory, container, folder, exec };

// What the child writes into the report pipe: one record a failure; end of file means that exec succeeded.
struct StepFailure {
  Step step;
  int error;
};

// Everything that the child touches between fork and exec, made ready before: there it may not allocate.
struct ChildPlan {
  pid_t parent = -1;
  std::vector<char*> programs;         // tried in turn
  std::vector<char*> argv;
  std::vector<char*> envp;
  const char* folder = nullptr;        // null: stay
  cpu_set_t* cpus = nullptr;           // null: not bound
  size_t cpus_bytes = 0;
  std::vector<unsigned long> memory;   // bits by NUMA index; empty: not bound
  int input = -1, output = -1, errors = -1, control = -1, beat = -1, mpi = -1, report = -1;
  container::Entrance entrance;        // invalid: stay on the host
  std::optional<rlimit> descriptors;   // the limit that the agent had before it raised its own
  std::optional<rlimit> core;          // likewise, before it gave up core files
};

constexpr int kScratchFd = 128;  // descriptors in transit are kept above every number that dup2 writes to

std::optional<rlimit> descriptors_before;  // set once by raise_descriptor_limit()

void tell(const ChildPlan& plan, Step step) {
  const StepFailure failure{step, errno};
  [[maybe_unused]] const ssize_t n = write(plan.report, &failure, sizeof failure);
}

[[noreturn]] void fail(const ChildPlan& plan, Step step) {
  tell(plan, step);
  _exit(127);
}

// ------------------------------------------------------------------------------------------------ from fork to exec
// Async-signal-safe, and as a rule in the agent's own memory (start_child): nothing of it is written but the plan.

bool give_descriptors(ChildPlan& plan) {
  container::Entrance& entrance = plan.entrance;
  for (int* fd : {&plan.report, &plan.input, &plan.output, &plan.errors, &plan.control, &plan.beat, &plan.mpi,
                  &entrance.user_namespace, &entrance.mount_namespace, &entrance.root}) {
    if (*fd < 0) continue;
    const int moved = fcntl(*fd, F_DUPFD_CLOEXEC, kScratchFd);
    if (moved < 0) return false;  // where the report was, it can still be told
    *fd = moved;
  }
  // Whatever the agent holds or inherited itself stays out of the rank. Without this system call (Linux < 5.11) the
  // agent's own descriptors are close-on-exec anyway.
  syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
  const std::pair<int, int> moves[] = {{plan.input, STDIN_FILENO},
                                       {plan.output, STDOUT_FILENO},
                                       {plan.errors, STDERR_FILENO},
                                       {plan.control, kRankControlFd},
                                       {plan.beat, kRankBeatFd},
                                       {plan.mpi, kRankMpiFd}};
  for (const auto& [from, to] : moves) {
    if (from >= 0 && dup2(from, to) < 0) return false;
  }
  return true;
}

void reset_signals() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) sigaction(signal, &action, nullptr);  // KILL and STOP refuse: fine
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void run_child(ChildPlan& plan) {
  // First of all: from here on the rank cannot outlive the agent, unless the agent died before.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != plan.parent) _exit(127);
  // Where Yama allows only ancestors to trace, the agent's stack reader (a child of the agent) may do so as well.
  prctl(PR_SET_PTRACER, plan.parent);
  if (!give_descriptors(plan)) fail(plan, Step::streams);
  if (plan.descriptors) setrlimit(RLIMIT_NOFILE, &*plan.descriptors);
  if (plan.core) setrlimit(RLIMIT_CORE, &*plan.core);
  if (setsid() < 0) fail(plan, Step::session);
  if (plan.cpus && sched_setaffinity(0, plan.cpus_bytes, plan.cpus) < 0) fail(plan, Step::cpus);
  if (!plan.memory.empty()) {
    const unsigned long bits = plan.memory.size() * 8 * sizeof(unsigned long) + 1;  // the kernel reads one bit less
    if (syscall(SYS_set_mempolicy, MPOL_BIND, plan.memory.data(), bits) < 0) {
      // Containers often forbid it; first touch on bound cores then places memory nearly as well.
      if (errno != EPERM && errno != ENOSYS) fail(plan, Step::memory);
      tell(plan, Step::memory);
    }
  }
  if (plan.entrance.valid()) {
    errno = container::enter(plan.entrance);
    if (errno != 0) fail(plan, Step::container);
    // Whose credentials change forgets whose death it wanted to share.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != plan.parent) _exit(127);
  }
  if (plan.folder && chdir(plan.folder) < 0) fail(plan, Step::folder);
  reset_signals();
  int problem = ENOENT;
  for (char* program : plan.programs) {
    if (!program) break;
    execve(program, plan.argv.data(), plan.envp.data());
    if (errno != ENOENT && errno != ENOTDIR) problem = errno;
  }
  errno = problem;
  fail(plan, Step::exec);
}

// ---------------------------------------------------------------------------------------------------------------------

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMaySuspendAgent = false;  // they would take what the child does for the agent's doing
#else
constexpr bool kMaySuspendAgent = true;
#endif

// As posix_spawn does it: until exec the child runs in the agent's memory, on a stack of its own, and the agent waits.
// A copy of the address space would cost more than all else that the start of a rank takes. Who enters a container gets
// a copy all the same: by taking other credentials it changes what may be done to the memory that it runs in.
// Neither way runs fork handlers.
pid_t start_child(ChildPlan& plan, int* pidfd) {
  if (kMaySuspendAgent && !plan.entrance.valid()) {
    constexpr size_t kStackBytes = 64 << 10;
    const auto stack = std::make_unique_for_overwrite<char[]>(kStackBytes);  // new memory is aligned to 16 bytes
    const auto run = [](void* argument) -> int { run_child(*static_cast<ChildPlan*>(argument)); };
    return clone(run, stack.get() + kStackBytes, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &plan, pidfd);
  }
  const long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, nullptr, pidfd, nullptr, nullptr);
  if (pid == 0) run_child(plan);
  return static_cast<pid_t>(pid);
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

std::vector<std::string> environment_of(const RankSpec& spec, const RankDescriptors& fds) {
  std::vector<std::string> out;
  for (const auto& [name, value] : spec.env) out.push_back(name + "=" + value);
  if (fds.control >= 0) out.push_back("MDS_CONTROL_FD=" + std::to_string(kRankControlFd));
  if (fds.beat >= 0) out.push_back("MDS_BEAT_FD=" + std::to_string(kRankBeatFd));
  if (fds.mpi >= 0) out.push_back("PMI_FD=" + std::to_string(kRankMpiFd));
  return out;
}

const std::string kTooFewDescriptors = ": too many open files; raise the limit (ulimit -n), also the hard one";

std::string list_of(const std::vector<int>& numbers) {
  std::ostringstream out;
  for (size_t i = 0; i < numbers.size(); ++i) out << (i ? "," : "") << numbers[i];
  return out.str();
}

// What exec's bare error number leaves the user to guess.
std::string exec_remedy(int error, const std::string& program) {
  if (error == ENOEXEC) return " (a script needs a first line such as #!/bin/sh)";
  const bool exists = error == ENOENT && access(program.c_str(), F_OK) == 0;
  return exists ? " (the file is there, but not the interpreter that it names)" : "";
}

std::string describe(const StepFailure& failure, const RankSpec& spec) {
  const std::string why = std::string(": ") + strerror(failure.error);
  switch (failure.step) {
    // fcntl() calls a number beyond the limit an invalid argument.
    case Step::streams: return "connecting its streams" + (failure.error == EINVAL ? kTooFewDescriptors : why);
    case Step::session: return "making its session" + why;
    case Step::cpus: return "binding it to cpus " + list_of(spec.cpus) + why;
    case Step::memory: return "binding it to memory nodes " + list_of(spec.memory_nodes) + why;
    case Step::container: return "entering its container" + why;
    case Step::folder: return "entering folder '" + spec.working_dir + "'" + why;
    case Step::exec: return "executing '" + spec.argv[0] + "'" + why + exec_remedy(failure.error, spec.argv[0]);
  }
  return "starting it" + why;
}

struct Pipe {
  UniqueFd read, write;
};

// Only our end is non-blocking: the flag belongs to the end, and programs expect blocking streams.
Result<Pipe> make_pipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0) {
    if (errno == EMFILE) return unavailable("pipe" + kTooFewDescriptors);
    return system_error("pipe", errno);
  }
  fcntl(fds[0], F_SETFL, O_NONBLOCK);
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

struct CpuSetFree {
  void operator()(cpu_set_t* set) const { CPU_FREE(set); }
};
using CpuSet = std::unique_ptr<cpu_set_t, CpuSetFree>;

CpuSet cpu_set_of(const std::vector<int>& cpus, size_t& bytes) {
  int most = 0;
  for (const int cpu : cpus) most = std::max(most, cpu);
  CpuSet set(CPU_ALLOC(most + 1));
  bytes = CPU_ALLOC_SIZE(most + 1);
  CPU_ZERO_S(bytes, set.get());
  for (const int cpu : cpus) CPU_SET_S(cpu, bytes, set.get());
  return set;
}

std::vector<unsigned long> bits_of(const std::vector<int>& numbers) {
  constexpr int kWordBits = 8 * sizeof(unsigned long);
  std::vector<unsigned long> words;
  for (const int number : numbers) {
    const size_t word = static_cast<size_t>(number) / kWordBits;
    if (words.size() <= word) words.resize(word + 1);
    words[word] |= 1UL << (number % kWordBits);
  }
  return words;
}

std::vector<std::string> candidates(const std::string& program, const std::string& path) {
  if (program.find('/') != std::string::npos) return {program};
  std::vector<std::string> out;
  std::istringstream folders(path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    out.push_back((folder.empty() ? "." : folder) + "/" + program);
  }
  return out;
}

bool is_program(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && access(path.c_str(), X_OK) == 0;
}

}  // namespace

void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max) return;
  const rlimit before = limit;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) == 0) descriptors_before = before;
}

Result<std::string> find_program(const std::string& program, const std::string& path) {
  if (program.find('/') != std::string::npos) return program;
  for (const std::string& candidate : candidates(program, path)) {
    if (is_program(candidate)) return candidate;
  }
  return bad_input("no program '" + program + "' in PATH (" + path + ")");
}

Result<RankProcess> start_rank_process(const RankSpec& spec, const RankDescriptors& fds,
                                       const container::Entrance& entrance) {
  const auto path = spec.env.find("PATH");
  const std::string folders = path == spec.env.end() ? kDefaultPath : path->second;
  std::vector<std::string> programs;
  if (entrance.valid()) {
    programs = candidates(spec.argv[0], folders);  // only inside can be seen which of them is there
  } else {
    const auto program = find_program(spec.argv[0], folders);
    if (!program) return program.error();
    programs = {*program};
  }
  auto output = make_pipe(), errors = make_pipe(), report = make_pipe();
  for (const auto* pipe : {&output, &errors, &report}) {
    if (!*pipe) return pipe->error();
  }
  const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!null) return system_error("/dev/null", errno);

  std::vector<std::string> argv = spec.argv, env = environment_of(spec, fds);
  ChildPlan plan;
  plan.parent = getpid();
  plan.programs = pointers(programs);
  plan.entrance = entrance;
  plan.argv = pointers(argv);
  plan.envp = pointers(env);
  plan.folder = spec.working_dir.empty() ? nullptr : spec.working_dir.c_str();
  const CpuSet cpus = cpu_set_of(spec.cpus, plan.cpus_bytes);
  plan.cpus = spec.cpus.empty() ? nullptr : cpus.get();
  plan.memory = bits_of(spec.memory_nodes);
  plan.input = null.get();
  plan.output = output->write.get();
  plan.errors = errors->write.get();
  plan.report = report->write.get();
  plan.control = fds.control;
  plan.beat = fds.beat;
  plan.mpi = fds.mpi;
  plan.descriptors = descriptors_before;
  plan.core = core_limit_before();

  // No handler of the agent's may run in the child: it would write into the agent's event loop.
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  int pidfd = -1;
  const pid_t pid = start_child(plan, &pidfd);
  const int error = errno;
  sigprocmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return unavailable(std::string("clone: ") + strerror(error));
  if (pidfd < 0) {  // an old kernel does not know that flag, and says nothing
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return internal("no pidfd: Linux 5.3 or newer is needed");
  }
  return RankProcess{pid, UniqueFd(pidfd), std::move(output->read), std::move(errors->read), std::move(report->read)};
}

StartReport read_start_report(int start_report_fd, const RankSpec& spec) {
  StartReport report;
  StepFailure failure{};
  ssize_t n = 0;
  while ((n = read(start_report_fd, &failure, sizeof failure)) == ssize_t{sizeof failure}) {
    const bool tolerated = failure.step == Step::memory && (failure.error == EPERM || failure.error == ENOSYS);
    if (tolerated) {
      report.notes.push_back(describe(failure, spec));
    } else {
      report.failure = internal(describe(failure, spec));
    }
  }
  report.complete = n == 0 || report.failure;
  return report;
}

std::optional<ExitStatus> reap(pid_t pid) {
  siginfo_t info{};
  if (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0) return std::nullopt;
  const auto now = std::chrono::steady_clock::now();
  if (info.si_code == CLD_EXITED) return ExitStatus{info.si_status, std::nullopt, false, now};
  return ExitStatus{std::nullopt, info.si_status, info.si_code == CLD_DUMPED, now};
}

UniqueFd open_pidfd(pid_t pid) { return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))); }

bool send_signal(int pidfd, int signal) { return syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0; }

}  // namespace mds::agent
