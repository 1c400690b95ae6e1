// mdslaunch status [RUN]
#include <cstdio>
#include <nlohmann/json.hpp>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/run.hpp"
#include "launcher/run_status.hpp"

namespace mds::launcher {

int status_command(const Arguments& arguments) {
  const std::string run = arguments.positional.empty() ? "" : arguments.positional[0];
  const auto folder = RunFolder::find(run, output_dir_of(arguments));
  if (!folder) return report_error(folder.error());
  std::string problem;
  const auto status = status_of_run(*folder, problem);
  if (!status) return report_error(status.error());
  if (!problem.empty()) std::fprintf(stderr, "mdslaunch: %s\n", problem.c_str());
  if (arguments.has("json")) {
    std::printf("%s\n", status->dump(1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return kExitFinished;
  }
  for (const std::string& line : status_lines(*status)) std::printf("%s\n", line.c_str());
  return kExitFinished;
}

}  // namespace mds::launcher
