// The command line of mdslaunch: one table of commands and options, from which the parser, the help, the man page, the
// completions and the reference are made.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "topology/result.hpp"

namespace mds::launcher {

/// What follows an option or a command, for completions.
enum class Completes { nothing, files, job_files, words };

struct OptionSpec {
  std::string name;   ///< without "--"
  std::string value;  ///< placeholder such as "FILE"; empty: a flag
  std::string doc;
  bool repeatable = false;
  Completes completes = Completes::nothing;
};

/// The checked words behind a command.
struct Arguments {
  std::vector<std::string> positional;
  std::map<std::string, std::vector<std::string>> options;  ///< by name; flags have one empty value

  bool has(const std::string& name) const { return options.count(name) != 0; }
  /// The last value given, or "".
  std::string value(const std::string& name) const;
  std::vector<std::string> values(const std::string& name) const;
};

struct CommandSpec {
  std::string name;
  std::string operand;  ///< placeholder of its operand; empty: none. In [] if it may be left out
  std::string doc;      ///< one line
  std::vector<OptionSpec> options;
  int (*run)(const Arguments& arguments) = nullptr;  ///< returns the exit code
  bool hidden = false;                               ///< not in help and completions
  std::vector<std::string> words = {};               ///< the operands that there are, if it is one of a few
  Completes completes = Completes::nothing;
};

struct ExitCode {
  int code;
  std::string doc;
};

const std::vector<CommandSpec>& commands();
const std::vector<ExitCode>& exit_codes();

struct Invocation {
  const CommandSpec* command = nullptr;
  Arguments arguments;
};

/// `words` are argv[1..]. A job file or an option in first place means `run`. Errors: bad_input with a remedy.
Result<Invocation> parse_command_line(const std::vector<std::string>& words);

/// Texts made of the table.
std::string overview_text();
std::string command_help(const CommandSpec& command);
std::string man_page();
std::string commands_markdown();
/// `shell`: bash, zsh or fish. Errors: bad_input.
Result<std::string> completion_script(const std::string& shell);

/// docs/reference.md, whole.
std::string reference_markdown();

}  // namespace mds::launcher
