#include "agent/process_tree.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <unordered_map>
#include <unordered_set>

#include "agent/rank_process.hpp"

namespace mds::agent {
namespace {

constexpr double kForksPerSecondMax = 200'000;  // of a whole machine; a core makes a few thousand
constexpr std::chrono::milliseconds kExecPatience{100};

UniqueFd open_proc(pid_t pid, const char* name) {
  const std::string path = "/proc/" + std::to_string(pid) + "/" + name;
  return UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

// Whole content of /proc/<pid>/<name>; empty when the process is gone or not ours to read.
std::string read_proc(pid_t pid, const char* name) {
  const UniqueFd file = open_proc(pid, name);
  std::string content;
  char chunk[4096];
  for (ssize_t n; file && (n = read(file.get(), chunk, sizeof chunk)) > 0;) content.append(chunk, n);
  return content;
}

// /proc/<pid>/stat from field 3 on; proc(5): pid (comm) state ppid ... `comm` may hold spaces and parentheses.
std::istringstream stat_fields(pid_t pid) {
  const std::string stat = read_proc(pid, "stat");
  const size_t comm_end = stat.rfind(')');
  return std::istringstream(comm_end == std::string::npos ? "" : stat.substr(comm_end + 1));
}

// Field 20 is the number of threads, 22 the start time. A process whose first thread is a zombie lives on in the
// others, which may still have children.
bool read_entry(pid_t pid, ProcessEntry& entry) {
  std::istringstream fields = stat_fields(pid);
  char state = 0;
  entry.pid = pid;
  fields >> state >> entry.parent;
  std::string skipped;
  for (int field = 5; field <= 19; ++field) fields >> skipped;
  int threads = 0;
  fields >> threads >> skipped >> entry.start_time;
  return fields && (threads > 1 || (state != 'Z' && state != 'X'));
}

std::vector<pid_t> numbers_in(const std::string& folder_path) {
  std::vector<pid_t> numbers;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(folder_path.c_str()), closedir);
  while (const dirent* entry = folder ? readdir(folder.get()) : nullptr) {
    if (const pid_t number = std::atoi(entry->d_name); number > 0) numbers.push_back(number);
  }
  return numbers;
}

std::vector<pid_t> all_pids() { return numbers_in("/proc"); }

// Of kernels with CONFIG_PROC_CHILDREN.
bool has_children_files() {
  static const bool has = access("/proc/thread-self/children", R_OK) == 0;
  return has;
}

// Each thread has its own.
std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  const std::string tasks = "/proc/" + std::to_string(parent) + "/task";
  for (const pid_t thread : numbers_in(tasks)) {
    std::istringstream list(read_proc(parent, ("task/" + std::to_string(thread) + "/children").c_str()));
    for (pid_t child = 0; list >> child;) children.push_back(child);
  }
  return children;
}

std::vector<ProcessEntry> descendants_by_scan(pid_t root) {
  std::unordered_map<pid_t, std::vector<ProcessEntry>> children;
  for (const pid_t pid : all_pids()) {
    ProcessEntry entry;
    if (read_entry(pid, entry)) children[entry.parent].push_back(entry);
  }
  std::vector<ProcessEntry> found;
  std::vector<pid_t> open{root};
  while (!open.empty()) {
    const auto list = children.extract(open.back());  // extracted: a pid reused during the pass makes no cycle
    open.pop_back();
    if (list.empty()) continue;
    for (const ProcessEntry& entry : list.mapped()) {
      found.push_back(entry);
      open.push_back(entry.pid);
    }
  }
  return found;
}

bool has_entry(const std::string& environ, const char* entry) {
  const size_t length = std::strlen(entry);
  for (size_t at = environ.find(entry); at != std::string::npos; at = environ.find(entry, at + 1)) {
    const bool begins = at == 0 || environ[at - 1] == '\0';
    const bool ends = at + length == environ.size() || environ[at + length] == '\0';
    if (begins && ends) return true;
  }
  return false;
}

/// Within execve a process has its new memory, but not yet its environment there: /proc shows an empty one. proc(5):
/// field 23 of stat is the size of the memory, 51 the end of the environment, which is also 0 where we may not know it.
bool is_within_exec(pid_t pid) {
  std::istringstream fields = stat_fields(pid);
  std::string field, memory;
  for (int number = 3; number <= 51 && fields >> field; ++number) {
    if (number == 23) memory = field;
  }
  return fields && memory != "0" && field == "0";
}

/// /proc/<pid>/environ; of a process within execve the one that it has after it, unless that takes long.
std::string environment_of(pid_t pid) {
  const auto deadline = std::chrono::steady_clock::now() + kExecPatience;
  while (true) {
    std::string environ = read_proc(pid, "environ");
    if (!environ.empty() || !open_proc(pid, "environ") || !is_within_exec(pid)) return environ;
    if (std::chrono::steady_clock::now() > deadline) return environ;
    usleep(100);
  }
}

}  // namespace

