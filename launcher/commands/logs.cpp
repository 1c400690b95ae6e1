// mdslaunch logs [RUN]
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "agent/rank_process.hpp"
#include "agent/unique_fd.hpp"
#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/event_log.hpp"
#include "launcher/log_fold.hpp"
#include "launcher/rank_set.hpp"
#include "launcher/run.hpp"
#include "launcher/run_folder.hpp"

namespace mds::launcher {
namespace {

constexpr int kGatherMs = 100;  // ranks that say the same say it within this time
constexpr int kAliveMs = 1000;  // between two looks whether the run goes on

/// One rank's log: whole lines, as far as they are written.
class LogReader {
 public:
  LogReader(std::string path) : path_(std::move(path)) {}

  /// False when there is no further whole line now.
  bool next(std::string& line) {
    size_t end = 0;
    while ((end = text_.find('\n', begin_)) == std::string::npos) {
      if (!read_more()) return false;
    }
    line = text_.substr(begin_, end - begin_);
    begin_ = end + 1;
    return true;
  }

  /// What stands behind the last line's end, when nobody writes any more.
  std::string rest() { return text_.substr(std::exchange(begin_, text_.size())); }

 private:
  bool read_more() {
    if (!fd_) fd_ = agent::UniqueFd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    text_.erase(0, std::exchange(begin_, 0));
    char chunk[32 << 10];
    const ssize_t n = fd_ ? read(fd_.get(), chunk, sizeof chunk) : 0;
    if (n > 0) text_.append(chunk, static_cast<size_t>(n));
    return n > 0;
  }

  std::string path_;
  agent::UniqueFd fd_;
  std::string text_;
  size_t begin_ = 0;
};

std::string log_path(const RunFolder& folder, int rank) {
  char name[40];
  std::snprintf(name, sizeof name, "logs/rank-%05d.log", rank);
  return folder.file(name);
}

class Logs {
 public:
  Logs(const RunFolder& folder, const std::vector<int>& ranks) : fold_(ranks), prefixed_(ranks.size() > 1) {
    for (const int rank : ranks) readers_.emplace_back(log_path(folder, rank));
  }

  /// Everything that is there now; false when nobody reads us any more.
  bool print(bool with_rests) {
    for (bool any = true; any;) {
      any = fill();
      FoldedLine line;
      // One line, then more is read: what is looked at ahead stays as much as there is.
      if (fold_.next(line)) {
        any = true;
        put(line);
      }
    }
    for (size_t i = 0; with_rests && i < readers_.size(); ++i) {
      if (std::string rest = readers_[i].rest(); !rest.empty()) fold_.add(i, std::move(rest));
    }
    for (FoldedLine line; with_rests && fold_.next(line);) put(line);
    return std::fflush(stdout) == 0;
  }

 private:
  bool fill() {
    bool any = false;
    for (size_t i = 0; i < readers_.size(); ++i) {
      for (std::string line; fold_.wants(i) && readers_[i].next(line); any = true) fold_.add(i, std::move(line));
    }
    return any;
  }

  void put(const FoldedLine& line) const {
    if (prefixed_) std::printf("[%s] ", number_ranges(line.ranks).c_str());
    std::fwrite(line.text.data(), 1, line.text.size(), stdout);
    std::putchar('\n');
  }

  LogFold fold_;
  bool prefixed_;
  std::vector<LogReader> readers_;
};

int follow(Logs& logs, const RunFolder& folder) {
  const agent::UniqueFd changes(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  // Files of ranks on other nodes of a shared file system change without a word: hence the looks in between.
  inotify_add_watch(changes.get(), folder.file("logs").c_str(), IN_MODIFY | IN_CREATE);
  const std::string events = folder.file("events.jsonl");
  for (bool live = true; live;) {
    live = is_being_written(events);
    if (!logs.print(/*with_rests=*/!live)) return kExitFailed;
    if (!live) break;
    pollfd polled{changes.get(), POLLIN, 0};
    if (poll(&polled, 1, kAliveMs) > 0) poll(nullptr, 0, kGatherMs);
    char ignored[16 << 10];
    while (read(changes.get(), ignored, sizeof ignored) > 0) {
    }
  }
  return kExitFinished;
}

Result<int> number(const std::string& option, const std::string& text, size_t limit) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= 0 && value < static_cast<int>(limit)) {
    return value;
  }
  return bad_input("logs: --" + option + " " + text + ": a number from 0 to " + std::to_string(limit - 1));
}

Result<std::vector<int>> chosen_ranks(const Arguments& arguments, const SupervisorConfig& config) {
  std::vector<int> ranks;
  const std::vector<int>& node_of_rank = config.node_of_rank;
  for (const std::string& text : arguments.values("rank")) {
    const auto rank = number("rank", text, node_of_rank.size());
    if (!rank) return rank.error();
    ranks.push_back(*rank);
  }
  for (const std::string& text : arguments.values("node")) {
    const auto node = number("node", text, static_cast<size_t>(config.nodes));
    if (!node) return node.error();
    for (size_t r = 0; r < node_of_rank.size(); ++r) {
      if (node_of_rank[r] == *node) ranks.push_back(static_cast<int>(r));
    }
  }
  if (!arguments.has("rank") && !arguments.has("node")) {
    for (size_t r = 0; r < node_of_rank.size(); ++r) ranks.push_back(static_cast<int>(r));
  }
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

}  // namespace

int logs_command(const Arguments& arguments) {
  const std::string run = arguments.positional.empty() ? "" : arguments.positional[0];
  const auto folder = RunFolder::find(run, output_dir_of(arguments));
  if (!folder) return report_error(folder.error());
  const auto log = read_event_log(folder->file("events.jsonl"));
  if (!log) return report_error(log.error());
  const auto ranks = chosen_ranks(arguments, log->resumptions.empty() ? log->config : log->resumptions.back().config);
  if (!ranks) return report_error(ranks.error());
  agent::raise_descriptor_limit();  // one for each rank
  Logs logs(*folder, *ranks);
  if (arguments.has("follow")) return follow(logs, *folder);
  return logs.print(/*with_rests=*/true) ? kExitFinished : kExitFailed;
}

}  // namespace mds::launcher
