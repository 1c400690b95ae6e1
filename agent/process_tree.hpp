// Process tree: finding and killing everything that ranks left behind, setsid'ed grandchildren included.
//
// The agent and its guard are child subreapers: an orphan of the ranks becomes their child, so that whatever descends
// from a rank descends from them. What is not even a descendant (started through some daemon) is found by its
// environment, as a last resort.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace mds::agent {

/// A live process (zombies excluded). `start_time` (ticks since boot) tells it from a later one with the same pid.
struct ProcessEntry {
  pid_t pid = 0;
  pid_t parent = 0;
  uint64_t start_time = 0;
};

/// Environment entries ("NAME=value") that all processes of a node's ranks have. Fixed size, no pointers: the agent
/// writes it into a page that it shares with its guard.
class ProcessMark {
 public:
  /// Empty or over-long texts leave the mark unset: nothing is marked.
  void set(const std::string& run_id, const std::string& node);
  /// No process has the entries any more, and none can come to have them before the next set().
  void clear() {
    ready_.store(false, std::memory_order_release);
    container_.store(false, std::memory_order_release);
  }
  bool is_set() const { return ready_.load(std::memory_order_acquire); }
  /// The ranks are in a container, which ends by itself when the agent has gone: the guard leaves its processes some
  /// time for that, and runs `cleanup` (empty: nothing) if it has to kill them.
  void expect_container(const std::vector<std::string>& cleanup);
  /// A folder of the ranks' on this node: the guard removes it if the agent has not.
  void expect_folder(const std::string& path);
  std::string folder() const { return folder_; }
  /// Staged files of this run: the guard removes them if the agent has not (agent/stage_store.hpp).
  void expect_stage(const std::string& folder, const std::string& run);
  std::string stage_folder() const { return stage_folder_; }
  std::string stage_run() const { return stage_run_; }
  bool expects_container() const { return container_.load(std::memory_order_acquire); }
  std::vector<std::string> cleanup() const;

  /// Is `environ`, as read from /proc, one with both entries?
  bool matches(const std::string& environ) const;

  /// All marked processes have larger numbers than this, that of the process that called set(), as they began after
  /// it. 0 where that is not certain: numbers may have begun anew.
  pid_t before() const;

 private:
  std::atomic<bool> ready_{false}, container_{false};
  pid_t set_by_ = 0;
  std::chrono::steady_clock::time_point set_at_{};  // the same clock in the guard
  char run_[256] = {};
  char node_[64] = {};
  char folder_[256] = {};
  char stage_folder_[1024] = {}, stage_run_[256] = {};
  char cleanup_[2048] = {};  // texts, each with its '\0', an empty one at the end
};

/// Descendants of process `root`, from one pass over its tree (over all of /proc where the kernel has no lists of
/// children): one that is born or orphaned during the pass may be missed, so whoever must have all looks again.
std::vector<ProcessEntry> descendants(pid_t root);

/// Marked processes, without the caller and its parent.
std::vector<ProcessEntry> marked_processes(const ProcessMark& mark);

/// Sends SIGKILL to each that still is the process that was found.
void kill_processes(const std::vector<ProcessEntry>& processes);

/// Reaps every child of the caller that has ended. True when no child is left.
bool reap_all();

}  // namespace mds::agent
