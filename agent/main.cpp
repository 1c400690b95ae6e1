// mdsagent: one per node. Started by mdslaunch's back ends, never by hand.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
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

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) {
    if (std::strcmp(argv[1], "--version") == 0) return std::puts("mdsagent " MDS_VERSION) < 0;
    if (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0) return std::fputs(kHelp, stdout) < 0;
    std::fprintf(stderr, "mdsagent: unknown argument '%s'; see mdsagent --help\n", argv[1]);
    return mds::agent::kExitBadBootstrap;
  }
  // Nothing that whoever starts us left open is ours, nor our ranks': a held socket or pipe never ends for its peer.
  close_range(STDERR_FILENO + 1, ~0U, 0);
  // Ctrl-C and a closed terminal reach every process of a session: what they mean is for the head to decide.
  // A log that meets the limit on file sizes is to fail like one on a full disk, not to end us.
  for (const int ignored : {SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGXFSZ}) signal(ignored, SIG_IGN);
  mds::agent::forbid_core_dumps();
  mds::agent::raise_descriptor_limit();
  return mds::agent::run_guarded(mds::agent::run_agent_program);
}
