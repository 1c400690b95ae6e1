// Host lists with ranges, as Slurm, pdsh and topograph write them: "gpu[1-3,07]r[0-1],login".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topology/result.hpp"

namespace mds::topology {

constexpr size_t kHostsMax = 65'536;  ///< names that one list may expand to; Slurm's own limit of nodes

/// "a[1-3,07]b[0-1],c" as names, in the order written; the last bracket varies fastest. A range is as wide as its lower
/// end is written ("[08-10]": 08, 09, 10). Brackets may hold names with brackets of their own ("n[1-2,x[3-4]]"). Blanks
/// around commas are skipped, repeated names are kept. "" gives none.
/// Errors: bad_input naming the part ("[3-1]: ends before it begins"), and more than `hosts_max` names.
Result<std::vector<std::string>> expand_hosts(std::string_view list, size_t hosts_max = kHostsMax);

/// The same for many lists of one file, which together may expand to `names_left` names; takes from that.
Result<std::vector<std::string>> expand_hosts_within(std::string_view list, size_t& names_left);

/// The inverse, as short as one bracket a name can make it: names in natural order, the last number of each folded:
/// "gpu[1-3,7],login". Repeated names are named once.
std::string fold_hosts(std::vector<std::string> hosts);

}  // namespace mds::topology
