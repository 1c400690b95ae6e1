// What doctor says of containers, on machines that are made up.
#include "launcher/doctor_container.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "tests/catch.hpp"

using namespace mds;
using namespace mds::launcher;
namespace fs = std::filesystem;

namespace {

/// A machine where every runtime works: its faults are put in by the tests.
class FakeHost {
 public:
  FakeHost() : root_(fs::temp_directory_path() / ("mds-doctor-" + std::to_string(getpid()))) {
    write("proc/sys/user/max_user_namespaces", "65536");
    write("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "0");
    write("dev/fuse", "");
    write("sys/fs/cgroup/cgroup.controllers", "cpu memory");
    facts.root = root_;
    facts.runtimes = {"apptainer", "podman"};
    facts.squashfuse = true;
  }
  ~FakeHost() { fs::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << "\n";
  }
  void remove(const std::string& path) { fs::remove(root_ / path); }
  std::set<std::string> codes() const {
    std::set<std::string> out;
    for (const auto& finding : examine_container_host(facts, "h", true)) {
      CHECK_FALSE(finding.remedy.empty());
      CHECK(finding.severity == topology::Severity::warning);
      out.insert(finding.code);
    }
    return out;
  }
  ContainerFacts facts;

 private:
  fs::path root_;
};

using Codes = std::set<std::string>;

Codes codes_of(const std::vector<topology::Finding>& findings) {
  Codes out;
  for (const auto& finding : findings) out.insert(finding.code);
  return out;
}

}  // namespace

TEST_CASE("Doctor names what container runtimes lack, with a remedy", "[doctor][container]") {
  FakeHost host;
  CHECK(host.codes().empty());
  SECTION("no runtime") {
    host.facts.runtimes.clear();
    CHECK(host.codes() == Codes{"no-container-runtime"});
    CHECK(examine_container_host(host.facts, "h", false).at(0).severity == topology::Severity::note);
  }
  SECTION("user namespaces are off") {
    host.write("proc/sys/user/max_user_namespaces", "0");
    CHECK(host.codes() == Codes{"user-namespaces-off"});
  }
  SECTION("AppArmor restricts them, but not root") {
    host.write("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1");
    CHECK(host.codes() == Codes{"user-namespaces-apparmor"});
    host.facts.privileged = true;
    CHECK(host.codes().empty());
  }
  SECTION("nothing mounts image files") {
    host.facts.squashfuse = false;
    CHECK(host.codes() == Codes{"squashfuse-missing"});
    host.remove("dev/fuse");
    CHECK(host.codes() == Codes{"fuse-missing"});
    host.facts.runtimes = {"bubblewrap"};
    CHECK(host.codes().empty());
  }
  SECTION("old control groups") {
    host.remove("sys/fs/cgroup/cgroup.controllers");
    CHECK(host.codes() == Codes{"cgroup-v1"});
    host.facts.runc = true;
    CHECK(host.codes().empty());
  }
}

TEST_CASE("Doctor looks into the image", "[doctor][container]") {
  topology::Machine machine;
  ImageFacts facts{"podman", "2.36", "2.34", true, ""};
  CHECK(examine_image(facts, machine).empty());
  facts.libibverbs = false;
  CHECK(examine_image(facts, machine).at(0).severity == topology::Severity::note);
  machine.nics.emplace_back().rdma = true;
  CHECK(examine_image(facts, machine).at(0).severity == topology::Severity::warning);
  facts.libc = "2.9";
  CHECK(codes_of(examine_image(facts, machine)) == Codes{"image-without-verbs", "image-libc-old"});
  facts.lacks = "mdstrain";
  CHECK(examine_image(facts, machine).at(0).severity == topology::Severity::fault);
}

TEST_CASE("Doctor says that a file is no image, and that a runtime starts a folder", "[doctor][container]") {
  Job job;
  job.container.runtime = container::Runtime::automatic;
  job.container.image = "/proc/self/exe";
  CHECK(codes_of(try_job_container(job, {})) == Codes{"image-unusable"});
}
