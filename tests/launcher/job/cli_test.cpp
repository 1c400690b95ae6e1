// The command line: what is understood, what is refused, and the texts made of its table.
#include "launcher/cli.hpp"

#include <cstdio>
#include <cstdlib>

#include "launcher/commands/commands.hpp"
#include "tests/catch.hpp"
#include "tests/launcher/job/job_texts.hpp"

using namespace mds::launcher;
using namespace mds::launcher::tests;

namespace {

Invocation understood(const std::vector<std::string>& words) {
  const auto invocation = parse_command_line(words);
  if (!invocation) FAIL(invocation.error().message);
  return *invocation;
}

std::string refused(const std::vector<std::string>& words) {
  const auto invocation = parse_command_line(words);
  REQUIRE_FALSE(invocation.ok());
  CHECK(invocation.error().code == mds::ErrorCode::bad_input);
  return invocation.error().message;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

bool installed(const std::string& program) {
  return std::system(("command -v " + program + " >/dev/null 2>&1").c_str()) == 0;
}

// Exit status of `command` with `text` on its standard input.
int feed(const std::string& command, const std::string& text) {
  FILE* pipe = popen((command + " >/dev/null 2>&1").c_str(), "w");
  REQUIRE(pipe != nullptr);
  std::fwrite(text.data(), 1, text.size(), pipe);
  return pclose(pipe);
}

}  // namespace

TEST_CASE("a job file or an option in first place means run") {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"job.toml"},
                                                {"run", "job.toml"},
                                                {"--nodes", "2", "job.toml"},
                                                {"job.toml", "--json"}}) {
    CHECK(understood(words).command->name == "run");
    CHECK(understood(words).arguments.positional == std::vector<std::string>{"job.toml"});
  }
  const Invocation run =
      understood({"run", "job.toml", "--set", "a.b=1", "--set=c.d=2", "--kill-rank", "1@5", "--json"});
  CHECK(run.arguments.values("set") == std::vector<std::string>{"a.b=1", "c.d=2"});
  CHECK(run.arguments.value("kill-rank") == "1@5");
  CHECK(run.arguments.has("json"));
  CHECK_FALSE(run.arguments.has("dry-run"));
}

TEST_CASE("help and version are found where people look for them") {
  for (const std::vector<std::string>& words : {std::vector<std::string>{}, {"--help"}, {"-h"}, {"help"}}) {
    CHECK(understood(words).command->name == "help");
  }
  CHECK(understood({"--version"}).command->name == "version");
  CHECK(understood({"version"}).command->name == "version");
  const Invocation about_plan = understood({"plan", "--help"});
  CHECK(about_plan.command->name == "help");
  CHECK(about_plan.arguments.positional == std::vector<std::string>{"plan"});
}

TEST_CASE("a wrong command line is one message with a remedy") {
  CHECK(contains(refused({"paln", "job.toml"}), "did you mean 'plan'"));
  CHECK(contains(refused({"wibble"}), "--help"));
  CHECK(contains(refused({"run", "--jsn", "job.toml"}), "did you mean '--json'"));
  CHECK(contains(refused({"plan", "--expl", "job.toml"}), "--explain"));
  CHECK(contains(refused({"run"}), "JOB.toml"));
  CHECK(contains(refused({"run", "a.toml", "b.toml"}), "b.toml"));
  CHECK(contains(refused({"run", "a.toml", "--nodes", "1", "--nodes", "2"}), "--nodes"));
  CHECK(contains(refused({"run", "a.toml", "--set"}), "--set"));
  CHECK(contains(refused({"run", "a.toml", "--json=yes"}), "json"));
  CHECK(contains(refused({"completion", "bsh"}), "did you mean 'bash'"));
  CHECK(contains(refused({"topo", "operand"}), "operand"));
}

TEST_CASE("every command is in help, man page, reference and completions") {
  const std::string overview = overview_text();
  const std::string man = man_page();
  const std::string reference = commands_markdown();
  for (const CommandSpec& command : commands()) {
    INFO(command.name);
    CHECK(command.run != nullptr);
    CHECK(contains(overview, "\n  " + command.name + " ") != command.hidden);
    CHECK(contains(reference, "### `mdslaunch " + command.name) != command.hidden);
    CHECK(contains(man, ".SS " + command.name) != command.hidden);
    for (const char* shell : {"bash", "zsh", "fish"}) {
      const auto script = completion_script(shell);
      REQUIRE(script.ok());
      CHECK(contains(*script, command.name) != command.hidden);
      for (const OptionSpec& option : command.options) {
        if (!command.hidden) CHECK(contains(*script, option.name));
      }
    }
    const std::string help = command_help(command);
    for (const OptionSpec& option : command.options) CHECK(contains(help, "--" + option.name));
    for (size_t begin = 0; begin < help.size(); begin = help.find('\n', begin) + 1) {
      CHECK(help.find('\n', begin) - begin <= 100);
    }
  }
  CHECK_FALSE(completion_script("tcsh").ok());
}

TEST_CASE("completions and the man page are accepted by the programs that read them") {
  CHECK(feed("bash -n", *completion_script("bash")) == 0);
  if (installed("zsh")) CHECK(feed("zsh -n", *completion_script("zsh")) == 0);
  if (installed("fish")) CHECK(feed("fish -n /dev/stdin", *completion_script("fish")) == 0);
  if (installed("groff")) CHECK(feed("groff -man -Tascii -ww 2>&1 >/dev/null | { ! grep . ; }", man_page()) == 0);
}

TEST_CASE("bash completes commands, options, words and job files") {
  const std::string ask =
      "COMP_WORDS=(mdslaunch \"$@\"); COMP_CWORD=$#; _mdslaunch; printf '%s\\n' \"${COMPREPLY[@]}\" | grep -qx -- ";
  const auto completes = [&](const std::string& words, const std::string& wanted) {
    const std::string script = *completion_script("bash") + "cd " + kSource + "/docs/examples\nset -- " + words + "\n" +
                               ask + "'" + wanted + "'\n";
    return feed("bash", script) == 0;
  };
  CHECK(completes("pl", "plan"));
  CHECK(completes("quick", "quickstart.toml"));
  CHECK(completes("plan --ex", "--explain"));
  CHECK(completes("quickstart.toml --ki", "--kill-rank"));
  CHECK(completes("run quick", "quickstart.toml"));
  CHECK(completes("completion z", "zsh"));
  CHECK_FALSE(completes("plan --ki", "--kill-rank"));
  CHECK_FALSE(completes("ref", "reference"));
}

TEST_CASE("docs/reference.md is what the tables say") {
  const std::string path = kSource + "/docs/reference.md";
  if (std::getenv("MDS_REWRITE")) std::ofstream(path) << reference_markdown();
  INFO("stale: write it anew with  mdslaunch reference > docs/reference.md");
  CHECK(read_file(path) == reference_markdown());
}
