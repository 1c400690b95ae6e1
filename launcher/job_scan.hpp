// What is refused before the TOML parser sees it, because the parser could not bear it.
#pragma once

#include <optional>
#include <string>

namespace mds::launcher {

struct ScanProblem {
  int line = 0;    ///< 1-based
  int column = 0;  ///< 1-based, in characters
  std::string message;
};

/// Walks through strings and comments of a TOML text and finds outside of them
/// - characters that are not ASCII: TOML has no use for them there, and toml++ 3.3 classifies some by a switch without
///   a case for them (undefined behaviour);
/// - more dots than any real file has: each may be a table in a table, and toml++ builds and destroys those
/// recursively. In a text that is not TOML it may stop early: the parser stops at the same place.
std::optional<ScanProblem> scan_toml(const std::string& text);

}  // namespace mds::launcher
