// One rank as a process: started bound and isolated, its end told by a pidfd.
//
// Between fork and exec the child makes itself leader of a session and process group, asks to die with the agent, binds
// itself to its cores and memory nodes, gets /dev/null and two pipes as its streams, default signal dispositions and
// the descriptors that it is meant to have, and nothing else of the agent. It does so in the agent's memory, as a child
// of vfork, unless it enters a container: no address space is copied, and the caller waits for its exec.
//
// Threads: call from one thread, which lives as long as the ranks do (the kernel ties the children's death to it).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "agent/rank_spec.hpp"
#include "agent/unique_fd.hpp"
#include "container/session.hpp"
#include "topology/result.hpp"

namespace mds::agent {

/// Where programs are looked for when PATH is not set.
inline constexpr const char* kDefaultPath = "/usr/bin:/bin";

/// Numbers under which a rank finds its control socket and heartbeat page; above what shells and launchers use.
inline constexpr int kRankControlFd = 100;
inline constexpr int kRankBeatFd = 101;
inline constexpr int kRankMpiFd = 102;

/// Raises this process's soft limit on open descriptors to the hard one: each rank takes seven of them, and the usual
/// 1024 would do for 140 ranks. Ranks start with the limit of before. Call once, before the first rank.
void raise_descriptor_limit();

/// The agent's ends of a child that has been forked. All descriptors are close-on-exec, the pipes non-blocking.
struct RankProcess {
  pid_t pid = -1;         ///< to be reaped by the caller
  UniqueFd pidfd;         ///< readable when the process has ended
  UniqueFd output;        ///< its standard output
  UniqueFd errors;        ///< its standard error
  UniqueFd start_report;  ///< readable when exec has succeeded or failed: read_start_report
};

/// What a rank gets beside its streams; -1: not that.
struct RankDescriptors {
  int control = -1, beat = -1, mpi = -1;
};

/// Forks the rank; its exec is reported later through `start_report`. `fds` are the rank's ends, which the caller may
/// close afterwards. Errors: bad_input (no such program), unavailable (no process).
/// With an entrance the rank enters that container before it executes its program, which is looked for inside.
Result<RankProcess> start_rank_process(const RankSpec& spec, const RankDescriptors& fds,
                                       const container::Entrance& entrance = {});

struct StartReport {
  bool complete = false;            ///< exec succeeded or failed; otherwise wait for more
  std::optional<Error> failure;     ///< the step that failed and why
  std::vector<std::string> notes;   ///< steps that failed and were tolerated
};

/// Reads what the child has said so far, without blocking.
StartReport read_start_report(int start_report_fd, const RankSpec& spec);

/// How a process ended: exactly one of exit code and signal is set.
struct ExitStatus {
  std::optional<int> exit_code;
  std::optional<int> signal;
  bool core_dumped = false;
  std::chrono::steady_clock::time_point seen{};  ///< its end, or the request for it
};

/// Reaps the child if it has ended; nullopt while it runs (or when it is no child of ours).
std::optional<ExitStatus> reap(pid_t pid);

/// The path to execute for `program`: itself if it has a '/', else the first executable file of that name in the
/// folders of `path` (as in PATH). Errors: bad_input.
Result<std::string> find_program(const std::string& program, const std::string& path);

/// pidfd_open(2), close-on-exec; an empty one when the process is gone (see errno).
UniqueFd open_pidfd(pid_t pid);
/// pidfd_send_signal(2). False when the process has ended.
bool send_signal(int pidfd, int signal);

}  // namespace mds::agent
