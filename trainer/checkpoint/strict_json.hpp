// JSON from files that may be hostile.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "topology/result.hpp"

namespace mds::trainer {

/// Parses a document; besides syntax errors, duplicate keys and nesting beyond `depth_max` are refused, which
/// nlohmann::json would accept. Errors: corrupt, "<what> ...".
Result<nlohmann::json> parse_strictly(const std::string& what, std::span<const std::byte> bytes, int depth_max);

/// A string from a file as it may be shown: quoted, escaped and of bounded length.
std::string quoted(const std::string& text);

}  // namespace mds::trainer
