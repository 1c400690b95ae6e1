#include "container/session.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

namespace mds::container {
namespace {

using Clock = std::chrono::steady_clock;

// The container's first process: tells its PID and waits for the end of its input. `cat` is as small as any image has
// it; the shell is gone when it waits.
const std::vector<std::string> kFirstProcess{"/bin/sh", "-c", "echo \"mds-container $$\"; exec cat >/dev/null"};
constexpr const char* kGreeting = "mds-container ";

/// Of the host's variables, those that runtimes need themselves.
std::vector<std::string> runtime_environment() {
  std::vector<std::string> out;
  for (const char* name : {"PATH", "HOME", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "TMPDIR", "LANG", "APPTAINER_TMPDIR",
                           "APPTAINER_CACHEDIR", "ENROOT_DATA_PATH", "ENROOT_CACHE_PATH", "ENROOT_RUNTIME_PATH",
                           "DBUS_SESSION_BUS_ADDRESS"}) {
    if (const char* value = std::getenv(name)) out.push_back(std::string(name) + "=" + value);
  }
  if (!std::getenv("USER")) out.push_back("USER=" + std::to_string(getuid()));  // ch-run insists on one
  return out;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

struct Pipe {
  int read = -1, write = -1;
};

bool make_pipe(Pipe& pipe) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return false;
  pipe = {ends[0], ends[1]};
  return true;
}

void close_fd(int& fd) {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

std::string drained(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n; text.size() < (64 << 10) && (n = read(fd, buffer, sizeof buffer)) > 0;) text.append(buffer, n);
  return text;
}

/// The last lines of what the runtime complained, on one line.
std::string last_words(int fd) {
  std::string text = drained(fd);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  if (text.size() > 600) text = "..." + text.substr(text.size() - 600);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.empty() ? "it said nothing" : text;
}

std::string namespace_of(const std::string& process, const char* kind) {
  std::error_code failed;
  return std::filesystem::read_symlink("/proc/" + process + "/ns/" + kind, failed);
}

bool in_other_mount_namespace(pid_t pid) {
  const std::string theirs = namespace_of(std::to_string(pid), "mnt");
  return !theirs.empty() && theirs != namespace_of("self", "mnt");
}

/// A process' environment, NUL after each variable. It is in the middle of becoming `cat`, and the kernel shows nothing
/// for that moment: without a PATH from here, no rank would find its program.
std::string environment_text(const std::string& process_folder) {
  std::string text;
  for (int tries = 0; text.empty() && tries < 500; ++tries) {
    if (tries > 0) poll(nullptr, 0, 4);
    std::ifstream file(process_folder + "/environ", std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  return text;
}

[[noreturn]] void run_runtime(std::vector<char*>& argv, std::vector<char*>& envp, const Pipe& input, const Pipe& output,
                              const Pipe& errors) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGINT, SIG_DFL);
  signal(SIGHUP, SIG_DFL);
  signal(SIGPIPE, SIG_DFL);
  setsid();
  if (dup2(input.read, 0) < 0 || dup2(output.write, 1) < 0 || dup2(errors.write, 2) < 0) _exit(127);
  execve(argv[0], argv.data(), envp.data());
  const char* why = strerror(errno);
  [[maybe_unused]] const ssize_t n = write(2, why, strlen(why));
  _exit(127);
}

bool ended_within(pid_t pid, std::chrono::milliseconds time) {
  const auto deadline = Clock::now() + time;
  while (waitpid(pid, nullptr, WNOHANG) == 0) {
    if (Clock::now() >= deadline) return false;
    poll(nullptr, 0, 5);
  }
  return true;
}

}  // namespace

void run_quietly(std::vector<std::string> command) {
  auto environment = runtime_environment();
  auto argv = pointers(command), envp = pointers(environment);
  const pid_t pid = fork();
  if (pid == 0) {
    const int null = open("/dev/null", O_RDWR);
    if (null >= 0) dup2(null, 0), dup2(null, 1), dup2(null, 2);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  if (pid > 0 && !ended_within(pid, std::chrono::seconds(10))) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
}

int enter(const Entrance& entrance) {
  if (entrance.user_namespace >= 0 && setns(entrance.user_namespace, CLONE_NEWUSER) < 0) return errno;
  if (setns(entrance.mount_namespace, CLONE_NEWNS) < 0) return errno;
  // The namespace's own root is not always the container's: some runtimes chroot instead of pivoting.
  if (fchdir(entrance.root) < 0 || chroot(".") < 0 || chdir("/") < 0) return errno;
  return 0;
}

Result<Session> Session::start(const Container& container, const Host& host, std::chrono::milliseconds patience) {
  Session session;
  session.container_ = container;
  session.host_ = host;
  auto arguments = command_line(container, host, kFirstProcess);
  auto environment = runtime_environment();
  auto argv = pointers(arguments), envp = pointers(environment);
  Pipe input, output, errors;
  const bool piped = make_pipe(input) && make_pipe(output) && make_pipe(errors);
  const int problem = errno;
  if (piped) session.runtime_pid_ = fork();
  if (session.runtime_pid_ == 0) run_runtime(argv, envp, input, output, errors);
  for (int* theirs : {&input.read, &output.write, &errors.write}) close_fd(*theirs);
  session.input_ = input.write;
  session.output_ = output.read;
  session.errors_ = errors.read;
  if (session.runtime_pid_ < 0) return system_error("starting " + host.runtime_program, piped ? errno : problem);
  for (const int fd : {session.output_, session.errors_}) fcntl(fd, F_SETFL, O_NONBLOCK);
  if (Status there = session.await_first_process(patience); !there) {
    session.close(std::chrono::milliseconds(200));
    return there.error();
  }
  if (Status open = session.open_entrance(); !open) return open.error();
  return session;
}

Status Session::await_first_process(std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  const std::string what = std::string(to_string(container_.runtime)) + " did not start the container";
  std::string said;
  while (said.find('\n') == std::string::npos) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) {
      return unavailable(what + " within " + std::to_string(patience.count() / 1000.0).substr(0, 4) + " s: " +
                         last_words(errors_));
    }
    pollfd event{output_, POLLIN, 0};
    poll(&event, 1, static_cast<int>(left.count()));
    char buffer[256];
    const ssize_t n = read(output_, buffer, sizeof buffer);
    if (n > 0) said.append(buffer, static_cast<size_t>(n));
    if (n == 0) {  // it has ended
      poll(nullptr, 0, 20);
      return unavailable(what + ": " + last_words(errors_));
    }
    if (said.size() > 4096) break;
  }
  const size_t greeting = said.find(kGreeting);
  pid_t pid = 0;
  if (greeting != std::string::npos) {
    std::from_chars(said.data() + greeting + strlen(kGreeting), said.data() + said.size(), pid);
  }
  if (pid <= 0) return unavailable(what + ": its first process answered '" + said.substr(0, 80) + "'");
  if (!in_other_mount_namespace(pid)) {
    return unavailable(what + " with the host's PIDs: process " + std::to_string(pid) + " is not inside");
  }
  first_pid_ = pid;
  return {};
}

