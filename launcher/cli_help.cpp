// Help and man page, from the table of commands.
#include <algorithm>

#include "launcher/cli.hpp"

namespace mds::launcher {
namespace {

constexpr size_t kColumn = 26;  // where the explanations begin
constexpr size_t kLineMax = 100;

std::string option_words(const OptionSpec& option) {
  return "--" + option.name + (option.value.empty() ? "" : " " + option.value);
}

// "  left    text", wrapped within the right column.
std::string two_columns(const std::string& left, const std::string& text) {
  std::string out = "  " + left;
  size_t at = out.size();
  const auto next_line = [&] {
    out += "\n" + std::string(kColumn, ' ');
    at = kColumn;
  };
  if (at + 2 > kColumn) {
    next_line();
  } else {
    out += std::string(kColumn - at, ' ');
    at = kColumn;
  }
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const size_t length = end - begin;
    if (at != kColumn && at + 1 + length > kLineMax) next_line();
    if (at != kColumn) out += ' ', ++at;
    out += text.substr(begin, length);
    at += length;
    begin = end + 1;
  }
  return out + "\n";
}

std::string usage(const CommandSpec& command) {
  const std::string operand = command.operand.empty() ? "" : " " + command.operand;
  return command.name + (command.options.size() > 1 ? " [OPTION...]" : "") + operand;
}

std::string code_words(const ExitCode& exit_code) {
  return exit_code.code == 128 ? "128+n" : std::to_string(exit_code.code);
}

// groff gives '-', '\' and a leading '.' or '\'' meanings of its own.
std::string roff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return !out.empty() && (out[0] == '.' || out[0] == '\'') ? "\\&" + out : out;
}

std::string roff_item(const std::string& tag, const std::string& text) {
  return ".TP\n.B " + roff(tag) + "\n" + roff(text) + "\n";
}

}  // namespace

std::string overview_text() {
  std::string out =
      "mdslaunch: plans, launches and supervises the training of large language models.\n\n"
      "Usage: mdslaunch [run] [OPTION...] JOB.toml\n"
      "       mdslaunch COMMAND [OPTION...]\n\nCommands:\n";
  for (const CommandSpec& command : commands()) {
    if (!command.hidden) out += two_columns(command.name, command.doc);
  }
  out += "\nmdslaunch COMMAND --help shows a command's options. Try: mdslaunch docs/examples/quickstart.toml\n";
  return out;
}

std::string command_help(const CommandSpec& command) {
  std::string out = "Usage: mdslaunch " + usage(command) + "\n\n" + command.doc + "\n";
  out += "\nOptions:\n";
  for (const OptionSpec& option : command.options) {
    out += two_columns(option_words(option), option.doc + (option.repeatable ? " May be repeated." : ""));
  }
  return out;
}

std::string man_page() {
  std::string out =
      ".TH MDSLAUNCH 1 \"\" \"mdslaunch " MDS_VERSION
      "\" \"User Commands\"\n"
      ".SH NAME\nmdslaunch \\- plan, launch and supervise the training of large language models\n"
      ".SH SYNOPSIS\n.B mdslaunch\n[\\fBrun\\fR] [\\fIOPTION\\fR...] \\fIJOB.toml\\fR\n.br\n"
      ".B mdslaunch\n\\fICOMMAND\\fR [\\fIOPTION\\fR...]\n"
      ".SH DESCRIPTION\nReads a job file, places its ranks on the cores and GPUs of the machines, starts them, watches "
      "over them and restarts them from the newest checkpoint after a failure.\n.SH COMMANDS\n";
  for (const CommandSpec& command : commands()) {
    if (command.hidden) continue;
    out += ".SS " + roff(usage(command)) + "\n" + roff(command.doc) + "\n";
    for (const OptionSpec& option : command.options) {
      if (option.name != "help") out += roff_item(option_words(option), option.doc);
    }
  }
  out += ".SH EXIT STATUS\n";
  for (const ExitCode& exit_code : exit_codes()) out += roff_item(code_words(exit_code), exit_code.doc);
  out += ".SH ENVIRONMENT\n" + roff_item("NO_COLOR", "If set and not empty, output has no colours.");
  return out + ".SH SEE ALSO\n.BR torchrun (1),\n.BR mpirun (1)\n";
}

std::string commands_markdown() {
  std::string out = "## Commands\n\n";
  for (const CommandSpec& command : commands()) {
    if (command.hidden) continue;
    out += "### `mdslaunch " + usage(command) + "`\n\n" + command.doc + "\n\n";
    if (command.options.size() < 2) continue;
    out += "| Option | Meaning |\n|---|---|\n";
    for (const OptionSpec& option : command.options) {
      if (option.name == "help") continue;
      out +=
          "| `" + option_words(option) + "` | " + option.doc + (option.repeatable ? " May be repeated." : "") + " |\n";
    }
    out += "\n";
  }
  out += "### Exit codes\n\n| Code | Meaning |\n|---|---|\n";
  for (const ExitCode& exit_code : exit_codes()) out += "| " + code_words(exit_code) + " | " + exit_code.doc + " |\n";
  return out;
}

}  // namespace mds::launcher
