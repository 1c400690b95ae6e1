#include "agent/rank_process.hpp"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fstream>
#include <map>
#include <sstream>

#include "tests/agent/temporary_folder.hpp"
#include "tests/agent/test_head.hpp"
#include "tests/catch.hpp"

using namespace mds;
using namespace mds::agent;

namespace {

struct Ended {
  StartReport report;
  ExitStatus status;
  std::string output;
  std::string errors;
};

std::string read_all(int fd) {
  std::string text;
  char chunk[4096];
  for (ssize_t n; (n = read(fd, chunk, sizeof chunk)) > 0;) text.append(chunk, n);
  return text;
}

/// Starts a rank and waits for its end.
Ended run(const RankSpec& spec, int control_fd = -1, int beat_fd = -1) {
  auto process = start_rank_process(spec, {control_fd, beat_fd});
  INFO((process ? "" : process.error().message));
  REQUIRE(process.ok());
  pollfd polled{process->pidfd.get(), POLLIN, 0};
  REQUIRE(poll(&polled, 1, 20'000) == 1);
  const auto status = reap(process->pid);
  REQUIRE(status.has_value());
  Ended ended{read_start_report(process->start_report.get(), spec), *status, read_all(process->output.get()),
              read_all(process->errors.get())};
  REQUIRE(ended.report.complete);
  return ended;
}

std::string status_line(const std::string& status, const std::string& field) {
  const size_t at = status.find(field + ":\t");
  return status.substr(at + field.size() + 2, status.find('\n', at) - at - field.size() - 2);
}

/// `cat FILE...` directly: what it reads of itself is what the rank has at its first instruction.
RankSpec cat(const std::string& file) {
  RankSpec spec = shell_rank(0, "");
  spec.argv = {"cat", file};
  return spec;
}

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace

TEST_CASE("exit codes, signals and both streams are told apart", "[rank]") {
  const Ended coded = run(shell_rank(0, "echo out; echo err >&2; exit 7"));
  CHECK(coded.status.exit_code == 7);
  CHECK_FALSE(coded.status.signal);
  CHECK(coded.output == "out\n");
  CHECK(coded.errors == "err\n");
  const Ended killed = run(shell_rank(0, "kill -SEGV $$"));
  CHECK(killed.status.signal == SIGSEGV);
  CHECK_FALSE(killed.status.exit_code);
}

TEST_CASE("a rank is bound to its cores at its first instruction", "[rank]") {
  const auto cpus = allowed_cpus();
  for (const int cpu : {cpus.front(), cpus.back()}) {
    RankSpec spec = cat("/proc/self/status");
    spec.cpus = {cpu};
    CHECK(status_line(run(spec).output, "Cpus_allowed_list") == std::to_string(cpu));
  }
  RankSpec unbound = cat("/proc/self/status");
  std::ifstream own("/proc/self/status");
  const std::string mine{std::istreambuf_iterator<char>(own), {}};
  CHECK(status_line(run(unbound).output, "Cpus_allowed_list") == status_line(mine, "Cpus_allowed_list"));
}

TEST_CASE("memory is bound to its node, or a note says why not", "[rank]") {
  RankSpec spec = cat("/proc/self/numa_maps");
  spec.memory_nodes = {0};
  const Ended ended = run(spec);
  REQUIRE_FALSE(ended.report.failure);
  if (ended.report.notes.empty()) {
    // Without CONFIG_NUMA's file there is nothing more to see.
    if (!ended.output.empty()) CHECK(ended.output.find("bind:0") != std::string::npos);
  } else {
    CHECK(ended.report.notes[0].find("memory nodes 0") != std::string::npos);
  }
}

TEST_CASE("the environment is exactly the given one", "[rank]") {
  RankSpec spec = cat("/proc/self/environ");
  spec.env = {{"PATH", "/usr/bin:/bin"}, {"EMPTY", ""}, {"ODD", "a=b\nc d"}};
  using namespace std::string_literals;
  CHECK(run(spec).output == "EMPTY=\0ODD=a=b\nc d\0PATH=/usr/bin:/bin\0"s);
}

TEST_CASE("session, streams, signals and descriptors are the rank's own", "[rank]") {
  // Whatever the agent does with signals and files is not the rank's inheritance.
  const UniqueFd inherited(open("/etc/passwd", O_RDONLY));  // not close-on-exec
  sigset_t block, before;
  sigemptyset(&block);
  sigaddset(&block, SIGTERM);
  sigprocmask(SIG_BLOCK, &block, &before);
  signal(SIGINT, SIG_IGN);
  const std::string status = run(cat("/proc/self/status")).output;
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  const UniqueFd ours(pair[0]), theirs(pair[1]);
  RankSpec list = shell_rank(0, "");
  list.argv = {"ls", "-l", "/proc/self/fd"};
  const std::string fds = run(list, theirs.get(), inherited.get()).output;
  const std::string ids =
      run(shell_rank(0, "echo $MDS_CONTROL_FD $MDS_BEAT_FD; cut -d' ' -f1,5,6 /proc/$$/stat; echo $$"), theirs.get(),
          inherited.get())
          .output;
  signal(SIGINT, SIG_DFL);
  sigprocmask(SIG_SETMASK, &before, nullptr);

  CHECK(status_line(status, "SigBlk") == "0000000000000000");
  // 32 and 33 are the C library's own: its posix_spawn (make's way) leaves them ignored; no program can ask for them.
  constexpr uint64_t kLibrarySignals = uint64_t{3} << 31;
  CHECK((std::stoull(status_line(status, "SigIgn"), nullptr, 16) & ~kLibrarySignals) == 0);
  std::map<std::string, std::string> targets;
  std::istringstream lines(fds);
  for (std::string line; std::getline(lines, line);) {
    const size_t arrow = line.find(" -> ");
    if (arrow == std::string::npos) continue;
    const size_t begin = line.rfind(' ', arrow - 1) + 1;
    targets[line.substr(begin, arrow - begin)] = line.substr(arrow + 4);
  }
  CHECK(targets.size() == 6);  // one is the folder that ls reads
  CHECK(targets["0"] == "/dev/null");
  CHECK(targets["1"].substr(0, 5) == "pipe:");
  CHECK(targets["2"].substr(0, 5) == "pipe:");
  CHECK(targets["1"] != targets["2"]);
  CHECK(targets["3"].substr(0, 6) == "/proc/");
  CHECK(targets["100"].substr(0, 7) == "socket:");
  CHECK(targets["101"] == "/etc/passwd");

  std::istringstream id_lines(ids);
  std::string numbers, process, pid;
  std::getline(id_lines, numbers);
  std::getline(id_lines, process);
  std::getline(id_lines, pid);
  CHECK(numbers == "100 101");
  CHECK(process == pid + " " + pid + " " + pid);  // its own process group and session
}

TEST_CASE("a start that fails names its step", "[rank]") {
  RankSpec missing = shell_rank(0, "");
  missing.argv = {"no-such-program"};
  const auto no_program = start_rank_process(missing, {});
  REQUIRE_FALSE(no_program.ok());
  CHECK(no_program.error().message == "no program 'no-such-program' in PATH (/usr/local/bin:/usr/bin:/bin)");

  const auto failure = [](const RankSpec& spec) {
    const Ended ended = run(spec);
    REQUIRE(ended.report.failure);
    return ended.report.failure->message;
  };
  TemporaryFolder folder;
  RankSpec absent = shell_rank(0, "");
  absent.argv = {folder.path() + "/absent"};
  CHECK(failure(absent) == "executing '" + folder.path() + "/absent': No such file or directory");
  std::ofstream(folder.path() + "/text") << "no program";
  RankSpec text = shell_rank(0, "");
  text.argv = {folder.path() + "/text"};
  CHECK(failure(text).find("Permission denied") != std::string::npos);
  chmod(text.argv[0].c_str(), 0700);
  CHECK(failure(text).find("Exec format error (a script needs a first line") != std::string::npos);
  std::ofstream(text.argv[0]) << "#!/no/such/interpreter\n";
  CHECK(failure(text).find("not the interpreter that it names") != std::string::npos);
  RankSpec elsewhere = shell_rank(0, "");
  elsewhere.working_dir = folder.path() + "/nowhere";
  CHECK(failure(elsewhere) == "entering folder '" + folder.path() + "/nowhere': No such file or directory");
  RankSpec unbindable = shell_rank(0, "");
  unbindable.cpus = {100'000};
  CHECK(failure(unbindable).find("binding it to cpus 100000: ") == 0);
}

TEST_CASE("the limit on descriptors is raised for the agent alone, and named when too low", "[rank]") {
  rlimit original{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &original) == 0);
  const auto set_soft = [&](rlim_t soft) {
    const rlimit limit{soft, original.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  };
  set_soft(120);  // below the numbers that a rank's own descriptors have on their way
  const Ended ended = run(shell_rank(0, ""));
  REQUIRE(ended.report.failure);
  CHECK(ended.report.failure->message.find("connecting its streams: too many open files") == 0);

  set_soft(300);
  raise_descriptor_limit();
  rlimit raised{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &raised) == 0);
  CHECK(raised.rlim_cur == original.rlim_max);
  CHECK(run(shell_rank(0, "ulimit -n")).output == "300\n");
  REQUIRE(setrlimit(RLIMIT_NOFILE, &original) == 0);
}

TEST_CASE("a rank that was just started takes milliseconds at most", "[rank]") {
  const auto begin = std::chrono::steady_clock::now();
  constexpr int kRanks = 32;
  for (int i = 0; i < kRanks; ++i) {
    RankSpec spec = shell_rank(i, "");
    spec.argv = {"true"};
    run(spec);
  }
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  WARN("start and end of a rank: " << took.count() / kRanks << " ms");
  CHECK(took.count() / kRanks < 100);  // on a busy machine
}
