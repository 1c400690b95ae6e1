#include "launcher/backend_local.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "agent/process_tree.hpp"
#include "agent/unique_fd.hpp"
#include "launcher/supervisor.hpp"

namespace mds::launcher {

namespace {

using agent::UniqueFd;

/// posix_spawn does not copy the head's address space (vfork), so a start costs the same however large the head is. The
/// agent gets a session of its own: the terminal's Ctrl-C is for the head alone, which then stops it in order.
Result<pid_t> spawn(const std::string& program, int input, const std::string& log_path) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  char* const argv[] = {const_cast<char*>(program.c_str()), nullptr};
  pid_t pid = -1;
  const int error = posix_spawn(&pid, program.c_str(), &actions, &attributes, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return unavailable("cannot start " + program + ": " + std::strerror(error));
  return pid;
}

std::string how_it_ended(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return "exited with code " + std::to_string(info.si_status);
  return "was killed by " + signal_name(info.si_status);
}

}  // namespace

LocalBackend::LocalBackend(boost::asio::io_context& io, BackendOptions options, EndedHandler on_ended)
    : io_(io), options_(std::move(options)), on_ended_(std::move(on_ended)) {}

LocalBackend::~LocalBackend() {
  while (!processes_.empty()) {
    const auto it = processes_.begin();
    kill_agent(it->first);
    waitpid(it->second.pid, nullptr, 0);
    processes_.erase(it);
  }
}

Status LocalBackend::start_agent(const agent::Bootstrap& bootstrap) {
  const int node = bootstrap.node;
  if (processes_.count(node)) return internal("node " + std::to_string(node) + " has an agent already");
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return system_error("cannot make a pipe", errno);
  UniqueFd reader(ends[0]), writer(ends[1]);
  // The line fits into the pipe (kBootstrapBytesMax), so this cannot block on an agent that does not read.
  const std::string line = agent::to_line(bootstrap);
  if (write(writer.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return system_error("cannot write to a pipe", errno);
  }
  Result<pid_t> pid = spawn(options_.agent_program, reader.get(), node_log_path(options_.run_folder, node));
  if (!pid) return pid.error();
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, *pid, 0));
  if (pidfd < 0) {
    const int errnum = errno;
    kill(*pid, SIGKILL);
    waitpid(*pid, nullptr, 0);
    return system_error("pidfd_open (Linux 5.3 or newer is needed)", errnum);
  }
  boost::asio::posix::stream_descriptor ended(io_, pidfd);
  const auto it = processes_.emplace(node, Process{*pid, std::move(ended)}).first;
  it->second.pidfd.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                              [this, node](boost::system::error_code ec) {
                                if (!ec) this->on_ended(node);
                              });
  return {};
}

void LocalBackend::kill_agent(int node) {
  const auto it = processes_.find(node);
  if (it == processes_.end()) return;
  const auto tree = agent::descendants(it->second.pid);
  kill(it->second.pid, SIGKILL);  // not reaped yet, so the number is still its own
  agent::kill_processes(tree);
}

void LocalBackend::on_ended(int node) {
  const auto it = processes_.find(node);
  siginfo_t info{};
  waitid(P_PID, static_cast<id_t>(it->second.pid), &info, WEXITED);
  processes_.erase(it);
  on_ended_(node, how_it_ended(info));
}

}  // namespace mds::launcher
