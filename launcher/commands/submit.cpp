// mdslaunch sbatch JOB.toml, mdslaunch submit JOB.toml
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <utility>

#include "launcher/backend_child.hpp"
#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/plan_cluster.hpp"
#include "launcher/run.hpp"
#include "slurm/script.hpp"

namespace mds::launcher {
namespace {

constexpr int kChainMax = 1000;

std::vector<std::string> launcher_words(const Arguments& arguments, const std::string& program) {
  std::error_code error;
  std::vector<std::string> words{program, "run"};
  if (arguments.has("nodes")) words.insert(words.end(), {"--nodes", arguments.value("nodes")});
  for (const std::string& value : arguments.values("set")) words.insert(words.end(), {"--set", value});
  if (arguments.has("output-dir")) {
    words.insert(words.end(),
                 {"--output-dir", std::filesystem::absolute(arguments.value("output-dir"), error).string()});
  }
  words.push_back(std::filesystem::absolute(arguments.positional.at(0), error).string());
  return words;
}

Result<std::string> make_script(const Arguments& arguments, const Job& job) {
  const Result<std::string> program = program_beside_us("mdslaunch");
  if (!program) return program.error();
  std::error_code error;
  slurm::BatchScript script;
  script.job_name = job.name;
  script.nodes =
      arguments.has("nodes") ? arguments.value("nodes") : std::to_string(job.nodes + job.restart.spare_nodes);
  script.partition = job.slurm.partition;
  script.account = job.slurm.account;
  script.time = job.slurm.time;
  script.memory_bytes = job.slurm.memory;
  script.gpus_per_node = job.device == topology::DeviceKind::cuda ? job.ranks_per_node : 0;
  script.exclusive = job.slurm.exclusive;
  script.requeue = job.slurm.requeue;
  script.no_kill = job.nodes > 1 && job.restart.lost_node != LostNode::requeue;
  script.signal_before_end_s = std::chrono::ceil<std::chrono::seconds>(job.slurm.signal_before_end).count();
  script.array = job.slurm.array;
  script.output_dir = job.output_dir;
  script.working_dir = std::filesystem::current_path(error).string();
  script.notes = {
      "Slurm job of " + job.name + ", made by `mdslaunch sbatch`. Change what you like: it depends on nothing but",
      "the job file and the programs that it names, on paths that every node sees. Hand it in with sbatch;",
      "the folder of its output must be there: " + job.output_dir};
  script.setup = job.slurm.setup;
  script.extra = job.slurm.extra;
  script.command = launcher_words(arguments, *program);
  script.seeds_from_array = {"training.seed", "data.seed"};
  if (!job.payload.empty()) script.seeds_from_array.clear();
  if (!job.container.image.empty()) {
    script.notes.push_back("Ranks run in the container " + job.container.image +
                           "; this script and mdslaunch run outside.");
  }
  return slurm::batch_script(script);
}

/// The number of jobs in the chain. Errors: bad_input.
Result<int> chain_length(const Arguments& arguments) {
  if (!arguments.has("chain")) return 1;
  int length = 0;
  char rest = 0;
  const std::string text = arguments.value("chain");
  if (std::sscanf(text.c_str(), "%5d%c", &length, &rest) != 1 || length < 1 || length > kChainMax) {
    return bad_input("--chain " + text + " is no number from 1 to " + std::to_string(kChainMax));
  }
  return length;
}

/// A file that goes with its owner.
class ScriptFile {
 public:
  static Result<ScriptFile> write(const std::string& text) {
    std::error_code error;
    std::string path = (std::filesystem::temp_directory_path(error) / "mdslaunch-XXXXXX").string();
    const int fd = mkstemp(path.data());
    if (fd < 0) return bad_input("cannot make a file in the folder for temporary ones");
    close(fd);
    ScriptFile file(path);
    if (Status s = write_text(path, text); !s) return s.error();
    return file;
  }
  ScriptFile(ScriptFile&& other) noexcept : path_(std::exchange(other.path_, "")) {}
  ~ScriptFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  explicit ScriptFile(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

/// The id of the new job.
Result<std::string> hand_in(const std::string& sbatch, const Arguments& arguments, const std::string& path,
                            const std::string& first, const std::string& before) {
  std::vector<std::string> words{sbatch, "--parsable"};
  for (const std::string& option : arguments.values("sbatch-option")) words.push_back(option);
  if (!before.empty()) {
    words.push_back("--dependency=afterany:" + before);
    words.push_back("--export=ALL,MDS_CONTINUE_JOB=" + first);
  }
  words.push_back(path);
  const auto text = output_of(words);
  if (!text) return text.error();
  return text->substr(0, text->find_first_of(";\n"));
}

}  // namespace

int sbatch_command(const Arguments& arguments) {
  int exit_code = 0;
  const std::optional<Job> job = load_job(arguments, exit_code);
  if (!job) return exit_code;
  const auto script = make_script(arguments, *job);
  if (!script) return report_error(script.error());
  return std::fputs(script->c_str(), stdout) < 0 ? kExitFailed : kExitFinished;
}

int submit_command(const Arguments& arguments) {
  int exit_code = 0;
  const std::optional<Job> job = load_job(arguments, exit_code);
  if (!job) return exit_code;
  const auto length = chain_length(arguments);
  if (!length) return report_error(length.error());
  const auto script = make_script(arguments, *job);
  if (!script) return report_error(script.error());
  const auto sbatch = program_in_path("sbatch");
  if (!sbatch) return report_error(sbatch.error().within("is this a machine of the cluster?"));
  const auto file = ScriptFile::write(*script);
  if (!file) return report_error(file.error());
  std::error_code error;
  std::filesystem::create_directories(job->output_dir, error);
  std::string first, before;
  for (int n = 0; n < *length; ++n) {
    const auto id = hand_in(*sbatch, arguments, file->path(), first, before);
    if (!id) return report_error(id.error());
    before = *id;
    if (first.empty()) first = *id;
    std::printf("%s\n", id->c_str());
  }
  return kExitFinished;
}

}  // namespace mds::launcher
