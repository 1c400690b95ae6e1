// One run of a job, from the validated job file to the exit code: discover, plan, run folder, agents, supervisor, end.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "launcher/debugger.hpp"
#include "launcher/job.hpp"
#include "launcher/supervisor.hpp"

namespace mds::launcher {

/// What the command line says about this run and the job file does not.
struct RunOptions {
  std::string job_argument;            ///< the job file as typed, for the commands printed under "what to try next"
  bool json = false;                   ///< machine-readable JSON lines alone on standard output
  std::optional<KillRank> kill_rank;   ///< {rank, step}, see launcher/supervisor.hpp
  std::string run_id;                  ///< last part of the run folder's name; empty: random
  std::string resume;                  ///< absolute path of the run folder to go on in; empty: a new run
  bool goes_on_without = false;        ///< nodes were lost before: one more that does not come is no surprise
  std::optional<DebugRank> debug{};    ///< this rank waits for a debugger; no time-outs, no restarts
  bool preempt_on_term = false;        ///< SIGTERM asks for a checkpoint and exit code 75, as SIGUSR1 always does
  std::chrono::milliseconds preempt_drain{60'000};  ///< time for that checkpoint
  std::string agent_program;           ///< empty: "mdsagent" beside this executable
  std::string trainer_program;         ///< empty: "mdstrain" beside this executable
};

/// How it ended.
struct RunEnd {
  int exit_code = 0;
  std::string folder{};     ///< of the run
  std::string lost_host{};  ///< the machine, as the job names it, without which the run could go on; empty: none
};

/// Runs `job` to its end and returns the exit code (kExit* below, or 128 + signal). Prints to standard output (the
/// view) and standard error (problems). Blocks; call once, from the main thread: it takes over SIGINT, SIGTERM, SIGHUP,
/// SIGUSR1 and SIGPIPE, becomes the child subreaper, and returns only when no process of the run on this machine is
/// left.
RunEnd run_job(const Job& job, const RunOptions& options);

inline constexpr int kExitFinished = 0;
inline constexpr int kExitFailed = 1;         ///< first cause printed and in report.json
inline constexpr int kExitBadInput = 2;
inline constexpr int kExitInfeasible = 3;
inline constexpr int kExitNoAgents = 4;       ///< agents could not be started
inline constexpr int kExitRequeue = 75;       ///< stopped with a checkpoint, to be requeued

}  // namespace mds::launcher
