// The nearest valid name to a misspelt one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mds::launcher {

/// The candidate with the fewest typing mistakes (insert, delete, replace, swap of neighbours) from `word`, or "" if
/// none is within a third of its length. Case and '-' against '_' do not count; an abbreviation counts as right.
std::string nearest_name(std::string_view word, const std::vector<std::string>& candidates);

/// "; did you mean 'x'?" or "".
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

/// "a, b, c".
std::string join_names(const std::vector<std::string>& names, std::string_view separator = ", ");

}  // namespace mds::launcher
