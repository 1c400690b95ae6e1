// mdslaunch check JOB.toml
#include <cstdio>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"

namespace mds::launcher {

int check_command(const Arguments& arguments) {
  int exit_code = 0;
  const std::optional<Job> job = load_job(arguments, exit_code);
  if (job) std::printf("ok\n");
  return exit_code;
}

}  // namespace mds::launcher
