#include "launcher/plan_cluster.hpp"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "topology/read/discover.hpp"

namespace mds::launcher {

namespace fs = std::filesystem;

Result<topology::Cluster> job_cluster(const Job& job) {
  topology::DiscoverOptions options;
  options.gpus = job.device == topology::DeviceKind::cuda;  // a CPU job does not wait for the GPU library
  Result<topology::Machine> machine = topology::discover_machine(options);
  if (!machine) return machine.error();
  topology::Cluster cluster;
  cluster.nodes.assign(static_cast<size_t>(job.nodes), *machine);
  return cluster;
}

Result<std::string> program_beside_us(const std::string& name) {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  const fs::path beside = self.parent_path() / name;
  if (!error && access(beside.c_str(), X_OK) == 0) return beside.string();
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "");
  std::string folder;
  while (std::getline(folders, folder, ':')) {
    const fs::path candidate = fs::path(folder) / name;
    if (!folder.empty() && access(candidate.c_str(), X_OK) == 0) return fs::absolute(candidate).string();
  }
  return bad_input("cannot find " + name + " beside mdslaunch (" + self.parent_path().string() + ") or in PATH");
}

}  // namespace mds::launcher
