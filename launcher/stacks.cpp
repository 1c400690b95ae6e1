#include "launcher/stacks.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <vector>

#include "launcher/rank_set.hpp"

namespace mds::launcher {

using nlohmann::json;

namespace {

struct Group {
  std::string name;                 ///< of the thread, or of its process where they differ: "python3 / worker"
  std::vector<std::string> frames;  ///< innermost first; or one line that says why there are none
  std::set<int> ranks;
  size_t threads = 0;
};

std::string text(const json& object, const char* name) {
  const auto at = object.is_object() ? object.find(name) : object.end();
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}

const json& list(const json& object, const char* name) {
  static const json none = json::array();
  const auto at = object.is_object() ? object.find(name) : object.end();
  return at != object.end() && at->is_array() ? *at : none;
}

class Groups {
 public:
  void add(int rank, const std::string& name, std::vector<std::string> frames) {
    Group& group = groups_[{name, frames}];
    group.name = name;
    group.frames = std::move(frames);
    group.ranks.insert(rank);
    ++group.threads;
  }

  void add_process(int rank, const json& process) {
    const std::string name = text(process, "name"), error = text(process, "error");
    if (!error.empty()) return add(rank, name, {"not readable: " + error});
    for (const json& thread : list(process, "threads")) {
      const std::string own = text(thread, "name");
      std::vector<std::string> frames;
      for (const json& frame : list(thread, "frames")) {
        if (frame.is_string()) frames.push_back(frame);
      }
      if (frames.empty()) frames.push_back("not readable: " + text(thread, "error"));
      add(rank, own == name ? name : name + " / " + own, std::move(frames));
    }
  }

  std::vector<Group> sorted() const {
    std::vector<Group> out;
    for (const auto& [key, group] : groups_) out.push_back(group);
    std::stable_sort(out.begin(), out.end(), [](const Group& a, const Group& b) {
      return std::tuple(b.ranks.size(), *a.ranks.begin()) < std::tuple(a.ranks.size(), *b.ranks.begin());
    });
    return out;
  }

 private:
  std::map<std::pair<std::string, std::vector<std::string>>, Group> groups_;
};

}  // namespace

std::string merged_stacks(const json& ranks) {
  Groups groups;
  if (!ranks.is_array()) return "";
  for (const json& rank : ranks) {
    const auto number = rank.is_object() ? rank.find("rank") : rank.end();
    if (number == rank.end() || !number->is_number_integer()) continue;
    for (const json& process : list(rank, "processes")) groups.add_process(number->get<int>(), process);
  }
  std::string out;
  for (const Group& group : groups.sorted()) {
    const std::vector<int> numbers(group.ranks.begin(), group.ranks.end());
    out += (out.empty() ? "" : "\n") + std::string(numbers.size() == 1 ? "rank " : "ranks ") + number_ranges(numbers) +
           ": " + group.name;
    if (group.threads > numbers.size()) out += " (" + std::to_string(group.threads) + " threads)";
    out += "\n";
    for (size_t i = 0; i < group.frames.size(); ++i) out += "  #" + std::to_string(i) + " " + group.frames[i] + "\n";
  }
  return out;
}

}  // namespace mds::launcher
