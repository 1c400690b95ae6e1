// Child: a program that a back end has started, with a text on its standard input. Its end is an event.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/unique_fd.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

struct ChildSpec {
  std::vector<std::string> argv;           ///< argv[0] is an absolute path; no shell comes between
  std::vector<std::string> environment{};  ///< "NAME=value"; the child's whole environment
  std::string input{};                     ///< at most kBootstrapBytesMax, so that it fits into a pipe
  bool keep_input_open = false;            ///< until end_input() or the child's end
  std::string log_path{};                  ///< both output streams are appended here
};

/// Threads: the one that runs the io_context. Destroying it kills the child and waits for its end.
class Child {
 public:
  static constexpr const char* kExitedWell = "exited with code 0";  ///< what `how` says then

  /// `on_ended` is called once, from the event loop, when the child has ended and was reaped; it may destroy the Child.
  static Result<std::unique_ptr<Child>> start(boost::asio::io_context& io, const ChildSpec& spec,
                                              std::function<void(const std::string& how)> on_ended);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  /// Not reaped before on_ended, so the number is the child's own.
  pid_t pid() const { return pid_; }
  void signal(int signal);
  void end_input() { input_.reset(); }
  /// Blocks until it has ended, at most so long; on_ended follows all the same.
  void wait(std::chrono::milliseconds at_most);
  /// Ends it and everything on this machine that descends from it.
  void kill_tree();

 private:
  Child(boost::asio::io_context& io, pid_t pid, int pidfd) : pid_(pid), ended_(io, pidfd) {}

  pid_t pid_;
  bool reaped_ = false;
  boost::asio::posix::stream_descriptor ended_;  ///< pidfd, readable when the child has ended: no polling, no SIGCHLD
  agent::UniqueFd input_;
};

/// This process' environment, as ChildSpec wants it.
std::vector<std::string> own_environment();

/// Runs a short program to its end and gives its standard output. Errors: unavailable (it cannot be started, fails,
/// says more than 1 MiB or takes longer than 30 s), with the last line of its error output.
Result<std::string> output_of(const std::vector<std::string>& argv);

/// Absolute path of a program of that name in PATH. Errors: bad_input.
Result<std::string> program_in_path(const std::string& name);

}  // namespace mds::launcher
