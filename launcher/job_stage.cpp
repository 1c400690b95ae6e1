// Resolving [stage]: what is to reach nodes that share no file system with this machine, and where.
#include <unistd.h>

#include <filesystem>

#include "agent/stage_store.hpp"
#include "launcher/job_draft.hpp"

namespace mds::launcher {
namespace {

namespace fs = std::filesystem;

void locate_files(JobDraft& draft) {
  for (std::string& file : draft.job.stage.files) {
    std::error_code error;
    const std::string written = file;
    file = draft.located("stage.files", written).lexically_normal().string();
    if (file.size() > 1 && file.back() == '/') file.pop_back();
    if (file == "/" || !fs::exists(file, error)) {
      draft.report("stage.files", "stage.files: there is no file or folder " + file);
    }
  }
}

}  // namespace

void resolve_stage(JobDraft& draft) {
  Job& job = draft.job;
  if (draft.is_bad("stage.enabled")) return;
  if (!job.stage.enabled) {
    if (!job.stage.files.empty() && !draft.is_bad("stage.files")) {
      draft.report("stage.files", "stage.files is given, but stage.enabled is not: say stage.enabled = true");
    }
    return;
  }
  if (!draft.is_bad("stage.files")) locate_files(draft);
  if (job.stage.folder.empty()) job.stage.folder = "/var/tmp/mds-stage-" + std::to_string(geteuid());
  if (!draft.is_bad("stage.folder") && !agent::is_stage_path(job.stage.folder)) {
    draft.report("stage.folder", "stage.folder must be an absolute path such as \"/scratch/stage\": it is a folder of "
                                 "each node's own");
  }
  if (!draft.is_bad("job.backend") && job.backend == Backend::mpi) {
    draft.report("stage.enabled", "stage.enabled: not every mpirun can copy a program to a node; use job.backend = "
                                  "\"ssh\" or \"slurm\", or install mdsagent on every node and leave [stage] out");
  }
  std::error_code ignored;
  const bool contained = job.container.runtime != container::Runtime::none && !draft.is_bad("container.image");
  if (contained && fs::is_directory(job.container.image, ignored)) {
    draft.report("container.image", "container.image: " + job.container.image + " is a folder, and stage.enabled sends "
                                    "files: pack it (tar -C FOLDER -cf image.tar .), or build a SIF or squashfs file");
  }
}

}  // namespace mds::launcher
