#include "launcher/plan_container.hpp"

#include <algorithm>

#include "container/command_line.hpp"
#include "container/runtimes.hpp"

namespace mds::launcher {
namespace {

using container::Bind;
using container::Container;
using container::Runtime;

bool lies_in(const std::string& path, const std::string& folder) {
  return path == folder || (path.size() > folder.size() && path.compare(0, folder.size(), folder) == 0 &&
                            path[folder.size()] == '/');
}

/// Binds `path` where it is, unless a bind of the job's covers it already.
void bind_in_place(Container& container, const std::string& path, bool read_only) {
  const bool covered = std::any_of(container.binds.begin(), container.binds.end(), [&](const Bind& bind) {
    return lies_in(path, bind.target) && (read_only || !bind.read_only);
  });
  if (!path.empty() && !covered) container.binds.push_back({path, path, read_only});
}

bool matches(const std::string& name, const std::string& pattern) {
  if (pattern.empty() || pattern.back() != '*') return name == pattern;
  return name.compare(0, pattern.size() - 1, pattern, 0, pattern.size() - 1) == 0;
}

}  // namespace

Result<Container> job_container(const Job& job, const std::string& run_folder) {
  Container container = job.container;
  if (container.runtime == Runtime::none) return Container{};
  container.gpus = job.device == topology::DeviceKind::cuda;
  bind_in_place(container, run_folder, false);
  if (job.payload.empty()) {
    for (const trainer::DataSource& source : job.trainer.data.sources) {
      // Of Megatron's data sets the path is a prefix of two files.
      const bool prefix = job.trainer.data.format == trainer::DataFormat::megatron;
      bind_in_place(container, prefix ? source.path.substr(0, source.path.rfind('/')) : source.path, true);
    }
    bind_in_place(container, job.trainer.model.from_pretrained, true);
    bind_in_place(container, job.trainer.checkpoint.load, true);
    bind_in_place(container, job.trainer.zero.nvme_path, false);
  }
  if (container.working_dir.empty()) container.working_dir = run_folder;
  if (Status fine = container::check(container, {run_folder}); !fine) return fine.error();
  return container;
}

std::map<std::string, std::string> let_in(const Job& job, const std::map<std::string, std::string>& environment) {
  if (job.container.runtime == Runtime::none) return environment;
  std::map<std::string, std::string> out;
  for (const auto& [name, value] : environment) {
    const auto& patterns = job.container.inherit;
    const bool wanted = std::any_of(patterns.begin(), patterns.end(), [&name = name](const std::string& pattern) {
      return matches(name, pattern);
    });
    if (wanted) out.emplace(name, value);
  }
  return out;
}

Result<std::string> container_text(const Container& container) {
  if (container.runtime == Runtime::none) return std::string();
  Container shown = container;
  for (const Runtime runtime : {Runtime::apptainer, Runtime::podman, Runtime::charliecloud, Runtime::enroot,
                                Runtime::bubblewrap}) {
    if (shown.runtime == Runtime::automatic && container::find_runtime(runtime, "mds")) shown.runtime = runtime;
  }
  const auto host = container::find_runtime(shown.runtime, "mds-RUN-nNODE-aATTEMPT");
  if (!host) return host.error();
  return container::shell_text(container::command_line(shown, *host, {"..."}));
}

}  // namespace mds::launcher
