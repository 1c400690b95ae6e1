#include "launcher/log_fold.hpp"

#include <algorithm>
#include <utility>

namespace mds::launcher {

LogFold::LogFold(const std::vector<int>& ranks) {
  for (const int rank : ranks) sources_.push_back({rank, {}, {}});
}

void LogFold::add(size_t index, std::string line) {
  Source& source = sources_[index];
  ++source.ahead[line];
  source.lines.push_back(std::move(line));
}

/// Will a rank that says something else now say this soon?
bool LogFold::is_awaited(const std::string& text) const {
  return std::any_of(sources_.begin(), sources_.end(), [&](const Source& source) {
    return !source.lines.empty() && source.lines.front() != text && source.ahead.count(text) > 0;
  });
}

bool LogFold::next(FoldedLine& out) {
  // The ranks that say a line now, in the order of their first rank.
  std::vector<std::pair<const std::string*, size_t>> lines;
  std::unordered_map<std::string, size_t> place;
  for (const Source& source : sources_) {
    if (source.lines.empty()) continue;
    const auto [at, is_new] = place.try_emplace(source.lines.front(), lines.size());
    if (is_new) lines.emplace_back(&source.lines.front(), 0);
    ++lines[at->second].second;
  }
  if (lines.empty()) return false;
  auto chosen = std::find_if(lines.begin(), lines.end(), [&](const auto& line) { return !is_awaited(*line.first); });
  if (chosen == lines.end()) {  // each waits for another: the ranks disagree on the order, the majority has it
    chosen = std::max_element(lines.begin(), lines.end(), [](auto& a, auto& b) { return a.second < b.second; });
  }
  out.text = *chosen->first;
  out.ranks.clear();
  for (Source& source : sources_) {
    if (source.lines.empty() || source.lines.front() != out.text) continue;
    out.ranks.push_back(source.rank);
    if (--source.ahead[out.text] == 0) source.ahead.erase(out.text);
    source.lines.pop_front();
  }
  return true;
}

}  // namespace mds::launcher
