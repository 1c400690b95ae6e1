// The resolved job file.
#pragma once

#include <string>

#include "launcher/job.hpp"

namespace mds::launcher {

/// Every key that the job has, with its final value. Parsing it gives the same Job again.
std::string resolved_toml(const Job& job);

}  // namespace mds::launcher
