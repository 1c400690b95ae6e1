#include "launcher/debugger.hpp"

#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "agent/rank_process.hpp"
#include "launcher/view.hpp"

namespace mds::launcher {

using nlohmann::json;
using Words = std::vector<std::string>;

void debug_ranks(const DebugRank& debug, std::vector<agent::RankSpec>& ranks) {
  std::string script = "kill -STOP $$; exec \"$@\"";
  if (!debug.terminal.empty()) {  // a container may have none
    const std::string terminal = shell_word(debug.terminal);
    script = "[ -w " + terminal + " ] && exec >" + terminal + " 2>&1; " + script;
  }
  for (agent::RankSpec& spec : ranks) {
    spec.env["MDS_CONNECT_TIMEOUT"] = "1000000";  // seconds
    if (spec.rank == debug.rank) spec.argv.insert(spec.argv.begin(), {"/bin/sh", "-c", script, "sh"});
  }
}

namespace {

/// The words that run a command with a terminal on the host of `node`; none where the way there is not known.
Words way_to(const json& status, const json& node) {
  const std::string backend = status.value("backend", ""), name = node.value("name", node.value("host", ""));
  if (backend == "slurm") {
    return {"srun", "--jobid=" + status.value("slurm_job", ""), "--overlap", "--nodes=1", "--ntasks=1",
            "--nodelist=" + name, "--pty"};
  }
  Words words{"ssh", "-t"};
  if (const std::string config = status.value("ssh_config", ""); !config.empty()) {
    words.insert(words.end(), {"-F", config});
  }
  words.push_back(name);
  return words;
}

}  // namespace

Result<Words> attach_words(const json& status, int rank, const std::string& own_host, const Words& options) {
  const json& ranks = status.at("ranks");
  const std::string name = "rank " + std::to_string(rank);
  if (rank < 0 || rank >= static_cast<int>(ranks.size())) {
    return bad_input("there is no " + name + ": the run has ranks 0 to " + std::to_string(ranks.size() - 1));
  }
  const json& one = ranks.at(static_cast<size_t>(rank));
  const std::string state = one.value("state", "");
  if (!one.contains("pid") || state != "running") return bad_input(name + " does not run: it is " + state);
  Words words{"gdb", "-q", "-p", std::to_string(one["pid"].get<int64_t>())};
  words.insert(words.end(), options.begin(), options.end());
  const json& node = status.at("nodes").at(one.at("node").get<size_t>());
  if (node.value("host", "") == own_host) return words;
  Words whole = way_to(status, node);
  const bool by_shell = whole.front() == "ssh";  // which joins the words and gives them to a shell
  for (const std::string& word : words) whole.push_back(by_shell ? shell_word(word) : word);
  return whole;
}

std::string attach_obstacle() {
  int scope = 0;
  std::ifstream("/proc/sys/kernel/yama/ptrace_scope") >> scope;
  if (scope == 0 || geteuid() == 0) return "";
  return "kernel.yama.ptrace_scope is " + std::to_string(scope) +
         ": gdb may not attach to your own processes; as root: sysctl kernel.yama.ptrace_scope=0";
}

Result<int> run_in_foreground(const Words& words, int interval_ms, const std::function<void()>& meanwhile) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t from_terminal;
  sigemptyset(&from_terminal);
  for (const int signal : {SIGINT, SIGQUIT}) sigaddset(&from_terminal, signal);
  posix_spawnattr_setsigdefault(&attributes, &from_terminal);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  for (const int signal : {SIGINT, SIGQUIT}) std::signal(signal, SIG_IGN);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, argv[0], nullptr, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  if (error == ENOENT) {
    return bad_input("there is no program " + words.front() + " here; install it (Debian's package gdb has gdb)");
  }
  if (error != 0) return bad_input("cannot start " + words.front() + ": " + std::strerror(error));
  const agent::UniqueFd process = agent::open_pidfd(pid);
  pollfd ended{process.get(), POLLIN, 0};
  do {
    meanwhile();
  } while (poll(&ended, 1, interval_ms) <= 0);
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace mds::launcher
