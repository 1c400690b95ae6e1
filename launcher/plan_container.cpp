#include "launcher/plan_container.hpp"

#include <algorithm>

#include "container/command_line.hpp"
#include "container/runtimes.hpp"
#include "launcher/stage_plan.hpp"

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

/// What mdstrain reads.
void bind_inputs(const trainer::TrainerConfig& trainer, Container& container) {
  for (const trainer::DataSource& source : trainer.data.sources) {
    // Of Megatron's data sets the path is a prefix of two files.
    const bool prefix = trainer.data.format == trainer::DataFormat::megatron;
    bind_in_place(container, prefix ? source.path.substr(0, source.path.rfind('/')) : source.path, true);
  }
  bind_in_place(container, trainer.model.from_pretrained, true);
  bind_in_place(container, trainer.checkpoint.load, true);
}

/// The image, the folder of all that was staged, and what the job file says of files that were.
void take_staged(const StagePlan& stage, Container& container) {
  container.image = stage.image_on_node(container.sha256);
  for (Bind& bind : container.binds) bind.source = stage.outside(bind.source);
  container.binds.push_back({stage.node_root, stage.root, false});
  for (auto& [name, value] : container.env) {
    if (value.starts_with('/')) value = stage.on_node(value);
  }
  const std::string& given = container.working_dir;
  container.working_dir = given.empty() ? stage.root + stage.working_dir : stage.on_node(given);
}

bool matches(const std::string& name, const std::string& pattern) {
  if (pattern.empty() || pattern.back() != '*') return name == pattern;
  return name.compare(0, pattern.size() - 1, pattern, 0, pattern.size() - 1) == 0;
}

}  // namespace

Result<Container> job_container(const Job& job, const std::string& run_folder, const StagePlan* stage) {
  Container container = job.container;
  if (container.runtime == Runtime::none) return Container{};
  container.gpus = job.device == topology::DeviceKind::cuda;
  if (stage) {
    if (Status fine = container::check(container, {stage->root}); !fine) return fine.error();  // the job's own binds
    take_staged(*stage, container);
  }
  if (!stage || stage->shares_run_folder) bind_in_place(container, run_folder, false);
  if (job.payload.empty()) {
    if (!stage) bind_inputs(job.trainer, container);
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
