// The environment that a rank sees: torchrun's contract, NCCL's and ours. One table, for plan, filter and reference.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/job.hpp"

namespace mds::launcher {

struct RankVariable {
  std::string name;
  std::string doc;
  bool contract = true;  ///< job.env may not set it, and the user's own value is not passed on
};

const std::vector<RankVariable>& rank_variables();
/// True for the contract's variables and for everything that begins with MDS_ or TORCHELASTIC_.
bool is_contract_variable(std::string_view name);

/// This process' environment without the contract's variables.
std::map<std::string, std::string> inherited_environment();

}  // namespace mds::launcher
