// The srun that starts agents.
#include "slurm/step.hpp"

#include <algorithm>

#include "tests/catch.hpp"

using namespace mds::slurm;

namespace {

bool has(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

TEST_CASE("versions of Slurm") {
  CHECK(*parse_version("slurm 22.05.8\n") == Version{22, 5, 8});
  CHECK(*parse_version("slurm-wlm 24.11.1-1") == Version{24, 11, 1});
  CHECK(*parse_version("slurm 23.02.0-0rc1") == Version{23, 2, 0});
  CHECK(*parse_version("slurm 25.05") == Version{25, 5, 0});
  for (const char* none : {"", "slurm", "slurm x.y", "22"}) CHECK_FALSE(parse_version(none).ok());
  CHECK(Version{21, 8, 8} < kOldestVersion);
}

TEST_CASE("one agent on each node, of all that the job has there") {
  const auto made = srun_arguments({.hosts = {"n1", "n2", "n3"}, .program = "/opt/bin/mdsagent"});
  for (const char* word :
       {"--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--nodelist=n[1-3]", "--kill-on-bad-exit=0", "--no-kill",
        "--overlap", "--cpu-bind=none", "--mem=0", "--mpi=none", "--wait=0"}) {
    INFO(word);
    CHECK(has(made, word));
  }
  CHECK(made.back() == "/opt/bin/mdsagent");
  CHECK_FALSE(has(made, "--exact"));
  for (const std::string& word : made) CHECK(word.find("gpu") == std::string::npos);
}

TEST_CASE("GPUs and components of heterogeneous jobs") {
  const auto made = srun_arguments({.hosts = {"n1"}, .component = 1, .gpus_per_node = 8, .program = "/a"});
  CHECK(has(made, "--gpus-per-node=8"));
  CHECK(has(made, "--het-group=1"));
}

TEST_CASE("an old Slurm is refused with its number") {
  CHECK(check_version("slurm 22.05.0").ok());
  const auto old = check_version("slurm 20.11.9");
  REQUIRE(!old.ok());
  CHECK(old.error().message.find("20.11.9") != std::string::npos);
}

TEST_CASE("the job's own options do not change the step") {
  const Environment cleaned = srun_environment({{"SLURM_NTASKS", "64"},
                                                {"SLURM_CPUS_PER_TASK", "4"},
                                                {"SLURM_MEM_PER_CPU", "1000"},
                                                {"SLURM_MEM_PER_NODE", "1000"},
                                                {"SLURM_JOB_ID", "7"},
                                                {"SLURM_CONF", "/c"},
                                                {"HOME", "/root"}});
  CHECK(cleaned == Environment{{"SLURM_JOB_ID", "7"}, {"SLURM_CONF", "/c"}, {"HOME", "/root"}});
}

TEST_CASE("a program that the nodes do not have is sent by the step itself") {
  const StepSpec step{.hosts = {"n1", "n2"}, .program = "/home/me/mdsagent", .copied_to = "/var/tmp"};
  const auto made = srun_arguments(step);
  CHECK(has(made, "--bcast=/var/tmp/"));  // a folder: each node has a name of its own there
  CHECK(has(made, "--chdir=/var/tmp"));
  CHECK(made.back() == "/home/me/mdsagent");
  const auto without = srun_arguments({.hosts = {"n1"}, .program = "/a"});
  for (const std::string& word : without) CHECK_FALSE(word.starts_with("--bcast"));
}
