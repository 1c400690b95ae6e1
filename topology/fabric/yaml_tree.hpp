// A YAML document as a tree with line numbers, read with libyaml under limits that a hostile file cannot break.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "topology/result.hpp"

namespace mds::topology {

struct YamlNode {
  YamlNode() {}  // written out, as clang 14 cannot work out the default one of a type that holds pairs of itself
  enum class Kind { scalar, list, map };
  Kind kind = Kind::scalar;
  int line = 0;                                          ///< 1-based
  std::string scalar;                                    ///< kind scalar; "null", "~" and nothing are all ""
  std::vector<YamlNode> items;                           ///< kind list
  std::vector<std::pair<std::string, YamlNode>> fields;  ///< kind map, in the order written, keys unique

  /// The value of a key of a map; nullptr where there is none or this is no map.
  const YamlNode* find(std::string_view key) const;
  bool is_null() const { return kind == Kind::scalar && scalar.empty(); }
};

/// The first document of the text. Keys must be scalars and unique; aliases, tags of programs and everything beyond
/// 64 MiB, 64 levels and 1,000,000 nodes are refused. Errors: bad_input with the line.
Result<YamlNode> read_yaml(std::string_view text);

/// A list of names: a YAML list or one scalar, each expanded by expand_hosts_within. Null: none. Errors: bad_input with
/// line.
Result<std::vector<std::string>> yaml_hosts(const YamlNode& node, size_t& names_left);

/// "line 12: what"
Error at_line(int line, const std::string& what);

}  // namespace mds::topology