Status Session::open_entrance() {
  const std::string process = std::to_string(first_pid_), folder = "/proc/" + process;
  if (namespace_of(process, "user") != namespace_of("self", "user")) {
    entrance_.user_namespace = open((folder + "/ns/user").c_str(), O_RDONLY | O_CLOEXEC);
    if (entrance_.user_namespace < 0) return system_error("opening the container's user namespace", errno);
  }
  entrance_.mount_namespace = open((folder + "/ns/mnt").c_str(), O_RDONLY | O_CLOEXEC);
  if (entrance_.mount_namespace < 0) return system_error("opening the container's mounts", errno);
  entrance_.root = open((folder + "/root").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (entrance_.root < 0) return system_error("opening the container's root folder", errno);

  const std::string text = environment_text(folder);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\0', begin), text.size()), equals = text.find('=', begin);
    if (equals < end) environment_[text.substr(begin, equals - begin)] = text.substr(equals + 1, end - equals - 1);
    begin = end + 1;
  }
  for (const char* name : {"PWD", "OLDPWD", "SHLVL", "_", "PROMPT_COMMAND", "PS1"}) environment_.erase(name);
  for (const auto& [name, value] : container_.env) environment_[name] = value;
  return {};
}

void Session::let_go() {
  close_fd(input_);
  // Whoever holds these holds the image's mount, and a runtime waits for its FUSE daemon to end (apptainer: a second).
  for (int* fd : {&entrance_.user_namespace, &entrance_.mount_namespace, &entrance_.root}) close_fd(*fd);
}

void Session::clean_up() {
  auto command = cleanup();
  if (!command.empty()) run_quietly(std::move(command));
}

void Session::close(std::chrono::milliseconds grace) {
  let_go();
  if (runtime_pid_ > 0) {
    const bool ended = ended_within(runtime_pid_, grace);
    if (!ended) {
      if (first_pid_ > 0) kill(first_pid_, SIGKILL);
      if (!ended_within(runtime_pid_, std::chrono::seconds(1))) {
        kill(-runtime_pid_, SIGKILL);
        kill(runtime_pid_, SIGKILL);
        waitpid(runtime_pid_, nullptr, 0);
      }
      clean_up();
    }
    runtime_pid_ = -1;
  }
  release();
}

void Session::release() {
  for (int* fd :
       {&input_, &output_, &errors_, &entrance_.user_namespace, &entrance_.mount_namespace, &entrance_.root}) {
    close_fd(*fd);
  }
}

Session::Session(Session&& other) noexcept { *this = std::move(other); }

Session& Session::operator=(Session&& other) noexcept {
  if (this == &other) return *this;
  if (runtime_pid_ > 0) close(std::chrono::milliseconds(0));
  release();
  container_ = std::move(other.container_);
  host_ = std::move(other.host_);
  runtime_pid_ = std::exchange(other.runtime_pid_, -1);
  first_pid_ = std::exchange(other.first_pid_, -1);
  input_ = std::exchange(other.input_, -1);
  output_ = std::exchange(other.output_, -1);
  errors_ = std::exchange(other.errors_, -1);
  entrance_ = std::exchange(other.entrance_, {});
  environment_ = std::move(other.environment_);
  return *this;
}

Session::~Session() {
  if (runtime_pid_ > 0) close(std::chrono::milliseconds(0));
  release();
}

}  // namespace mds::container
