#include "agent/stage_list.hpp"

#include <nlohmann/json.hpp>

#include "agent/stage_store.hpp"
#include "container/sha256.hpp"

namespace mds::agent {

using nlohmann::json;

std::string to_text(const std::vector<StageEntry>& entries) {
  json list = json::array();
  for (const StageEntry& entry : entries) {
    switch (entry.kind) {
      case StageEntry::Kind::file: list.push_back({"f", entry.path, entry.sha256, entry.bytes}); break;
      case StageEntry::Kind::image: list.push_back({"i", entry.path, entry.sha256, entry.bytes}); break;
      case StageEntry::Kind::link: list.push_back({"l", entry.path, entry.target}); break;
      case StageEntry::Kind::folder: list.push_back({"d", entry.path}); break;
    }
  }
  return list.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<std::vector<StageEntry>> stage_list_from_text(const std::string& text) {
  const Error wrong = corrupt("the list of staged files is malformed");
  const json list = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array()) return wrong;
  const auto is_text = [](const json& item, size_t index) { return item.size() > index && item[index].is_string(); };
  std::vector<StageEntry> entries;
  for (const json& item : list) {
    if (!item.is_array() || !is_text(item, 0) || !is_text(item, 1)) return wrong;
    StageEntry entry;
    entry.path = item[1];
    if (!is_stage_path(entry.path)) return wrong;
    const bool has_bytes = item[0] == "f" || item[0] == "i";
    if (has_bytes && item.size() == 4 && is_text(item, 2) && item[3].is_number_unsigned()) {
      if (item[0] == "i") entry.kind = StageEntry::Kind::image;
      entry.sha256 = item[2];
      entry.bytes = item[3];
      if (!container::is_sha256(entry.sha256)) return wrong;
    } else if (item[0] == "l" && item.size() == 3 && is_text(item, 2)) {
      entry.kind = StageEntry::Kind::link;
      entry.target = item[2];
    } else if (item[0] == "d" && item.size() == 2) {
      entry.kind = StageEntry::Kind::folder;
    } else {
      return wrong;
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace mds::agent
