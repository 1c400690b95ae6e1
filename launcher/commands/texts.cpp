// Commands that print what the tables say: help, version, completion, reference.
#include <cstdio>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/job_nearest.hpp"
#include "launcher/run.hpp"

namespace mds::launcher {
namespace {

int print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return kExitFinished;
}

}  // namespace

int help_command(const Arguments& arguments) {
  if (arguments.positional.empty()) return print(overview_text());
  std::vector<std::string> names;
  for (const CommandSpec& command : commands()) {
    if (command.name == arguments.positional.front()) return print(command_help(command));
    if (!command.hidden) names.push_back(command.name);
  }
  const std::string& word = arguments.positional.front();
  return report_error(bad_input("there is no command '" + word + "'" + did_you_mean(word, names)));
}

int version_command(const Arguments&) { return print("mdslaunch " MDS_VERSION "\n"); }

int completion_command(const Arguments& arguments) {
  const Result<std::string> script = completion_script(arguments.positional.front());
  return script ? print(*script) : report_error(script.error());
}

int reference_command(const Arguments& arguments) {
  const std::string part = arguments.positional.empty() ? "" : arguments.positional.front();
  if (part == "job") return print(job_reference_markdown());
  if (part == "commands") return print(commands_markdown());
  if (part == "man") return print(man_page());
  return print(reference_markdown());
}

}  // namespace mds::launcher
