// The words that start an agent on another machine.
#include <unistd.h>

#include <algorithm>

#include "launcher/backend_remote.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;

namespace {

bool has(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

TEST_CASE("ssh gets plain words, and asks for nothing") {
  const auto words = ssh_words("/usr/bin/ssh", "/etc/cfg", "user@gpu-01.local", "/opt/mds/bin/mdsagent");
  REQUIRE(words.ok());
  CHECK(words->front() == "/usr/bin/ssh");
  for (const char* word : {"-F", "/etc/cfg", "BatchMode=yes", "StrictHostKeyChecking=yes", "-T", "--"}) {
    INFO(word);
    CHECK(has(*words, word));
  }
  CHECK(words->at(words->size() - 3) == "user@gpu-01.local");
  CHECK(words->back() == "/opt/mds/bin/mdsagent");
}

TEST_CASE("scp gets the same, and a place that every one of its versions takes as it is") {
  const auto words = scp_words("/usr/bin/scp", "/etc/cfg", "/opt/my programs/mdsagent", "user@n1", "/var/tmp/x-1");
  REQUIRE(words.ok());
  for (const char* word : {"-F", "/etc/cfg", "BatchMode=yes", "StrictHostKeyChecking=yes", "-p", "--"}) {
    INFO(word);
    CHECK(has(*words, word));
  }
  CHECK(words->at(words->size() - 2) == "/opt/my programs/mdsagent");
  CHECK(words->back() == "user@n1:/var/tmp/x-1");
  CHECK(scp_words("scp", "", "/a", "me@fe80::1", "/b")->back() == "me@[fe80::1]:/b");
  for (const char* place : {"/var/tmp/$(x)", "/var/tmp/a b", "/x;y", "-x"}) {
    INFO(place);
    CHECK_FALSE(scp_words("scp", "", "/a", "n1", place).ok());
  }
}

TEST_CASE("what a remote shell could take for more than a word is refused") {
  for (const char* host : {"-oProxyCommand=touch x", "", "a b", "a;b", "$(x)", "a`b`", "a|b"}) {
    INFO(host);
    CHECK_FALSE(ssh_words("ssh", "", host, "/a").ok());
    CHECK_FALSE(mpirun_words("mpirun", MpiKind::open_mpi, host, "/a").ok());
  }
  for (const char* program : {"/home/a b/mdsagent", "/x/$(y)", "/x;y", "/x'y", "/x*", "~/mdsagent", ""}) {
    INFO(program);
    CHECK_FALSE(ssh_words("ssh", "", "host", program).ok());
  }
}

TEST_CASE("kinds of mpirun, by what --version prints") {
  CHECK(*mpi_kind("mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n") ==
        MpiKind::open_mpi);
  CHECK(*mpi_kind("mpirun (Open MPI) 5.0.5\n") == MpiKind::open_mpi);
  CHECK(*mpi_kind("mpirun (PRRTE) 3.0.6\n") == MpiKind::open_mpi);
  CHECK(*mpi_kind("HYDRA build details:\n    Version:                                 4.0.2\n") == MpiKind::hydra);
  CHECK(*mpi_kind("Intel(R) MPI Library for Linux* OS, Version 2021.13 Build 20240515 (id: df741e0)\n") ==
        MpiKind::intel);
  const auto unknown = mpi_kind("mpirun by nobody\n");
  REQUIRE(!unknown.ok());
  CHECK(unknown.error().message.find("by nobody") != std::string::npos);
}

TEST_CASE("each mpirun starts one unbound process on one host") {
  const auto open = mpirun_words("/bin/mpirun", MpiKind::open_mpi, "n1", "/a");
  REQUIRE(open.ok());
  CHECK(has(*open, "--host"));
  CHECK(has(*open, "none"));
  CHECK(has(*open, "--allow-run-as-root") == (geteuid() == 0));
  const auto hydra = mpirun_words("/bin/mpirun", MpiKind::hydra, "n1", "/a");
  REQUIRE(hydra.ok());
  CHECK(*hydra == std::vector<std::string>{"/bin/mpirun", "-n", "1", "-hosts", "n1", "-bind-to", "none", "/a"});
  const auto intel = mpirun_words("/bin/mpirun", MpiKind::intel, "n1", "/a");
  REQUIRE(intel.ok());
  CHECK(has(*intel, "I_MPI_PIN"));
}