void ProcessMark::set(const std::string& run_id, const std::string& node) {
  clear();
  if (run_id.empty() || node.empty() || run_id.size() >= sizeof run_ || node.size() >= sizeof node_) return;
  std::memcpy(run_, run_id.c_str(), run_id.size() + 1);
  std::memcpy(node_, node.c_str(), node.size() + 1);
  set_by_ = getpid();
  set_at_ = std::chrono::steady_clock::now();
  ready_.store(true, std::memory_order_release);
}

void ProcessMark::expect_folder(const std::string& path) {
  if (path.size() < sizeof folder_) std::memcpy(folder_, path.c_str(), path.size() + 1);
}

void ProcessMark::expect_stage(const std::string& folder, const std::string& run) {
  if (folder.size() >= sizeof stage_folder_ || run.size() >= sizeof stage_run_) return;
  std::memcpy(stage_folder_, folder.c_str(), folder.size() + 1);
  std::memcpy(stage_run_, run.c_str(), run.size() + 1);
}

void ProcessMark::expect_container(const std::vector<std::string>& cleanup) {
  size_t at = 0;
  for (const std::string& text : cleanup) {
    if (at + text.size() + 2 > sizeof cleanup_) {
      at = 0;  // half a command would be another one
      break;
    }
    std::memcpy(cleanup_ + at, text.c_str(), text.size() + 1);
    at += text.size() + 1;
  }
  cleanup_[at] = '\0';
  container_.store(true, std::memory_order_release);
}

std::vector<std::string> ProcessMark::cleanup() const {
  std::vector<std::string> texts;
  for (const char* at = cleanup_; expects_container() && *at; at += texts.back().size() + 1) texts.emplace_back(at);
  return texts;
}

bool ProcessMark::matches(const std::string& environ) const {
  return is_set() && has_entry(environ, run_) && has_entry(environ, node_);
}

/// The kernel counts upwards until it begins anew. It has not if its last number is above ours, unless it has been all
/// the way round, which takes a while.
pid_t ProcessMark::before() const {
  std::ifstream load("/proc/loadavg"), most("/proc/sys/kernel/pid_max");
  std::string skipped;
  pid_t last = 0;
  double numbers = 0;
  if (!(load >> skipped >> skipped >> skipped >> skipped >> last) || !(most >> numbers) || last < set_by_) return 0;
  const std::chrono::duration<double> since = std::chrono::steady_clock::now() - set_at_;
  return since.count() < numbers / kForksPerSecondMax ? set_by_ : 0;
}

std::vector<ProcessEntry> descendants(pid_t root) {
  if (!has_children_files()) return descendants_by_scan(root);
  std::vector<ProcessEntry> found;
  std::unordered_set<pid_t> seen{root};  // a pid reused during the pass makes no cycle
  std::vector<pid_t> open{root};
  while (!open.empty()) {
    const pid_t parent = open.back();
    open.pop_back();
    for (const pid_t child : children_of(parent)) {
      ProcessEntry entry;
      if (!seen.insert(child).second || !read_entry(child, entry)) continue;
      found.push_back(entry);
      open.push_back(child);
    }
  }
  return found;
}

std::vector<ProcessEntry> marked_processes(const ProcessMark& mark) {
  std::vector<ProcessEntry> found;
  if (!mark.is_set()) return found;
  const pid_t self = getpid(), parent = getppid(), before = mark.before();
  for (const pid_t pid : all_pids()) {
    if (pid == self || pid == parent || pid <= before) continue;
    ProcessEntry entry;
    if (mark.matches(environment_of(pid)) && read_entry(pid, entry)) found.push_back(entry);
  }
  return found;
}

void kill_processes(const std::vector<ProcessEntry>& processes) {
  for (const ProcessEntry& process : processes) {
    const UniqueFd pidfd = open_pidfd(process.pid);
    ProcessEntry now;
    // The pidfd pins the process: if it is still the one that was found, it is the one that the signal reaches.
    if (pidfd && read_entry(process.pid, now) && now.start_time == process.start_time) {
      send_signal(pidfd.get(), SIGKILL);
    }
  }
}

bool reap_all() {
  pid_t pid = 0;
  while ((pid = waitpid(-1, nullptr, WNOHANG | __WALL)) > 0) {
  }
  return pid < 0 && errno == ECHILD;
}

}  // namespace mds::agent
