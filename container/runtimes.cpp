#include "container/runtimes.hpp"

#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "container/private_folder.hpp"

namespace mds::container {
namespace {

namespace fs = std::filesystem;

struct Known {
  Runtime runtime;
  std::vector<const char*> programs;   // the first that is there
  const char* package;
};

const std::vector<Known>& known_runtimes() {  // in the order in which "auto" tries them
  static const std::vector<Known> all{{Runtime::apptainer, {"apptainer", "singularity"}, "apptainer or singularity-ce"},
                                      {Runtime::podman, {"podman"}, "podman"},
                                      {Runtime::charliecloud, {"ch-run"}, "charliecloud"},
                                      {Runtime::enroot, {"enroot"}, "enroot"},
                                      {Runtime::bubblewrap, {"bwrap"}, "bubblewrap"}};
  return all;
}

std::string in_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string candidate = folder + "/" + program;
    if (!folder.empty() && folder[0] == '/' && access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

/// podman's own upper bound of processes is the kernel's pid_max, whatever our limit is.
unsigned long processes_max() {
  rlimit limit{};
  getrlimit(RLIMIT_NPROC, &limit);
  std::error_code failed;
  unsigned long pids = 32768;
  if (FILE* file = std::fopen("/proc/sys/kernel/pid_max", "re")) {
    if (std::fscanf(file, "%lu", &pids) != 1) pids = 32768;
    std::fclose(file);
  }
  return std::min<unsigned long>(limit.rlim_cur, pids);
}

/// One for all of this user's containers on this node, made by start_one().
std::string store_in_memory() {
  constexpr const char* kMemory = "/dev/shm";
  struct statfs info {};
  if (statfs(kMemory, &info) < 0 || info.f_type != TMPFS_MAGIC) return "";
  return std::string(kMemory) + "/mds-podman-" + std::to_string(geteuid());
}

std::vector<std::string> accelerator_devices() {
  std::vector<std::string> devices;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator("/dev", failed)) {
    const std::string name = entry.path().filename();
    if (name.rfind("nvidia", 0) == 0 && entry.is_character_file(failed)) devices.push_back(entry.path());
  }
  if (fs::is_directory("/dev/infiniband", failed)) devices.push_back("/dev/infiniband");
  std::sort(devices.begin(), devices.end());
  return devices;
}

/// Options to try beyond the job's own: podman's defaults want systemd and, with crun, a pure cgroup v2. Each try that
/// fails costs a fifth of a second, so the likeliest comes first.
std::vector<std::vector<std::string>> variants(Runtime runtime) {
  if (runtime != Runtime::podman) return {{}};
  std::vector<std::vector<std::string>> all{
      {}, {"--cgroup-manager=cgroupfs"}, {"--cgroup-manager=cgroupfs", "--runtime=runc"}};
  std::error_code failed;
  const bool pure = fs::exists("/sys/fs/cgroup/cgroup.controllers", failed);
  if (!pure && !in_path("runc").empty()) std::rotate(all.begin(), all.end() - 1, all.end());
  return all;
}

Result<Session> start_one(Container container, Runtime runtime, const std::vector<std::string>& more,
                          const std::string& name, std::chrono::milliseconds patience) {
  container.runtime = runtime;
  container.runtime_options.insert(container.runtime_options.end(), more.begin(), more.end());
  auto host = find_runtime(runtime, name);
  if (!host) return host.error();
  // Where it cannot be made or is another's, podman's own place is as good, only slower.
  if (!host->store.empty() && !make_private_folder(host->store, "podman's store", "")) host->store.clear();
  return Session::start(container, *host, patience);
}

std::vector<Runtime> candidates(const Container& container) {
  if (container.runtime != Runtime::automatic) return {container.runtime};
  std::vector<Runtime> all;
  for (const Known& known : known_runtimes()) all.push_back(known.runtime);
  return all;
}

}  // namespace

Result<Host> find_runtime(Runtime runtime, const std::string& name) {
  for (const Known& known : known_runtimes()) {
    if (known.runtime != runtime) continue;
    for (const char* program : known.programs) {
      const std::string path = in_path(program);
      if (path.empty()) continue;
      Host host;
      host.runtime_program = path;
      host.name = name;
      rlimit files{};
      getrlimit(RLIMIT_NOFILE, &files);
      host.files_max = files.rlim_max;
      host.processes_max = processes_max();
      std::error_code failed;
      host.has_cdi = fs::exists("/etc/cdi/nvidia.yaml", failed) || fs::exists("/var/run/cdi/nvidia.yaml", failed);
      host.devices = accelerator_devices();
      if (runtime == Runtime::podman) host.store = store_in_memory();
      return host;
    }
    return unavailable(std::string(to_string(runtime)) + " is not on this node: no " + known.programs.front() +
                       " in PATH (install the package " + known.package + ", or load its module)");
  }
  return unavailable(std::string("no such runtime: ") + to_string(runtime));
}

std::string remedy_for(Runtime runtime, const std::string& complaint) {
  const auto says = [&](const char* text) { return complaint.find(text) != std::string::npos; };
  if (says("max_user_namespaces") || says("user namespace") || says("CLONE_NEWUSER") ||
      says("Creating new namespace")) {
    return "allow user namespaces: sysctl user.max_user_namespaces=65536, and on Ubuntu "
           "kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile for the runtime";
  }
  if (says("trying to read the squashfs")) {
    return "the image file is damaged or cut off: fetch or build it again (container.sha256 finds that on every node)";
  }
  if (says("/dev/fuse") || says("fuse:") || says("squashfuse")) {
    return "mounting an image file without privileges needs /dev/fuse (modprobe fuse) and squashfuse_ll (package "
           "squashfuse); or give an unpacked folder";
  }
  if (says("cgroup")) return "its cgroup set-up does not fit this node: container.runtime_options = "
                             "[\"--cgroup-manager=cgroupfs\", \"--runtime=runc\"] often does";
  if (says("GLIBC_")) return "the program is newer than the image's C library: use the one inside the image";
  if (says("RLIMIT")) return "it asks for higher limits than this account may have: raise them (ulimit -Hn, -Hu)";
  if (says("subuid") || says("newuidmap")) return "give the account ranges in /etc/subuid and /etc/subgid";
  if (runtime == Runtime::charliecloud && says("can't bind")) {
    return "charliecloud cannot create mount points in a read-only image: bind below folders that it has, such as /mnt";
  }
  return "";
}

std::vector<Trial> try_runtimes(const Container& container, std::chrono::milliseconds patience) {
  std::vector<Trial> trials;
  for (const Runtime runtime : candidates(container)) {
    for (const auto& more : variants(runtime)) {
      Trial& trial = trials.emplace_back();
      trial.runtime = runtime;
      trial.runtime_options = more;
      const auto begin = std::chrono::steady_clock::now();
      auto session = start_one(container, runtime, more, "mds-try-" + std::to_string(getpid()), patience);
      trial.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      trial.works = session.ok();
      if (session) session->close(std::chrono::seconds(5));
      if (!session) {
        trial.problem = session.error().message;
        const std::string remedy = remedy_for(runtime, trial.problem);
        if (!remedy.empty()) trial.problem += "; " + remedy;
      }
      if (trial.works || !find_runtime(runtime, "")) break;
    }
  }
  return trials;
}

Result<Session> start_container(const Container& container, const std::string& name,
                                std::chrono::milliseconds patience) {
  std::string problems;
  for (const Runtime runtime : candidates(container)) {
    if (!find_runtime(runtime, name) && container.runtime == Runtime::automatic) continue;
    for (const auto& more : variants(runtime)) {
      auto session = start_one(container, runtime, more, name, patience);
      if (session) return session;
      const std::string remedy = remedy_for(runtime, session.error().message);
      problems += (problems.empty() ? "" : "; ") + session.error().message;
      if (!remedy.empty()) problems += " (" + remedy + ")";
      if (!find_runtime(runtime, name)) break;
    }
  }
  if (problems.empty()) problems = "no container runtime is on this node (apptainer, podman, ch-run, enroot, bwrap)";
  return unavailable(problems);
}

}  // namespace mds::container
