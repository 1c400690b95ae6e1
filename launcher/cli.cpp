#include "launcher/cli.hpp"

#include <algorithm>
#include <boost/program_options.hpp>
#include <filesystem>

#include "launcher/commands/commands.hpp"
#include "launcher/job_nearest.hpp"

namespace mds::launcher {
namespace {

namespace po = boost::program_options;

const OptionSpec kHelp{"help", "", "Show this help."};

std::vector<OptionSpec> job_options(std::vector<OptionSpec> more) {
  std::vector<OptionSpec> options{
      {"nodes", "N", "Use N nodes, as --set job.nodes=N; \"2-4\" as many of these as there are."},
      {"hosts", "LIST", "Use these hosts, \"a,b[01-16]\"; as --set job.hosts."},
      {"hostfile", "FILE", "Use the hosts in a DeepSpeed hostfile.", false, Completes::files},
      {"include", "HOSTS", "Of these hosts only \"a@b\"."},
      {"exclude", "HOSTS", "Of these hosts all but \"a@b\"."},
      {"set", "KEY=VALUE", "Override a key of the job file, e.g. training.steps=100.", true},
      {"output-dir", "DIR", "Make the run folder in DIR.", false, Completes::files},
  };
  options.insert(options.end(), more.begin(), more.end());
  options.push_back(kHelp);
  return options;
}

std::vector<OptionSpec> run_options(std::vector<OptionSpec> options) {
  options.push_back(
      {"output-dir", "DIR", "Where to look for the run; \"runs\" if not given.", false, Completes::files});
  options.push_back(kHelp);
  return options;
}

// On a run that is there already.
std::vector<CommandSpec> run_commands() {
  return {
      {"status",
       "[RUN]",
       "Show what each node and rank of a run (folder, name or id; else the newest) does.",
       run_options({{"json", "", "Write it as JSON."}}),
       status_command,
       false,
       {},
       Completes::files},
      {"logs",
       "[RUN]",
       "Print what the ranks of a run have said; equal lines of several ranks become one.",
       run_options({{"rank", "R", "Only rank R.", true},
                    {"node", "N", "Only the ranks of node N.", true},
                    {"follow", "", "Go on until the run ends."}}),
       logs_command,
       false,
       {},
       Completes::files},
      {"stop",
       "[RUN]",
       "Stop a run: the ranks write a checkpoint and leave.",
       run_options({{"now", "", "Without a checkpoint, by force."},
                    {"requeue", "", "As at a time limit: the run leaves with exit code 75 when it has a checkpoint."}}),
       stop_command,
       false,
       {},
       Completes::files},
      {"stacks",
       "[RUN]",
       "Print where all ranks of a run are (native stacks); equal ones stand once.",
       run_options({}),
       stacks_command,
       false,
       {},
       Completes::files},
      {"top",
       "[RUN]",
       "Show the status of a run, renewed every second, until you type q.",
       run_options({}),
       top_command,
       false,
       {},
       Completes::files},
      {"attach",
       "[RUN]",
       "Attach gdb to a live rank, on whatever node it is; meanwhile silence is no hang.",
       run_options({{"rank", "R", "The rank."},
                    {"gdb", "OPTION", "An option for gdb, e.g. --gdb=-ex=bt.", true},
                    {"print", "", "Print the command instead of running it."}}),
       attach_command,
       false,
       {},
       Completes::files},
  };
}

// On a job file.
std::vector<CommandSpec> job_commands() {
  return {
      {"run",
       "[JOB.toml]",
       "Run a job to its end (the default when a job file comes first).",
       job_options({{"dry-run", "", "Print what every rank would run, and run nothing."},
                    {"json", "", "Write machine-readable JSON to standard output."},
                    {"resume", "RUN",
                     "Go on in the folder of a run that has ended (\"\": the newest); the job file may be left out.",
                     false, Completes::files},
                    {"netns", "", "Give each virtual node a network namespace of its own, as --set job.netns=true."},
                    {"kill-rank", "R@STEP", "Kill rank R when it reaches STEP, to watch the recovery."}}),
       run_command,
       false,
       {},
       Completes::job_files},
      {"plan",
       "JOB.toml",
       "Show where every rank would run, and why.",
       job_options(
           {{"json", "", "Write the plan as JSON."},
            {"svg", "FILE", "Draw the placement.", false, Completes::files},
            {"explain", "", "Give the reason of every decision."},
            {"candidates", "N", "Show the N best layouts of the job's ranks instead, whatever [parallel] says."},
            {"all-layouts", "", "Among them also what this version cannot run yet: context parallel, interleaved."},
            {"topology", "SOURCE",
             "Plan for other machines: a recording of `topo --json`, a folder of them, or a synthetic one such as "
             "\"dgx-h100 x64\".",
             true, Completes::files}}),
       plan_command,
       false,
       {},
       Completes::job_files},
      {"submit",
       "JOB.toml",
       "Hand a job to Slurm: write the batch script and give it to sbatch.",
       job_options({{"chain", "N", "N jobs one after the other, each of which goes on where the one before ended."},
                    {"sbatch-option", "OPTION", "An option for sbatch, e.g. --dependency=afterok:1234.", true}}),
       submit_command,
       false,
       {},
       Completes::job_files},
      {"sbatch",
       "JOB.toml",
       "Print the batch script that submit would hand to Slurm.",
       job_options({}),
       sbatch_command,
       false,
       {},
       Completes::job_files},
      {"debug",
       "JOB.toml",
       "Run a job with one rank under gdb in this terminal; no time-outs, no restarts.",
       job_options({{"rank", "R", "The rank."}, {"gdb", "OPTION", "An option for gdb, e.g. --gdb=-ex=run.", true}}),
       debug_command,
       false,
       {},
       Completes::job_files},
      {"check",
       "JOB.toml",
       "Check a job file: print every problem, or ok.",
       job_options({}),
       check_command,
       false,
       {},
       Completes::job_files},
  };
}

std::vector<CommandSpec> make_commands() {
  std::vector<CommandSpec> table{
      {"topo",
       "",
       "Show this machine or others: cores, memory, GPUs, NICs, and the ways between them.",
       {{"json", "", "Write JSON, which --topology and --input read."},
        {"svg", "FILE", "Draw the machines; those that are alike once.", false, Completes::files},
        {"input", "SOURCE",
         "Show another machine: a recording (hwloc or NCCL XML, nvidia-smi topo -m, topo --json), a folder of them, a "
         "fabric or a synthetic machine. Sources of the same host are joined.",
         true, Completes::files},
        {"write-nccl", "FILE", "Write the machine as NCCL_TOPO_FILE takes it.", false, Completes::files},
        {"write-hwloc", "FILE", "Write the machine as hwloc's XML.", false, Completes::files},
        kHelp},
       topo_command},
      {"doctor",
       "[JOB.toml]",
       "Say what is wrong with this machine, a job's image on it, or others; exit code 1: a fault.",
       {{"json", "", "Write the findings as JSON."},
        {"input", "SOURCE", "Examine another machine or cluster, as with topo --input.", true, Completes::files},
        {"topology", "SOURCE", "The same as --input.", true, Completes::files},
        {"set", "KEY=VALUE", "Override a key of the job file.", true},
        kHelp},
       doctor_command,
       false,
       {},
       Completes::job_files},
      {"completion",
       "SHELL",
       "Print the completions for bash, zsh or fish.",
       {kHelp},
       completion_command,
       false,
       {"bash", "zsh", "fish"},
       Completes::words},
      {"help", "[COMMAND]", "Show help on a command.", {kHelp}, help_command, false, {}, Completes::words},
      {"version", "", "Show the version.", {kHelp}, version_command},
      {"reference",
       "[PART]",
       "Print docs/reference.md, or one part of it.",
       {kHelp},
       reference_command,
       true,
       {"job", "commands", "man"},
       Completes::words},
  };
  const auto put_first = [&](const std::vector<CommandSpec>& more) {
    table.insert(table.begin(), more.begin(), more.end());
  };
  put_first(run_commands());
  put_first(job_commands());
  return table;
}

const CommandSpec* find_command(const std::string& name) {
  for (const CommandSpec& command : commands()) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

std::vector<std::string> visible_command_names() {
  std::vector<std::string> names;
  for (const CommandSpec& command : commands()) {
    if (!command.hidden) names.push_back(command.name);
  }
  return names;
}

bool is_job_file(const std::string& word) {
  const bool named = word.size() > 5 && word.substr(word.size() - 5) == ".toml";
  std::error_code error;
  return named || std::filesystem::is_regular_file(word, error);
}

// The command that the first word means; `first` is then the index of its first own word.
Result<const CommandSpec*> choose_command(const std::vector<std::string>& words, size_t& first) {
  first = 0;
  if (words.empty() || words[0] == "--help" || words[0] == "-h") return find_command("help");
  if (words[0] == "--version") return find_command("version");
  if (const CommandSpec* command = find_command(words[0])) {
    first = 1;
    return command;
  }
  if (words[0].rfind("-", 0) == 0 || is_job_file(words[0])) return find_command("run");
  return bad_input("there is no command '" + words[0] + "'" + did_you_mean(words[0], visible_command_names()) +
                   " (mdslaunch --help lists them; a job file ends in .toml)");
}

po::options_description describe(const CommandSpec& command) {
  po::options_description description;
  for (const OptionSpec& option : command.options) {
    const std::string name = option.name == "help" ? "help,h" : option.name;
    if (option.value.empty()) {
      description.add_options()(name.c_str(), "");
    } else {
      description.add_options()(name.c_str(), po::value<std::vector<std::string>>(), "");
    }
  }
  description.add_options()("operand", po::value<std::vector<std::string>>(), "");
  return description;
}

std::string unknown_option(const CommandSpec& command, const std::string& word) {
  std::vector<std::string> names;
  for (const OptionSpec& option : command.options) names.push_back("--" + option.name);
  return command.name + " has no option " + word + did_you_mean(word, names) + " (mdslaunch " + command.name +
         " --help lists them)";
}

Status check_operands(const CommandSpec& command, const Arguments& arguments) {
  const size_t given = arguments.positional.size();
  const bool optional = command.operand.empty() || command.operand.front() == '[';
  const size_t most = command.operand.empty() ? 0 : 1;
  if (given == 0 && command.name == "run" && !arguments.has("resume")) return bad_input("run needs JOB.toml");
  if (given == 0 && !optional) return bad_input(command.name + " needs " + command.operand);
  if (given > most) return bad_input(command.name + ": one operand too many: '" + arguments.positional[most] + "'");
  const auto& words = command.words;
  if (given == 1 && !words.empty() && std::find(words.begin(), words.end(), arguments.positional[0]) == words.end()) {
    return bad_input(command.name + ": '" + arguments.positional[0] + "' is none of " + join_names(words) +
                     did_you_mean(arguments.positional[0], words));
  }
  return {};
}

Result<Arguments> parse_arguments(const CommandSpec& command, const std::vector<std::string>& words) {
  Arguments arguments;
  try {
    const po::options_description description = describe(command);
    po::positional_options_description positional;
    positional.add("operand", -1);
    const int style = po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
    const auto parsed = po::command_line_parser(words).options(description).positional(positional).style(style).run();
    for (const auto& option : parsed.options) {
      if (option.string_key == "operand") {
        arguments.positional.insert(arguments.positional.end(), option.value.begin(), option.value.end());
        continue;
      }
      auto& values = arguments.options[option.string_key];
      if (option.value.empty()) values.push_back("");
      values.insert(values.end(), option.value.begin(), option.value.end());
    }
  } catch (const po::unknown_option& error) {
    return bad_input(unknown_option(command, error.get_option_name()));
  } catch (const po::error& error) {
    return bad_input(command.name + ": " + error.what());
  }
  if (arguments.has("help")) return arguments;
  for (const OptionSpec& option : command.options) {
    if (!option.repeatable && arguments.values(option.name).size() > 1) {
      return bad_input(command.name + ": --" + option.name + " is given twice");
    }
  }
  if (Status status = check_operands(command, arguments); !status) return status.error();
  return arguments;
}

}  // namespace

std::string Arguments::value(const std::string& name) const {
  const auto found = options.find(name);
  return found == options.end() || found->second.empty() ? "" : found->second.back();
}

std::vector<std::string> Arguments::values(const std::string& name) const {
  const auto found = options.find(name);
  return found == options.end() ? std::vector<std::string>{} : found->second;
}

const std::vector<CommandSpec>& commands() {
  static const std::vector<CommandSpec> table = make_commands();
  return table;
}

const std::vector<ExitCode>& exit_codes() {
  static const std::vector<ExitCode> codes{
      {0, "The job finished."},
      {1, "The job failed; its first cause is printed and in report.json."},
      {2, "The command line, the job file, the data or a checkpoint to start from is wrong."},
      {3, "The job cannot be placed or does not fit; the message says what would."},
      {4, "Agents could not be started."},
      {75, "Stopped with a checkpoint, to be queued again (time limit, preemption)."},
      {128, "Ended by signal n after a clean stop."},
  };
  return codes;
}

Result<Invocation> parse_command_line(const std::vector<std::string>& words) {
  size_t first = 0;
  const Result<const CommandSpec*> command = choose_command(words, first);
  if (!command) return command.error();
  const bool option_named = (*command)->name == "version" || ((*command)->name == "help" && first == 0);
  if (option_named) return Invocation{*command, {}};
  Result<Arguments> arguments =
      parse_arguments(**command, {words.begin() + static_cast<std::ptrdiff_t>(first), words.end()});
  if (!arguments) return arguments.error();
  if (!arguments->has("help")) return Invocation{*command, *std::move(arguments)};
  Arguments about;
  about.positional.push_back((*command)->name);
  return Invocation{find_command("help"), about};
}

}  // namespace mds::launcher
