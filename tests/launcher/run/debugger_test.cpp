#include "launcher/debugger.hpp"

#include <nlohmann/json.hpp>

#include "tests/catch.hpp"

using namespace mds;
using namespace mds::launcher;
using nlohmann::json;
using Words = std::vector<std::string>;

namespace {

json status(const std::string& backend) {
  return {{"backend", backend},
          {"slurm_job", "4711"},
          {"ssh_config", ""},
          {"nodes", {{{"node", 0}, {"host", "here"}}, {{"node", 1}, {"host", "b.cluster"}, {"name", "b"}}}},
          {"ranks",
           {{{"rank", 0}, {"node", 0}, {"state", "running"}, {"pid", 100}},
            {{"rank", 1}, {"node", 1}, {"state", "running"}, {"pid", 200}},
            {{"rank", 2}, {"node", 1}, {"state", "killed by SIGKILL"}, {"pid", 300}},
            {{"rank", 3}, {"node", 1}, {"state", "starting"}}}}};
}

}  // namespace

TEST_CASE("attach goes to a rank on this node directly, to another's by what started its agent", "[debugger]") {
  CHECK(*attach_words(status("ssh"), 0, "here", {}) == Words{"gdb", "-q", "-p", "100"});
  CHECK(*attach_words(status("ssh"), 1, "here", {"-ex=print 'a b'"}) ==
        Words{"ssh", "-t", "b", "gdb", "-q", "-p", "200", "'-ex=print '\\''a b'\\'''"});
  json with_config = status("mpi");
  with_config["ssh_config"] = "/home/me/ssh config";
  CHECK(*attach_words(with_config, 1, "here", {}) ==
        Words{"ssh", "-t", "-F", "/home/me/ssh config", "b", "gdb", "-q", "-p", "200"});
  CHECK(*attach_words(status("slurm"), 1, "here", {"-ex=bt full"}) ==
        Words{"srun", "--jobid=4711", "--overlap", "--nodes=1", "--ntasks=1", "--nodelist=b", "--pty", "gdb", "-q",
              "-p", "200", "-ex=bt full"});
  CHECK(attach_words(status("slurm"), 1, "b.cluster", {})->front() == "gdb");
}

TEST_CASE("attach says what a rank does that does not run", "[debugger]") {
  CHECK(attach_words(status("local"), 2, "here", {}).error().message == "rank 2 does not run: it is killed by SIGKILL");
  CHECK(attach_words(status("local"), 3, "here", {}).error().message == "rank 3 does not run: it is starting");
  CHECK(attach_words(status("local"), 4, "here", {}).error().message ==
        "there is no rank 4: the run has ranks 0 to 3");
}

TEST_CASE("debug stops one rank before its program and leaves the others alone", "[debugger]") {
  std::vector<agent::RankSpec> ranks(2);
  ranks[0].rank = 4;
  ranks[1].rank = 5;
  for (agent::RankSpec& rank : ranks) rank.argv = {"train", "--steps", "a b"};
  debug_ranks({5, "/dev/pts/3"}, ranks);
  CHECK(ranks[0].argv == Words{"train", "--steps", "a b"});
  CHECK(ranks[1].argv == Words{"/bin/sh", "-c",
                               "[ -w /dev/pts/3 ] && exec >/dev/pts/3 2>&1; kill -STOP $$; exec \"$@\"", "sh", "train",
                               "--steps", "a b"});
}

TEST_CASE("a program in the foreground gives its exit code, and somebody is called meanwhile", "[debugger]") {
  int calls = 0;
  CHECK(*run_in_foreground({"sh", "-c", "exit 7"}, 1000, [&] { ++calls; }) == 7);
  CHECK(calls == 1);
  CHECK(*run_in_foreground({"sh", "-c", "kill -TERM $$"}, 1000, [] {}) == 128 + 15);
  CHECK(*run_in_foreground({"sleep", "0.2"}, 20, [&] { ++calls; }) == 0);
  CHECK(calls > 3);
  CHECK(!run_in_foreground({"no-such-program"}, 1000, [] {}).ok());
}
