#include "launcher/backend_child.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "agent/core_limit.hpp"
#include "agent/process_tree.hpp"
#include "launcher/supervisor.hpp"

namespace mds::launcher {

namespace {

using agent::UniqueFd;

constexpr size_t kOutputBytesMax = 1u << 20;
constexpr std::chrono::seconds kOutputTimeout{30};

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> out;
  for (const std::string& word : words) out.push_back(const_cast<char*>(word.c_str()));
  out.push_back(nullptr);
  return out;
}

/// posix_spawn does not copy the head's address space (vfork), so a start costs the same however large the head is. The
/// child gets a session of its own: the terminal's Ctrl-C is for the head alone, which then stops it in order.
Result<pid_t> spawn(const std::vector<std::string>& argv, const std::vector<std::string>& environment,
                    posix_spawn_file_actions_t& actions) {
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const agent::CoreLimitLifted lifted;
  pid_t pid = -1;
  const int error =
      posix_spawn(&pid, argv[0].c_str(), &actions, &attributes, pointers(argv).data(), pointers(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return unavailable("cannot start " + argv[0] + ": " + std::strerror(error));
  return pid;
}

std::string how_it_ended(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return "exited with code " + std::to_string(info.si_status);
  return "was killed by " + signal_name(info.si_status);
}

Status make_pipe(UniqueFd& reader, UniqueFd& writer) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return system_error("cannot make a pipe", errno);
  reader = UniqueFd(ends[0]);
  writer = UniqueFd(ends[1]);
  return {};
}

std::string last_line(const std::string& text) {
  std::istringstream lines(text);
  std::string line, last;
  while (std::getline(lines, line)) {
    if (!line.empty()) last = line;
  }
  return last;
}

}  // namespace

Result<std::unique_ptr<Child>> Child::start(boost::asio::io_context& io, const ChildSpec& spec,
                                            std::function<void(const std::string& how)> on_ended) {
  UniqueFd reader, writer;
  if (Status s = make_pipe(reader, writer); !s) return s.error();
  // The text fits into the pipe, so this cannot block on a child that does not read.
  if (write(writer.get(), spec.input.data(), spec.input.size()) != static_cast<ssize_t>(spec.input.size())) {
    return system_error("cannot write to a pipe", errno);
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, reader.get(), STDIN_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, spec.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  const Result<pid_t> pid = spawn(spec.argv, spec.environment, actions);
  if (!pid) return pid.error();
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, *pid, 0));
  if (pidfd < 0) {
    const int errnum = errno;
    kill(*pid, SIGKILL);
    waitpid(*pid, nullptr, 0);
    return system_error("pidfd_open (Linux 5.3 or newer is needed)", errnum);
  }
  std::unique_ptr<Child> child(new Child(io, *pid, pidfd));
  if (spec.keep_input_open) child->input_ = std::move(writer);
  child->ended_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                           [self = child.get(), on_ended = std::move(on_ended)](boost::system::error_code ec) {
                             if (ec) return;
                             siginfo_t info{};
                             waitid(P_PID, static_cast<id_t>(self->pid_), &info, WEXITED);
                             self->reaped_ = true;
                             on_ended(how_it_ended(info));
                           });
  return child;
}

Child::~Child() {
  if (reaped_) return;
  kill_tree();
  waitpid(pid_, nullptr, 0);
}

void Child::signal(int signal) {
  if (!reaped_) kill(pid_, signal);
}

void Child::wait(std::chrono::milliseconds at_most) {
  pollfd polled{ended_.native_handle(), POLLIN, 0};
  if (!reaped_) poll(&polled, 1, static_cast<int>(at_most.count()));
}

void Child::kill_tree() {
  if (reaped_) return;
  const auto tree = agent::descendants(pid_);
  kill(pid_, SIGKILL);
  agent::kill_processes(tree);
}

std::vector<std::string> own_environment() {
  std::vector<std::string> out;
  for (char** entry = environ; entry && *entry; ++entry) out.emplace_back(*entry);
  return out;
}

Result<std::string> output_of(const std::vector<std::string>& argv) {
  UniqueFd reader, writer, error_reader, error_writer;
  if (Status s = make_pipe(reader, writer); !s) return s.error();
  if (Status s = make_pipe(error_reader, error_writer); !s) return s.error();
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, writer.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, error_writer.get(), STDERR_FILENO);
  const Result<pid_t> pid = spawn(argv, own_environment(), actions);
  if (!pid) return pid.error();
  writer.reset();
  error_writer.reset();

  std::string texts[2];
  pollfd polled[2] = {{reader.get(), POLLIN, 0}, {error_reader.get(), POLLIN, 0}};
  const auto deadline = std::chrono::steady_clock::now() + kOutputTimeout;
  bool in_time = true;
  while (in_time && (polled[0].fd >= 0 || polled[1].fd >= 0)) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    poll(polled, 2, static_cast<int>(std::max<int64_t>(0, left.count())));
    for (int n = 0; n < 2; ++n) {
      char chunk[4096];
      if (polled[n].revents == 0) continue;
      const ssize_t got = read(polled[n].fd, chunk, sizeof chunk);
      if (got <= 0) polled[n].fd = -1;
      if (got > 0) texts[n].append(chunk, static_cast<size_t>(got));
    }
    in_time = std::chrono::steady_clock::now() < deadline && texts[0].size() + texts[1].size() <= kOutputBytesMax;
  }
  if (!in_time) kill(*pid, SIGKILL);
  int status = 0;
  waitpid(*pid, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return texts[0];
  const std::string why = last_line(texts[1].empty() ? texts[0] : texts[1]);
  return unavailable(argv[0] + " failed" + (why.empty() ? "" : ": " + why));
}

Result<std::string> program_in_path(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "");
  std::string folder;
  while (std::getline(folders, folder, ':')) {
    const std::filesystem::path candidate = std::filesystem::path(folder) / name;
    if (folder.starts_with('/') && access(candidate.c_str(), X_OK) == 0) return candidate.string();
  }
  return bad_input("there is no " + name + " in PATH");
}

}  // namespace mds::launcher
