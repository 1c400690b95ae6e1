// Many ranks or nodes in few characters: "0-2,5".
#pragma once

#include <string>
#include <vector>

namespace mds::launcher {

/// "0-2,5" for {5, 0, 1, 2, 2}.
std::string number_ranges(std::vector<int> numbers);

}  // namespace mds::launcher
