// Resolving what is run and what is trained on: payload, data, training, checkpoint.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "agent/rank_process.hpp"
#include "launcher/job_draft.hpp"
#include "launcher/job_nearest.hpp"
#include "launcher/job_schema.hpp"

namespace mds::launcher {
namespace {

namespace fs = std::filesystem;
using trainer::DataFormat;

bool is_program(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
}

bool in_path(const std::string& program, const std::string& folders) {
  std::istringstream stream(folders);
  std::string folder;
  while (std::getline(stream, folder, ':')) {
    if (is_program(fs::path(folder.empty() ? "." : folder) / program)) return true;
  }
  return false;
}

// The largest divisor of a replica's share of the batch that stays within kTokens a pass (a size at which matrix
// products are large enough to be quick) and leaves a micro batch for every pipeline stage.
void resolve_micro_batch(JobDraft& draft) {
  constexpr int64_t kTokens = 8192;
  trainer::TrainingConfig& training = draft.job.trainer.training;
  const trainer::ParallelConfig& parallel = draft.job.trainer.parallel;
  if (draft.has("training.micro_batch_size") || draft.is_bad("training.micro_batch_size")) return;
  // On GPUs the machines decide (launcher/plan_cost_auto.hpp); what follows stands until then.
  draft.job.left_open.micro_batch = draft.job.device == topology::DeviceKind::cuda || draft.job.left_open.layout();
  if (draft.any_bad({"training.seq_len", "training.global_batch_size", "parallel.data", "parallel.pipeline"})) {
    draft.bad.insert("training.micro_batch_size");
    return;
  }
  training.micro_batch_size = 1;
  if (training.global_batch_size % parallel.data != 0) return;  // trainer::check() says so
  const int64_t share = training.global_batch_size / parallel.data;
  for (int64_t size = 1; size <= share && size * training.seq_len <= kTokens; ++size) {
    if (share % size == 0 && share / size >= parallel.pipeline) training.micro_batch_size = size;
  }
  if (draft.job.left_open.micro_batch) return;
  draft.note("training.micro_batch_size = " + std::to_string(training.micro_batch_size) + ": of a replica's " +
             std::to_string(share) + " samples, the largest divisor of at most 8192 tokens");
}

// `path` is what `written` came to.
void check_data_path(JobDraft& draft, const fs::path& path, const fs::path& written) {
  std::error_code error;
  if (draft.job.trainer.data.format != DataFormat::megatron) {
    if (fs::exists(path, error)) return;
    const bool moved = written.is_relative() && !draft.from_set("data.path");
    return draft.report("data.path", "data.path: there is no file or folder " + path.string() +
                                         (moved ? "; relative paths start at the job file's folder" : ""));
  }
  for (const char* extension : {".bin", ".idx"}) {
    if (fs::is_regular_file(path.string() + extension, error)) continue;
    const bool suffixed = path.extension() == ".bin" || path.extension() == ".idx";
    return draft.report("data.path", "data.path: there is no file " + path.string() + extension +
                                         (suffixed ? "; give the path without .bin or .idx"
                                                   : "; a Megatron data set is a prefix with .bin and .idx"));
  }
}

void resolve_data(JobDraft& draft) {
  if (draft.any_bad({"data.path", "data.format"})) return;
  auto& sources = draft.job.trainer.data.sources;
  if (draft.job.trainer.data.format == DataFormat::random) {  // trainer::check() refuses paths
  } else if (sources.empty()) {
    return draft.report("data.path", "data.path is missing: the files to learn from (or data.format = \"random\")");
  }
  for (trainer::DataSource& source : sources) {
    if (source.path.empty()) continue;  // trainer::check() says so
    const fs::path path = draft.located("data.path", source.path);
    if (draft.job.trainer.data.format != DataFormat::random) check_data_path(draft, path, source.path);
    source.path = path.string();
  }
  if (!draft.has("data.weights") || draft.is_bad("data.weights")) return;
  const DocumentList* weights = draft.given.at("data.weights")->node.list();
  if (weights && weights->size() != sources.size()) {
    draft.report("data.weights", "data.weights has " + std::to_string(weights->size()) + " entries for " +
                                     std::to_string(sources.size()) + " of data.path");
  }
}

// Of a run's folder or its checkpoints/, which users give instead of the checkpoint itself; else empty.
std::string newest_checkpoint_below(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / "manifest.json", error)) return "";
  std::string newest;
  for (const fs::path& parent : {folder, folder / "checkpoints"}) {
    for (fs::directory_iterator at(parent, error), end; !error && at != end; at.increment(error)) {
      const std::string path = at->path().string();
      if (fs::exists(at->path() / "manifest.json", error) && path > newest) newest = path;
    }
  }
  return newest;
}

