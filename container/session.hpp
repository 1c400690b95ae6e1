// A running container on this node, and how a process gets into it.
//
// The agent starts the container once, with a first process that does nothing but wait for its standard input to end.
// A rank is forked by the agent itself and enters the container's user and mount namespaces between fork and exec: it
// stays the agent's child, with its pipes, pidfd, cores and limits, and entering costs microseconds. When the agent
// goes, whatever the reason, the input ends, and the container with it.
//
// Works with every runtime that needs no privilege to make a container (user namespaces), and as root with any. What
// the runtime must share with the host: PID and network namespaces (command_line.hpp asks for that).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "container/command_line.hpp"
#include "container/container.hpp"

namespace mds::container {

/// The way into a container, as open descriptors (close-on-exec). Copies share them; Session closes them.
struct Entrance {
  int user_namespace = -1;    ///< -1: the same as ours
  int mount_namespace = -1;
  int root = -1;              ///< its root folder
  bool valid() const { return mount_namespace >= 0; }
};

/// Moves the calling process, which must have one thread, into the container; its working folder is then "/". Returns 0
/// or an errno. Async-signal-safe: made for the time between fork and exec.
int enter(const Entrance& entrance);

/// Runs a command without input or output, however it ends, for 10 s at most.
void run_quietly(std::vector<std::string> command);

class Session {
 public:
  /// Starts the container and waits until its first process says that it is there, `patience` at most. Requires check()
  /// to have passed. Blocks. Errors: unavailable with the runtime's own last words.
  static Result<Session> start(const Container& container, const Host& host, std::chrono::milliseconds patience);
  Session(Session&& other) noexcept;
  Session& operator=(Session&& other) noexcept;
  ~Session();                 ///< as close(), without waiting

  const Entrance& entrance() const { return entrance_; }
  pid_t runtime_pid() const { return runtime_pid_; }  ///< our child: reap it, or let close() do so
  /// What the image and the runtime set, from the first process: the base of every rank's environment inside.
  const std::map<std::string, std::string>& environment() const { return environment_; }

  /// Nobody enters any more: ends its first process' input, so that the container ends by itself soon, and closes the
  /// entrance. A second call does nothing.
  void let_go();
  /// What clean_up() runs; empty where nothing stays behind. For those who outlive this process.
  std::vector<std::string> cleanup() const { return cleanup_command_line(container_, host_); }
  /// Removes what the runtime leaves behind when its processes are killed. Blocks, 10 s at most.
  void clean_up();

  /// Lets the container end by itself; after `grace` its processes are killed. What the runtime would leave behind is
  /// removed. Blocks for `grace` at most and a moment. A second call does nothing.
  void close(std::chrono::milliseconds grace);

 private:
  Session() = default;
  Status await_first_process(std::chrono::milliseconds patience);
  Status open_entrance();
  void release();

  Container container_;
  Host host_;
  pid_t runtime_pid_ = -1;
  pid_t first_pid_ = -1;      ///< as seen from here
  int input_ = -1, output_ = -1, errors_ = -1;
  Entrance entrance_;
  std::map<std::string, std::string> environment_;
};

}  // namespace mds::container
