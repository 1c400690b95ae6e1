// mdslaunch attach --rank R [RUN]
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/control.hpp"
#include "launcher/debugger.hpp"
#include "launcher/run.hpp"
#include "launcher/run_status.hpp"
#include "launcher/supervisor.hpp"
#include "launcher/view.hpp"

namespace mds::launcher {
namespace {

std::string own_host() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace

Result<int> rank_argument(const Arguments& arguments, const std::string& command) {
  const std::string text = arguments.value("rank");
  int rank = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rank);
  if (error == std::errc() && end == text.data() + text.size() && rank >= 0) return rank;
  if (text.empty()) return bad_input(command + " needs --rank R");
  return bad_input(command + ": --rank " + text + " is no rank");
}

int attach_command(const Arguments& arguments) {
  const auto rank = rank_argument(arguments, "attach");
  if (!rank) return report_error(rank.error());
  const std::string run = arguments.positional.empty() ? "" : arguments.positional[0];
  const auto folder = RunFolder::find(run, output_dir_of(arguments));
  if (!folder) return report_error(folder.error());
  auto client = ControlClient::connect(*folder);
  if (!client) return report_error(client.error());
  const auto status = live_status(*folder, **client);
  if (!status) return report_error(status.error());
  const auto words = attach_words(*status, *rank, own_host(), arguments.values("gdb"));
  if (!words) return report_error(words.error());
  std::string command;
  for (const std::string& word : *words) command += (command.empty() ? "" : " ") + shell_word(word);
  if (arguments.has("print")) {
    std::printf("%s\n", command.c_str());
    return kExitFinished;
  }
  std::fprintf(stderr, "%s\n", command.c_str());
  const bool here = words->front() == "gdb";
  if (const std::string obstacle = here ? attach_obstacle() : ""; !obstacle.empty()) {
    std::fprintf(stderr, "mdslaunch: %s\n", obstacle.c_str());
  }
  // A third: so that one request that is lost on the way costs nothing.
  constexpr int kHoldIntervalMs = static_cast<int>(std::chrono::milliseconds(kHoldTime).count()) / 3;
  const auto exit_code = run_in_foreground(*words, kHoldIntervalMs, [&] {
    (void)(*client)->ask({{"command", "hold"}, {"rank", *rank}});  // the run may end under the debugger
  });
  return exit_code ? *exit_code : report_error(exit_code.error());
}

}  // namespace mds::launcher
