// Completions for three shells, from the table of commands.
#include "launcher/cli.hpp"
#include "launcher/job_nearest.hpp"

namespace mds::launcher {
namespace {

std::vector<std::string> visible_names() {
  std::vector<std::string> names;
  for (const CommandSpec& command : commands()) {
    if (!command.hidden) names.push_back(command.name);
  }
  return names;
}

std::vector<std::string> option_names(const CommandSpec& command) {
  std::vector<std::string> names;
  for (const OptionSpec& option : command.options) names.push_back("--" + option.name);
  return names;
}

std::vector<std::string> operand_words(const CommandSpec& command) {
  return command.name == "help" ? visible_names() : command.words;
}

// Text inside single quotes of a shell.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string bash_completion() {
  std::string cases;
  for (const CommandSpec& command : commands()) {
    if (command.hidden) continue;
    const bool files = command.completes == Completes::job_files;
    cases += "    " + command.name + ")\n      options=" + quoted(join_names(option_names(command), " ")) +
             "\n      words=" + quoted(join_names(operand_words(command), " ")) +
             "\n      files=" + (files ? "yes" : "no") + " ;;\n";
  }
  std::string file_options;
  for (const CommandSpec& command : commands()) {
    for (const OptionSpec& option : command.options) {
      const std::string name = "--" + option.name;
      const bool known = ("|" + file_options + "|").find("|" + name + "|") != std::string::npos;
      if (option.completes == Completes::files && !known) file_options += (file_options.empty() ? "" : "|") + name;
    }
  }
  return "# bash completion for mdslaunch; made by `mdslaunch completion bash`.\n"
         "_mdslaunch() {\n"
         "  local current=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
         "  local command=\"${COMP_WORDS[1]}\" options='' words='' files=no\n"
         "  COMPREPLY=()\n"
         "  case \"$previous\" in\n"
         "    " +
         file_options +
         ") COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n"
         "  esac\n"
         "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
         "    COMPREPLY=($(compgen -W " +
         quoted(join_names(visible_names(), " ") + " --help --version") +
         " -- \"$current\") $(compgen -f -X '!*.toml' -- \"$current\") $(compgen -d -- \"$current\"))\n"
         "    return\n"
         "  fi\n"
         "  case \"$command\" in *.toml|-*) command=run ;; esac\n"
         "  case \"$command\" in\n" +
         cases +
         "  esac\n"
         "  case \"$current\" in\n"
         "    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$current\")); return ;;\n"
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "  if [ \"$files\" = yes ]; then\n"
         "    COMPREPLY+=($(compgen -f -X '!*.toml' -- \"$current\") $(compgen -d -- \"$current\"))\n"
         "  fi\n"
         "}\n"
         "complete -o filenames -F _mdslaunch mdslaunch\n";
}

// zsh's _arguments takes "--name[doc]:value:action"; brackets and colons in the doc need a backslash.
std::string zsh_option(const OptionSpec& option) {
  std::string doc;
  for (const char c : option.doc) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') doc += '\\';
    doc += c;
  }
  const std::string action = option.completes == Completes::files ? "_files" : " ";
  const std::string value = option.value.empty() ? "" : ":" + option.value + ":" + action;
  return quoted((option.repeatable ? "*--" : "--") + option.name + "[" + doc + "]" + value);
}

std::string zsh_completion() {
  std::string names, cases;
  for (const CommandSpec& command : commands()) {
    if (command.hidden) continue;
    names += "    " + quoted(command.name + ":" + command.doc) + "\n";
    cases += "    " + command.name + ")\n      _arguments";
    for (const OptionSpec& option : command.options) cases += " \\\n        " + zsh_option(option);
    const std::vector<std::string> words = operand_words(command);
    if (command.completes == Completes::job_files) cases += " \\\n        '*:job file:_files -g \"*.toml\"'";
    if (!words.empty()) cases += " \\\n        " + quoted("1:operand:(" + join_names(words, " ") + ")");
    cases += " ;;\n";
  }
  return "#compdef mdslaunch\n# zsh completion for mdslaunch; made by `mdslaunch completion zsh`.\n"
         "_mdslaunch() {\n  local -a names\n  names=(\n" +
         names +
         "  )\n"
         "  if (( CURRENT == 2 )); then\n"
         "    _describe command names\n    _files -g '*.toml'\n    return\n  fi\n"
         "  local command=$words[2]\n"
         "  case $command in *.toml|-*) command=run ;; *) shift words; (( CURRENT-- )) ;; esac\n"
         "  case $command in\n" +
         cases +
         "  esac\n}\n"
         "if [ \"$funcstack[1]\" = _mdslaunch ]; then _mdslaunch \"$@\"; else compdef _mdslaunch mdslaunch; fi\n";
}

std::string fish_completion() {
  const std::string none = "not __fish_seen_subcommand_from " + join_names(visible_names(), " ");
  std::string out =
      "# fish completion for mdslaunch; made by `mdslaunch completion fish`.\n"
      "complete -c mdslaunch -n " +
      quoted(none) + " -f -k -a '(__fish_complete_suffix .toml)'\n";
  for (const CommandSpec& command : commands()) {
    if (command.hidden) continue;
    out += "complete -c mdslaunch -n " + quoted(none) + " -f -a " + command.name + " -d " + quoted(command.doc) + "\n";
    std::string seen = "__fish_seen_subcommand_from " + command.name;
    if (command.name == "run") seen += "; or " + none;
    for (const OptionSpec& option : command.options) {
      out += "complete -c mdslaunch -n " + quoted(seen) + " -l " + option.name;
      if (!option.value.empty()) out += option.completes == Completes::files ? " -r -F" : " -x";
      out += " -d " + quoted(option.doc) + "\n";
    }
    const std::vector<std::string> words = operand_words(command);
    if (!words.empty()) {
      out += "complete -c mdslaunch -n " + quoted(seen) + " -f -a " + quoted(join_names(words, " ")) + "\n";
    }
    if (command.completes == Completes::job_files) {
      out += "complete -c mdslaunch -n " + quoted(seen) + " -f -k -a '(__fish_complete_suffix .toml)'\n";
    }
  }
  return out;
}

}  // namespace

Result<std::string> completion_script(const std::string& shell) {
  if (shell == "bash") return bash_completion();
  if (shell == "zsh") return zsh_completion();
  if (shell == "fish") return fish_completion();
  return bad_input("there are completions for bash, zsh and fish, not for " + shell);
}

}  // namespace mds::launcher
