// Host lists as Slurm and pdsh write them: "login,gpu[001-004,7],rack[1-2]-n[0-9]". Names never contain white space.
#pragma once

#include <string>
#include <vector>

#include "topology/result.hpp"

namespace mds::slurm {

/// More would be a mistake or an attack: [0-999999999].
inline constexpr size_t kHostsMax = 65536;

/// Every host, in the order of the text, repetitions included. Numbers keep the width of their range's first number
/// ("n[08-10]" is n08, n09, n10). Several brackets in a word multiply, the last one runs fastest, as in `scontrol show
/// hostnames`. An empty text is no host. Errors: bad_input saying what and where.
Result<std::vector<std::string>> expand_hosts(const std::string& text);

/// The shortest text of one bracket a word that expand_hosts() turns into `hosts` again, order and repetitions kept:
/// neighbours that differ only in their last number are folded ("n1", "n2", "n4" to "n[1-2,4]").
std::string fold_hosts(const std::vector<std::string>& hosts);

}  // namespace mds::slurm
