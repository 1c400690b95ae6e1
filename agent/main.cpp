// mdsagent: one per node. Started by mdslaunch's back ends, never by hand.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "agent/agent_program.hpp"
#include "agent/core_limit.hpp"
#include "agent/guard.hpp"
#include "agent/node_agent.hpp"
#include "agent/rank_process.hpp"

namespace {

constexpr char kHelp[] =
    "Usage: mdsagent < BOOTSTRAP\n"
    "Starts and watches the ranks of one node for mdslaunch, which starts this program and writes one line of JSON to\n"
    "its standard input: head_address, head_port, job, key, node, run_folder and, optionally, discover.\n"
    "\n"
    "  --help, -h   this text\n"
    "  --version    the version\n"
    "\n"
    "Exit codes: 0 the head said goodbye, 1 the head is lost, 2 bad command line or bootstrap line, 4 the head cannot\n"
    "be reached or refuses, 143 ended by SIGTERM.\n";

/// Nothing that whoever starts us left open is ours, nor our ranks': a held socket or pipe never ends for its peer. But
/// for the one by which MPICH's start program waits for us: its end keeps that one's proxy busy, a core all the time.
void close_what_was_left_open() {
  const char* const text = std::getenv("PMI_FD");
  const unsigned kept = text ? static_cast<unsigned>(std::atoi(text)) : 0;
  if (kept > STDERR_FILENO && fcntl(static_cast<int>(kept), F_SETFD, FD_CLOEXEC) == 0) {
    if (kept > STDERR_FILENO + 1) close_range(STDERR_FILENO + 1, kept - 1, 0);
    close_range(kept + 1, ~0U, 0);
  } else {
    close_range(STDERR_FILENO + 1, ~0U, 0);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) {
    if (std::strcmp(argv[1], "--version") == 0) return std::puts("mdsagent " MDS_VERSION) < 0;
    if (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0) return std::fputs(kHelp, stdout) < 0;
    std::fprintf(stderr, "mdsagent: unknown argument '%s'; see mdsagent --help\n", argv[1]);
    return mds::agent::kExitBadBootstrap;
  }
  close_what_was_left_open();
  // Ctrl-C and a closed terminal reach every process of a session: what they mean is for the head to decide.
  // A log that meets the limit on file sizes is to fail like one on a full disk, not to end us.
  for (const int ignored : {SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGXFSZ}) signal(ignored, SIG_IGN);
  mds::agent::forbid_core_dumps();
  mds::agent::raise_descriptor_limit();
  return mds::agent::run_guarded(mds::agent::run_agent_program);
}
