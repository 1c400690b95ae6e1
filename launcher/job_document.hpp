// A job file as a tree of values that know where they stand. Knows TOML, and nothing of what the keys mean.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "launcher/job_file.hpp"

namespace mds::launcher {

struct Place {
  bool from_set = false;  ///< came with --set: no line
  int line = 0;           ///< 1-based, 0 unknown
  int column = 0;
};

struct DocumentMember;
struct DocumentNode;
using DocumentTable = std::vector<DocumentMember>;  ///< names are unique
using DocumentList = std::vector<DocumentNode>;
struct OtherValue {};  ///< a date or time: no key takes one

struct DocumentNode {
  std::variant<OtherValue, bool, int64_t, double, std::string, DocumentList, DocumentTable> value;
  Place place;
  std::string raw;  ///< from --set: the text behind '='

  const DocumentTable* table() const { return std::get_if<DocumentTable>(&value); }
  const DocumentList* list() const { return std::get_if<DocumentList>(&value); }
  const std::string* text() const { return std::get_if<std::string>(&value); }
};

struct DocumentMember {
  std::string name;
  Place place;  ///< of the name
  DocumentNode node;
};

/// "a string", "an integer", ...
const char* kind_of(const DocumentNode& node);

const DocumentMember* find_member(const DocumentTable& table, const std::string& name);

inline constexpr size_t kJobFileBytesMax = 1u << 20;

/// Parses `text`; on failure leaves `table` empty and returns the parser's first complaint.
std::vector<JobProblem> parse_document(const std::string& text, const std::string& file, DocumentTable& table);

/// Applies one "section.key=value" (or "section.key.name=value" for a key that is a table).
std::vector<JobProblem> apply_override(const std::string& text, DocumentTable& table);

}  // namespace mds::launcher
