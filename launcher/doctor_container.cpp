#include "launcher/doctor_container.hpp"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include "container/image_store.hpp"
#include "container/runtimes.hpp"

namespace mds::launcher {
namespace {

namespace fs = std::filesystem;
using container::Runtime;
using topology::Finding;
using topology::Severity;

constexpr std::chrono::seconds kPatience{30};
constexpr std::array kRuntimes{Runtime::apptainer, Runtime::podman, Runtime::charliecloud, Runtime::enroot,
                               Runtime::bubblewrap};
const char* const kLibraryFolders[] = {"/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64",
                                       "/usr/lib"};

std::string line_of(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

bool in_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (!folder.empty() && access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

std::pair<int, int> numbers(const std::string& version) {
  std::pair<int, int> out{0, 0};
  std::sscanf(version.c_str(), "%d.%d", &out.first, &out.second);
  return out;
}

/// The newest "GLIBC_2.36" that a program or library names, as "2.36"; empty: none.
std::string newest_libc_version(int file) {
  std::string text, newest;
  char buffer[1 << 16];
  for (ssize_t n; text.size() < (64 << 20) && (n = read(file, buffer, sizeof buffer)) > 0;) text.append(buffer, n);
  const std::string prefix = "GLIBC_2.";
  for (size_t at = 0; (at = text.find(prefix, at)) != std::string::npos; at += prefix.size()) {
    const size_t begin = at + 6, end = text.find_first_not_of("0123456789.", begin);
    const std::string version = text.substr(begin, end - begin);
    if (numbers(version) > numbers(newest)) newest = version;
  }
  return newest;
}

/// A file as the image sees it: links, even absolute ones, end inside. -1: there is none.
int open_inside(int root, const std::string& path) {
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT;
  return static_cast<int>(syscall(SYS_openat2, root, path.c_str(), &how, sizeof how));
}

bool is_inside(int root, const std::string& path) {
  const int file = open_inside(root, path);
  if (file >= 0) close(file);
  return file >= 0;
}

/// First word of what a rank runs, if the image should have it and has not.
std::string lacking_program(const Job& job, const container::Session& session) {
  const std::string program = job.payload.empty() ? job.container_trainer : job.payload.front();
  const int root = session.entrance().root;
  if (program.find('/') != std::string::npos) {
    return program.front() != '/' || is_inside(root, program) ? "" : program;
  }
  const auto path = session.environment().find("PATH");
  std::istringstream folders(path == session.environment().end() ? "/usr/bin:/bin" : path->second);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (is_inside(root, folder + "/" + program)) return "";
  }
  return program;
}

ImageFacts read_image_facts(const Job& job, const container::Session& session, Runtime runtime) {
  ImageFacts facts;
  facts.runtime = to_string(runtime);
  const int root = session.entrance().root;
  for (const std::string folder : kLibraryFolders) {
    facts.libibverbs = facts.libibverbs || is_inside(root, folder + "/libibverbs.so.1") ||
                       is_inside(root, "/usr" + folder + "/libibverbs.so.1");
    const int library = facts.libc.empty() ? open_inside(root, folder + "/libc.so.6") : -1;
    if (library < 0) continue;
    facts.libc = newest_libc_version(library);
    close(library);
  }
  if (const int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC); self >= 0) {
    facts.libc_needed = newest_libc_version(self);
    close(self);
  }
  facts.lacks = lacking_program(job, session);
  return facts;
}

}  // namespace

ContainerFacts read_container_facts() {
  ContainerFacts facts;
  facts.privileged = geteuid() == 0;
  for (const Runtime runtime : kRuntimes) {
    if (container::find_runtime(runtime, "mds-doctor")) facts.runtimes.push_back(to_string(runtime));
  }
  facts.squashfuse = in_path("squashfuse_ll") || in_path("squashfuse");
  facts.runc = in_path("runc");
  return facts;
}

std::vector<Finding> examine_container_host(const ContainerFacts& facts, const std::string& host, bool wanted) {
  std::vector<Finding> findings;
  const auto add = [&](const char* code, std::string subject, std::string message, std::string remedy) {
    findings.push_back({wanted ? Severity::warning : Severity::note, code, host, std::move(subject),
                        std::move(message), std::move(remedy)});
  };
  const auto has = [&](const char* name) {
    return std::find(facts.runtimes.begin(), facts.runtimes.end(), name) != facts.runtimes.end();
  };
  std::error_code failed;
  if (facts.runtimes.empty()) {
    add("no-container-runtime", "containers", "no container runtime is installed: jobs with an image cannot run here",
        "Install one of apptainer, podman, charliecloud, enroot, bubblewrap, or load its module.");
    return findings;
  }
  if (line_of(facts.root + "/proc/sys/user/max_user_namespaces") == "0") {
    add("user-namespaces-off", "user.max_user_namespaces", "user namespaces are switched off: no runtime starts "
        "without privileges", "sysctl user.max_user_namespaces=65536");
  }
  if (!facts.privileged && line_of(facts.root + "/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1") {
    add("user-namespaces-apparmor", "AppArmor", "user namespaces are for programs with a profile only",
        "An AppArmor profile for the runtime with the rule userns, or "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0");
  }
  // Image files are mounted through FUSE where nobody is root; unpacked folders need neither.
  if (has("apptainer") || has("charliecloud")) {
    if (!fs::exists(facts.root + "/dev/fuse", failed)) {
      add("fuse-missing", "/dev/fuse", "image files cannot be mounted without privileges",
          "modprobe fuse; in a container of its own --device /dev/fuse; or give an unpacked folder as the image.");
    } else if (!facts.squashfuse) {
      add("squashfuse-missing", "squashfuse_ll", "SIF and squashfs files cannot be mounted without privileges",
          "Install squashfuse, or give an unpacked folder as the image.");
    }
  }
  if (has("podman") && !facts.runc && fs::exists(facts.root + "/sys/fs/cgroup", failed) &&
      !fs::exists(facts.root + "/sys/fs/cgroup/cgroup.controllers", failed)) {
    add("cgroup-v1", "podman", "control groups are of version 1 or mixed, which crun refuses",
        "Install runc: mdslaunch then tries podman with --cgroup-manager=cgroupfs --runtime=runc.");
  }
  return findings;
}

std::vector<Finding> examine_image(const ImageFacts& facts, const topology::Machine& machine) {
  std::vector<Finding> findings;
  const auto add = [&](Severity severity, const char* code, std::string subject, std::string message,
                       std::string remedy) {
    findings.push_back({severity, code, machine.host, std::move(subject), std::move(message), std::move(remedy)});
  };
  if (!facts.lacks.empty()) {
    add(Severity::fault, "image-lacks-program", facts.lacks, "the image has no such program",
        "Name it by its path inside (container.trainer for mdstrain), or bind it.");
  }
  if (!facts.libibverbs) {
    const bool rdma = std::any_of(machine.nics.begin(), machine.nics.end(), [](const auto& nic) { return nic.rdma; });
    add(rdma ? Severity::warning : Severity::note, "image-without-verbs", "libibverbs.so.1",
        "the image has no libibverbs: NCCL falls back to TCP in silence",
        "Install libibverbs1 and ibverbs-providers (Red Hat: rdma-core) in the image.");
  }
  if (!facts.libc.empty() && !facts.libc_needed.empty() && numbers(facts.libc) < numbers(facts.libc_needed)) {
    add(Severity::note, "image-libc-old", "glibc " + facts.libc,
        "older than the " + facts.libc_needed + " that this build's programs need: bound into the image they do not "
        "start",
        "Use an mdstrain that was built in the image (container.trainer), as container/*.def do.");
  }
  return findings;
}

std::vector<Finding> try_job_container(const Job& job, const topology::Machine& machine) {
  std::vector<Finding> findings;
  container::Container wanted = job.container;
  const auto add = [&](Severity severity, const char* code, std::string subject, std::string message,
                       std::string remedy) {
    findings.push_back({severity, code, machine.host, std::move(subject), std::move(message), std::move(remedy)});
  };
  const auto staged = container::stage_image(wanted, container::default_image_store());
  if (!staged) {
    add(Severity::fault, "image-unusable", wanted.image, staged.error().message, "");
    return findings;
  }
  wanted.image = staged->path;
  bool entered = false;
  const auto trials = container::try_runtimes(wanted, kPatience);
  const auto works = [&](const auto& like) {
    return std::any_of(trials.begin(), trials.end(), [&](const auto& trial) { return trial.works && like(trial); });
  };
  const bool one_works = works([](const auto&) { return true; });
  for (const auto& trial : trials) {
    const std::string name = to_string(trial.runtime);
    if (!trial.works) {
      // Podman is tried in several ways, of which one is enough; where any runtime will do, one that is not installed
      // is no news.
      if (works([&](const auto& other) { return other.runtime == trial.runtime; })) continue;
      if (wanted.runtime == Runtime::automatic && !container::find_runtime(trial.runtime, "")) continue;
      add(one_works ? Severity::note : Severity::warning, "runtime-fails", name, trial.problem, "");
      continue;
    }
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.2f s", trial.seconds);
    add(Severity::note, "runtime-works", name, std::string("started the image in ") + seconds, "");
    if (entered) continue;
    container::Container chosen = wanted;
    chosen.runtime = trial.runtime;
    auto session = container::start_container(chosen, "mds-doctor-" + std::to_string(getpid()), kPatience);
    if (!session) continue;
    entered = true;
    for (Finding& finding : examine_image(read_image_facts(job, *session, trial.runtime), machine)) {
      findings.push_back(std::move(finding));
    }
    session->close(std::chrono::seconds(5));
  }
  if (!entered) {
    add(Severity::fault, "runtime-fails", to_string(wanted.runtime), "no runtime here starts the image",
        "What each runtime said is with the findings named runtime-fails.");
  }
  return findings;
}

}  // namespace mds::launcher
