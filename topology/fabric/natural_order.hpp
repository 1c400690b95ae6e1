// Natural order of names: numbers inside are compared as numbers, so that n9 comes before n10.
#pragma once

#include <string_view>

namespace mds::topology {

/// A strict total order: names that differ only in leading zeros ("n1", "n01") are told apart by their bytes.
bool natural_less(std::string_view a, std::string_view b);

}  // namespace mds::topology
