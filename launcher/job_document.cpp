#include "launcher/job_document.hpp"

#include <algorithm>

#include "launcher/job_scan.hpp"

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
// toml++ 3.3 asserts some of what a broken file may hold, then checks it: debug builds want the check, too.
#define TOML_ASSERT(condition) static_assert(true)
#include <toml++/toml.h>

namespace mds::launcher {
namespace {

Place place_of(const toml::source_region& source) {
  return {false, static_cast<int>(source.begin.line), static_cast<int>(source.begin.column)};
}

DocumentNode convert(const toml::node& node);

DocumentTable convert_table(const toml::table& table) {
  DocumentTable out;
  for (auto&& [key, node] : table) out.push_back({std::string(key.str()), place_of(key.source()), convert(node)});
  return out;
}

DocumentNode convert(const toml::node& node) {
  DocumentNode out;
  out.place = place_of(node.source());
  if (const auto* boolean = node.as_boolean()) {
    out.value = boolean->get();
  } else if (const auto* integer = node.as_integer()) {
    out.value = integer->get();
  } else if (const auto* number = node.as_floating_point()) {
    out.value = number->get();
  } else if (const auto* text = node.as_string()) {
    out.value = text->get();
  } else if (const auto* table = node.as_table()) {
    out.value = convert_table(*table);
  } else if (const auto* array = node.as_array()) {
    DocumentList list;
    for (const toml::node& element : *array) list.push_back(convert(element));
    out.value = std::move(list);
  }
  return out;
}

// The value of an override: TOML if it reads as such, otherwise the words as they stand.
DocumentNode override_value(const std::string& raw) {
  DocumentNode out;
  out.value = raw;
  const std::string text = "value = " + raw;
  if (raw.size() <= kJobFileBytesMax && raw.find('\n') == std::string::npos && !scan_toml(text)) {
    const toml::parse_result parsed = toml::parse(text, std::string("--set"));
    if (parsed && parsed.table().size() == 1) {
      if (const toml::node* node = parsed.table().get("value")) out = convert(*node);
    }
  }
  out.raw = raw;
  return out;
}

void mark_from_set(DocumentNode& node) {
  node.place = {true, 0, 0};
  if (auto* list = std::get_if<DocumentList>(&node.value)) {
    for (DocumentNode& element : *list) mark_from_set(element);
  } else if (auto* table = std::get_if<DocumentTable>(&node.value)) {
    for (DocumentMember& member : *table) {
      member.place = {true, 0, 0};
      mark_from_set(member.node);
    }
  }
}

std::vector<std::string> split_key(const std::string& key) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (parts.size() < 2) {  // a third part is a name of the user's (job.env.NAME) and may have dots itself
    const size_t dot = key.find('.', begin);
    if (dot == std::string::npos) break;
    parts.push_back(key.substr(begin, dot - begin));
    begin = dot + 1;
  }
  parts.push_back(key.substr(begin));
  return parts;
}

// The member `name`, made if it is not there.
DocumentMember& member_of(DocumentTable& table, const std::string& name) {
  for (DocumentMember& member : table) {
    if (member.name == name) return member;
  }
  table.push_back({name, {true, 0, 0}, {}});
  return table.back();
}

}  // namespace

const char* kind_of(const DocumentNode& node) {
  constexpr const char* kNames[] = {"a date or time", "a boolean", "an integer", "a number",
                                    "a string",       "a list",    "a table"};
  return kNames[node.value.index()];
}

const DocumentMember* find_member(const DocumentTable& table, const std::string& name) {
  const auto found = std::find_if(table.begin(), table.end(), [&](const auto& member) { return member.name == name; });
  return found == table.end() ? nullptr : &*found;
}

std::vector<JobProblem> parse_document(const std::string& text, const std::string& file, DocumentTable& table) {
  table.clear();
  if (text.size() > kJobFileBytesMax) return {{file, 0, 0, "too large for a job file (1 MiB at most)"}};
  if (const auto refused = scan_toml(text)) {
    return {{file, refused->line, refused->column, "not valid TOML: " + refused->message}};
  }
  const toml::parse_result parsed = toml::parse(text, file);
  if (!parsed) {
    const Place place = place_of(parsed.error().source());
    return {{file, place.line, place.column, "not valid TOML: " + std::string(parsed.error().description())}};
  }
  table = convert_table(parsed.table());
  return {};
}

std::vector<JobProblem> apply_override(const std::string& text, DocumentTable& table) {
  const size_t equals = text.find('=');
  const std::vector<std::string> parts = split_key(text.substr(0, std::min(equals, text.size())));
  const bool complete = std::none_of(parts.begin(), parts.end(), [](const auto& part) { return part.empty(); });
  if (equals == std::string::npos || parts.size() < 2 || !complete) {
    return {{"--set", 0, 0, "'" + text + "' is not section.key=value, e.g. training.steps=100"}};
  }
  DocumentNode value = override_value(text.substr(equals + 1));
  mark_from_set(value);

  DocumentTable* inner = &table;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    DocumentMember& member = member_of(*inner, parts[i]);
    if (!member.node.table()) member.node = {DocumentTable{}, member.place, ""};
    inner = std::get_if<DocumentTable>(&member.node.value);
  }
  DocumentMember& target = member_of(*inner, parts.back());
  target.place = {true, 0, 0};
  target.node = std::move(value);
  return {};
}

}  // namespace mds::launcher
