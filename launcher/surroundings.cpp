#include "launcher/surroundings.hpp"

#include <unistd.h>

namespace mds::launcher {

Result<Surroundings> read_surroundings(const std::map<std::string, std::string>& environment) {
  Surroundings out;
  auto allocation = slurm::read_allocation(environment);
  if (!allocation) return allocation.error();
  out.allocation = *std::move(allocation);
  return out;
}

std::map<std::string, std::string> environment_map() {
  std::map<std::string, std::string> out;
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string text(*entry);
    const size_t equals = text.find('=');
    if (equals != std::string::npos && equals != 0) out.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return out;
}

}  // namespace mds::launcher
