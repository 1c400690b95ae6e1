// Folding: the logs of many ranks as one, where equal lines of several ranks become one line with the set of ranks.
//
// Logs carry no times, so only the order within a rank is certain. A line waits for the ranks that will say it soon (it
// is among their next kLookAhead lines); lines that nobody else will say go first. Pure, memory is bounded.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

namespace mds::launcher {

struct FoldedLine {
  std::vector<int> ranks;  ///< ascending
  std::string text;
  bool operator==(const FoldedLine&) const = default;
};

class LogFold {
 public:
  static constexpr size_t kLookAhead = 64;

  explicit LogFold(const std::vector<int>& ranks);

  /// Room for a line of the `index`-th rank: while there is, more should be given before next() is asked.
  bool wants(size_t index) const { return sources_[index].lines.size() < kLookAhead; }
  void add(size_t index, std::string line);

  /// Removes and gives the next line; false when no line is there.
  bool next(FoldedLine& out);

 private:
  struct Source {
    int rank = 0;
    std::deque<std::string> lines;
    std::unordered_map<std::string, int> ahead;  ///< how often each of `lines` is in it
  };
  bool is_awaited(const std::string& text) const;
  std::vector<Source> sources_;
};

}  // namespace mds::launcher
