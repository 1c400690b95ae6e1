// mdslaunch: the head node's program. See docs/architecture.md for the way from a job file to a trained model.
#include <cstdio>
#include <exception>

#include "launcher/cli.hpp"
#include "launcher/run.hpp"

int main(int argc, char** argv) {
  using namespace mds::launcher;
  try {
    // Phase 1: the words of the command line become a row of the command table and checked arguments. Nothing has been
    // read or started yet; a mistake ends here.
    const auto invocation = parse_command_line({argv + 1, argv + argc});
    if (!invocation) {
      std::fprintf(stderr, "mdslaunch: %s\n", invocation.error().message.c_str());
      return kExitBadInput;
    }
    // Phase 2: the command does its work (launcher/commands/); for `run` that is launcher/run.cpp, until no process of
    // the run is left. What it returns is the exit code.
    return invocation->command->run(invocation->arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mdslaunch: internal error: %s\n", error.what());
    return kExitFailed;
  }
}
