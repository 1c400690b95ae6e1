#include "launcher/surroundings.hpp"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <iterator>

namespace mds::launcher {

Result<Surroundings> read_surroundings(const std::map<std::string, std::string>& environment) {
  Surroundings out;
  auto allocation = slurm::read_allocation(environment);
  if (!allocation) return allocation.error();
  out.allocation = *std::move(allocation);
  if (out.allocation && out.allocation->in_step) out.place = out.allocation->task;
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    const auto at = environment.find(name);
    if (at == environment.end()) continue;
    const std::string& text = at->second;
    std::from_chars(text.data(), text.data() + text.size(), out.place);
    break;
  }
  return out;
}

bool is_of_mpirun(std::string_view variable) {
  if (variable.starts_with("OMPI_MCA_")) {  // but for these it is the user's own tuning
    const auto begins = [&](const char* word) { return variable.substr(9).starts_with(word); };
    return begins("orte") || begins("ess") || begins("pmix") || begins("schizo") || begins("initial_wdir");
  }
  constexpr const char* kPrefixes[] = {"OMPI_", "ORTE_", "PRTE_", "PMIX_", "PMI_", "HYDI_", "HYDRA_", "MPI_LOCAL"};
  return std::any_of(std::begin(kPrefixes), std::end(kPrefixes),
                     [&](const char* prefix) { return variable.starts_with(prefix); });
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
