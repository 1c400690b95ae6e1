// Rank group: the processes of one node's ranks in one attempt, from fork to the certainty that nothing is left.
//
// Invariants
//   G1  Every rank is reported started (or start_failed) once, and a started one exited once, after its last output
//       and its last word on the control socket.
//   G2  A rank's end is noticed by its pidfd in the event loop, never by polling.
//   G3  on_stopped follows every stop(), when no child of this process, no descendant of a rank and no process with the
//       ranks' mark is left, and not before.
//
// Everything below this process is taken for a rank's descendant (it is a child subreaper): the program that uses a
// RankGroup may not have other children. Threads: the one that runs the io_context.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "agent/process_tree.hpp"
#include "agent/rank_output.hpp"
#include "agent/rank_process.hpp"
#include "agent/rank_spec.hpp"

namespace mds::agent {

struct StopTimes {
  std::chrono::milliseconds drain{0};  ///< ranks on the control protocol are asked to leave; TERM after this
  std::chrono::milliseconds grace{0};  ///< from TERM to KILL
};

struct RankBeat {
  int rank = 0;
  uint64_t beats = 0;
  uint64_t step = 0;
  std::chrono::milliseconds age{0};    ///< since the beat was last seen to change, or since the start
};

class RankGroup {
 public:
  /// Called from the event loop, and on_start_failed and on_stopped also from within start() and stop().
  struct Events {
    std::function<void(int rank, pid_t pid, const std::vector<std::string>& notes)> on_started;
    std::function<void(int rank, const std::string& message)> on_start_failed;
    std::function<void(int rank, pid_t pid, const ExitStatus& status, std::vector<std::string> tail)> on_exited;
    /// Whenever lines wait, and with the rest of them before on_exited.
    std::function<void(int rank, RankOutput::Batch batch)> on_output;
    /// Room for output now? While there is none, lines wait, then are dropped.
    std::function<bool()> may_output;
    std::function<void(int rank, const nlohmann::json& body)> on_progress;
    std::function<void(int rank, const nlohmann::json& body)> on_exchange;
    std::function<void()> on_stopped;
    std::function<void(const std::string& text)> on_note;  ///< for the agent's log
  };

  /// `mark` is shared with the guard and outlives this.
  RankGroup(boost::asio::io_context& io, ProcessMark& mark, Events events);
  ~RankGroup();

  /// Requires !is_busy().
  void start(const NodeStart& start);
  /// Ranks that run, or a stop under way.
  bool is_busy() const;

  /// A second call hurries: the earlier of both deadlines counts.
  void stop(const StopTimes& times);

  void ask_for_checkpoint();
  /// {name, values} of an exchange to those of `ranks` that are here.
  void give_exchange_result(const std::vector<int>& ranks, const nlohmann::json& body);
  /// False when there is no such live rank.
  bool signal(int rank, int signal);
  struct RankPid {
    int rank = 0;
    pid_t pid = 0;
  };
  /// Of the ranks that run now.
  std::vector<RankPid> pids() const;
  /// Of the ranks that run now.
  std::vector<RankBeat> beats();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mds::agent
