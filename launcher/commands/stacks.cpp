// mdslaunch stacks [RUN]
#include <cstdio>
#include <nlohmann/json.hpp>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/control.hpp"
#include "launcher/rank_set.hpp"
#include "launcher/run.hpp"

namespace mds::launcher {

using nlohmann::json;

int stacks_command(const Arguments& arguments) {
  const std::string run = arguments.positional.empty() ? "" : arguments.positional[0];
  const auto folder = RunFolder::find(run, output_dir_of(arguments));
  if (!folder) return report_error(folder.error());
  auto client = ControlClient::connect(*folder);
  if (!client) return report_error(client.error());
  const auto reply = (*client)->ask({{"command", "stacks"}});
  if (!reply) return report_error(reply.error());
  std::fputs(reply->value("text", "").c_str(), stdout);
  std::fflush(stdout);
  if (const std::string file = reply->value("file", ""); !file.empty()) {
    std::fprintf(stderr, "also in %s\n", file.c_str());
  }
  const auto missing = reply->value("missing", std::vector<int>{});
  if (missing.empty()) return kExitFinished;
  std::fprintf(stderr, "mdslaunch: no answer from node %s\n", number_ranges(missing).c_str());
  return kExitFailed;
}

}  // namespace mds::launcher