void resolve_checkpoint(JobDraft& draft) {
  std::string& load = draft.job.trainer.checkpoint.load;
  if (load.empty() || draft.is_bad("checkpoint.load")) return;
  std::error_code error;
  load = fs::absolute(load, error).lexically_normal().string();
  if (!fs::is_directory(load, error)) {
    return draft.report("checkpoint.load", "checkpoint.load: there is no folder " + load);
  }
  const fs::path real = fs::canonical(load, error);  // runs/latest points elsewhere as soon as this run begins
  if (!error) load = real.string();
  if (const std::string inside = newest_checkpoint_below(load); !inside.empty()) {
    draft.report("checkpoint.load",
                 "checkpoint.load: " + load + " is not a checkpoint but holds some; give one, e.g. " + inside);
  }
}

// trainer::check() speaks of keys; it knows nothing of those that are already known to be wrong.
void check_trainer(JobDraft& draft) {
  const bool clean = draft.problems.empty();
  for (const trainer::ConfigProblem& problem : trainer::check(draft.job.trainer)) {
    const bool names_bad = std::any_of(draft.bad.begin(), draft.bad.end(), [&](const std::string& path) {
      return problem.key == path || problem.message.find(path) != std::string::npos;
    });
    if (names_bad) continue;
    if (!clean && !draft.has(problem.key)) continue;  // may only follow from another mistake
    draft.report(problem.key, problem.message);
  }
}

}  // namespace

void resolve_payload(JobDraft& draft) {
  const Job& job = draft.job;
  if (!draft.sections.count("payload") || draft.any_bad({"payload.command", "payload.mpi"})) return;
  if (job.payload.empty() || job.payload.front().empty()) {
    return draft.report("payload.command", "payload.command is missing: [\"program\", \"argument\", ...]");
  }
  for (const Section& section : job_sections()) {
    const auto place = draft.sections.find(section.name);
    if (!section.trains || section.name == "model" || place == draft.sections.end()) continue;
    draft.report(place->second, "[" + section.name +
                                    "] is for mdstrain, and this job runs payload.command instead; "
                                    "remove one of them");
  }
  if (job.container.runtime != container::Runtime::none) return;  // the program is in the image
  const std::string& program = job.payload.front();
  const auto own_path = job.env.find("PATH");
  const char* user_path = std::getenv("PATH");
  const std::string inherited = user_path ? user_path : agent::kDefaultPath;
  const std::string folders = own_path != job.env.end() ? own_path->second : inherited;
  const bool found = program.find('/') != std::string::npos ? is_program(program) : in_path(program, folders);
  if (!found)
    draft.report("payload.command", "payload.command: there is no program '" + program + "' (or it is not executable)");
}

void resolve_training(JobDraft& draft) {
  if (draft.sections.count("payload")) return;
  const bool nothing = !draft.sections.count("training") && !draft.sections.count("model");
  draft.report_missing("training", {"steps", "seq_len", "global_batch_size"},
                       nothing ? "; for a program of your own give payload.command" : "");
  resolve_data(draft);
  resolve_micro_batch(draft);
  resolve_checkpoint(draft);
  check_trainer(draft);
  finish_shape(draft);
}

}  // namespace mds::launcher
