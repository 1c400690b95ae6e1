// libFuzzer: no input may crash the parser of job files, and what it accepts must survive the resolved file. Built with
// clang and -DMDS_FUZZ=ON; docs/examples are a good first corpus:  job_fuzz corpus docs/examples
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "launcher/job_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mds::launcher;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const JobFileResult result = parse_job(text, "job.toml", {});
  if (result.job.has_value() != result.problems.empty()) std::abort();
  for (const JobProblem& problem : result.problems) {
    if (format(problem).empty()) std::abort();
  }
  if (!result.job) return 0;
  const JobFileResult again = parse_job(result.job->resolved_toml, "job.toml", {});
  if (!again.job || again.job->resolved_toml != result.job->resolved_toml) std::abort();
  return 0;
}
