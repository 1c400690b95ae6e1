// The cost model's answers in words.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "topology/cost/search.hpp"
#include "trainer/config.hpp"

namespace mds::launcher {

/// "101.9 GiB", "13.0 MiB".
std::string readable_bytes(int64_t bytes);
/// "3.49 s", "12.1 ms".
std::string readable_seconds(double seconds);

/// "tensor 2, pipeline 4, data 8, micro batch 1"; with "sequence parallel", "context" and chunks where they are used.
std::string layout_text(const topology::cost::Work& work);

/// The keys of job.toml that turn `from` into `to`, as --set takes them; parallel.data follows by itself.
std::vector<std::string> changed_keys(const topology::cost::Work& from, const topology::cost::Work& to);

/// Why `work` does not fit and what would: the smallest sets of changes, first those that this version can run.
std::string does_not_fit_text(const trainer::TrainerConfig& config, const topology::cost::Work& work,
                              const topology::cost::Machines& machines);

/// The parts of a step by name, in the order of the struct, with their seconds.
struct NamedSeconds {
  const char* key;   ///< in JSON
  const char* name;  ///< for people
  double seconds;
};
std::vector<NamedSeconds> step_parts(const topology::cost::StepTime& step);
/// The largest part.
NamedSeconds dominant_part(const topology::cost::StepTime& step);

}  // namespace mds::launcher
