// mdslaunch debug --rank R JOB.toml
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>

#include "agent/rank_process.hpp"
#include "agent/unique_fd.hpp"
#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/control.hpp"
#include "launcher/debugger.hpp"
#include "launcher/run.hpp"
#include "launcher/run_status.hpp"

namespace mds::launcher {
namespace {

constexpr int kLookMs = 20;

/// The run in a process of its own, so that Ctrl-C in the debugger is not its business. What it shows is kept until the
/// terminal is free again.
class BackgroundRun {
 public:
  BackgroundRun(const Job& job, const RunOptions& options) : shown_(memfd_create("run", MFD_CLOEXEC)) {
    const pid_t parent = getpid();
    pid_ = fork();
    if (pid_ == 0) {
      setsid();
      prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (getppid() != parent) _exit(kExitFailed);
      const agent::UniqueFd nothing(open("/dev/null", O_RDONLY | O_CLOEXEC));
      dup2(nothing.get(), STDIN_FILENO);
      dup2(shown_.get(), STDOUT_FILENO);
      dup2(shown_.get(), STDERR_FILENO);
      const int exit_code = run_job(job, options).exit_code;
      std::fflush(nullptr);
      _exit(exit_code);
    }
    process_ = agent::open_pidfd(pid_);
  }

  bool has_ended(int within_ms) const {
    pollfd ended{process_.get(), POLLIN, 0};
    return poll(&ended, 1, within_ms) > 0;
  }

  /// Waits for its end, shows what it had to say, and gives its exit code.
  int finish() {
    int status = 0;
    waitpid(pid_, &status, 0);
    lseek(shown_.get(), 0, SEEK_SET);
    std::array<char, 4096> chunk;
    for (ssize_t n; (n = read(shown_.get(), chunk.data(), chunk.size())) > 0;) {
      std::fwrite(chunk.data(), 1, static_cast<size_t>(n), stdout);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  agent::UniqueFd process_, shown_;
};

bool is_stopped(int64_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  const size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text.compare(name_end, 3, ") T") == 0;
}

struct Stopped {
  std::unique_ptr<ControlClient> client;
  std::vector<std::string> words;  ///< of the debugger
  agent::UniqueFd process;
};

/// When the rank has stopped itself before its program; nothing when the run has ended before that.
std::optional<Stopped> await_rank(const BackgroundRun& run, const std::string& id, const std::string& output_dir,
                                  int rank) {
  Stopped stopped;
  for (; !run.has_ended(kLookMs); ) {
    const auto folder = RunFolder::find(id, output_dir);
    if (!folder) continue;
    if (!stopped.client) {
      auto client = ControlClient::connect(*folder);
      if (!client) continue;
      stopped.client = std::move(*client);
    }
    const auto status = live_status(*folder, *stopped.client);
    if (!status) continue;
    const auto& one = status->at("ranks").at(static_cast<size_t>(rank));
    if (!one.contains("pid") || !is_stopped(one["pid"])) continue;
    stopped.words = {"gdb", "-q", "-p", one["pid"].dump()};
    stopped.process = agent::open_pidfd(one["pid"]);
    return stopped;
  }
  return std::nullopt;
}

Status check_job(const Job& job, int rank) {
  if (job.backend != Backend::local) {
    return bad_input("debug starts the ranks on this machine: --set job.backend=local; `mdslaunch attach` takes a "
                     "rank of a run that is in progress, on any node");
  }
  const int world = job.nodes * job.ranks_per_node;
  if (world > 0 && rank >= world) {
    return bad_input("there is no rank " + std::to_string(rank) + ": the job has ranks 0 to " +
                     std::to_string(world - 1));
  }
  return {};
}

}  // namespace

int debug_command(const Arguments& arguments) {
  const auto rank = rank_argument(arguments, "debug");
  if (!rank) return report_error(rank.error());
  int exit_code = 0;
  const std::optional<Job> job = load_job(arguments, exit_code);
  if (!job) return exit_code;
  if (Status s = check_job(*job, *rank); !s) return report_error(s.error());
  if (const std::string obstacle = attach_obstacle(); !obstacle.empty()) {
    std::fprintf(stderr, "mdslaunch: %s\n", obstacle.c_str());
  }
  RunOptions options;
  options.job_argument = arguments.positional.front();
  char id[16];
  std::snprintf(id, sizeof id, "%06x", std::random_device{}() & 0xffffffu);
  options.run_id = id;
  const char* terminal = isatty(STDOUT_FILENO) ? ttyname(STDOUT_FILENO) : nullptr;
  options.debug = DebugRank{*rank, terminal ? terminal : ""};

  BackgroundRun run(*job, options);
  std::optional<Stopped> stopped = await_rank(run, id, job->output_dir, *rank);
  if (!stopped) return run.finish();
  // The shell that stopped itself becomes the rank's program: there the user takes over.
  std::vector<std::string>& words = stopped->words;
  for (const char* command : {"set breakpoint pending on", "handle SIGSTOP nostop noprint nopass", "tcatch exec",
                              "continue", "handle SIGSTOP stop print pass"}) {
    words.insert(words.end(), {"-ex", command});
  }
  for (const std::string& option : arguments.values("gdb")) words.push_back(option);
  const auto debugged = run_in_foreground(words, -1, [] {});
  if (!debugged) report_error(debugged.error());
  pollfd ended{stopped->process.get(), POLLIN, 0};
  const bool rank_lives = poll(&ended, 1, 0) == 0;
  if (rank_lives) (void)stopped->client->ask({{"command", "stop"}, {"how", "now"}});
  return run.finish();
}

}  // namespace mds::launcher
