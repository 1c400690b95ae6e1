#include "launcher/stage_plan.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <sstream>

#include "agent/stage_store.hpp"
#include "container/image_store.hpp"
#include "container/sha256.hpp"
#include "launcher/backend_child.hpp"

namespace mds::launcher {
namespace {

namespace fs = std::filesystem;
using agent::StageEntry;

/// What every node has of its own, from its packages and its kernel.
constexpr std::array kSystemFolders = {"/bin",  "/sbin", "/lib",  "/lib32", "/lib64", "/usr",
                                       "/etc",  "/dev",  "/proc", "/sys",   "/run"};

bool lies_in(const std::string& path, const std::string& folder) {
  return path.size() >= folder.size() && path.compare(0, folder.size(), folder) == 0 &&
         (path.size() == folder.size() || path[folder.size()] == '/');
}

bool is_of_system(const std::string& path) {
  return std::any_of(kSystemFolders.begin(), kSystemFolders.end(),
                     [&](const char* folder) { return lies_in(path, folder); });
}

std::string normal(const fs::path& path) {
  std::string text = path.lexically_normal().string();
  if (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

/// Where the path in a word begins: at once, or behind "name=".
size_t path_in(const std::string& word) {
  const size_t equals = word.find('=');
  return word.starts_with('/') || equals == std::string::npos ? 0 : equals + 1;
}

/// Programs and files in a command; folders must be listed, or "." would take all that lies here. With an image
/// absolute paths are the image's: what this machine has there is something else.
void add_words(const std::vector<std::string>& command, const std::string& working_dir, StagePlan& stage) {
  for (const std::string& word : command) {
    const bool by_path = &word == &command.front() && word.find('/') == std::string::npos;  // found in PATH there
    const std::string written = word.substr(path_in(word));
    const std::string path = normal(fs::path(working_dir) / written);
    std::error_code ignored;
    if (!stage.image.empty() && written.starts_with('/') && !lies_in(path, working_dir)) continue;
    if (by_path || written.empty() || is_of_system(path) || !fs::is_regular_file(path, ignored)) continue;
    stage.sources.push_back(path);
  }
}

/// A program or library with those that it needs and that are not the system's own.
Status add_with_libraries(const std::string& program, StagePlan& stage) {
  stage.sources.push_back(normal(program));
  const auto ldd = program_in_path("ldd");
  if (!ldd) return ldd.error().within("stage.enabled");
  const auto text = output_of({*ldd, program});
  if (!text) return text.error().within("finding out the libraries of " + program);
  std::istringstream lines(*text);
  std::string line;
  while (std::getline(lines, line)) {  // "\tlibc10.so => /opt/torch/lib/libc10.so (0x00007f...)"
    const size_t arrow = line.find(" => /"), end = line.rfind(" (0x");
    if (arrow == std::string::npos || end == std::string::npos || end < arrow) continue;
    const std::string path = normal(line.substr(arrow + 4, end - arrow - 4));
    if (is_of_system(path)) continue;
    stage.sources.push_back(path);
    const std::string folder = fs::path(path).parent_path().string();
    const auto known = std::find(stage.libraries.begin(), stage.libraries.end(), folder);
    if (known == stage.libraries.end()) stage.libraries.push_back(folder);
  }
  return {};
}

void add_if_there(const std::string& path, StagePlan& stage) {
  std::error_code ignored;
  if (fs::exists(path, ignored)) stage.sources.push_back(normal(path));
}

Status add_trainer_program(const Job& job, const std::string& program, StagePlan& stage) {
  if (Status added = add_with_libraries(program, stage); !added) return added;
  const fs::path folder = fs::path(program).parent_path();
  if (job.device == topology::DeviceKind::cuda) {
    std::error_code ignored;
    for (const char* place : {"../lib/libmds_cuda.so", "../lib/mds/libmds_cuda.so"}) {  // as in trainer/device.cpp
      const std::string plugin = normal(folder / place);
      if (!fs::exists(plugin, ignored)) continue;
      if (Status added = add_with_libraries(plugin, stage); !added) return added;
    }
  }
  return {};
}

void add_trainer_inputs(const trainer::TrainerConfig& trainer, StagePlan& stage) {
  for (const trainer::DataSource& source : trainer.data.sources) {
    const bool is_prefix = trainer.data.format == trainer::DataFormat::megatron;
    stage.sources.push_back(normal(source.path + (is_prefix ? ".bin" : "")));
    if (is_prefix) stage.sources.push_back(normal(source.path + ".idx"));
  }
  for (const std::string& path : {trainer.model.from_pretrained, trainer.checkpoint.load}) {
    if (!path.empty()) stage.sources.push_back(normal(path));
  }
}

Result<StageEntry> file_entry(const std::string& path) {
  const auto digest = container::digest_of_file(path);
  if (!digest) return digest.error().within("staging");
  StageEntry entry;
  entry.path = path;
  entry.bytes = digest->bytes;
  entry.sha256 = digest->sha256;
  return entry;
}

using Entries = std::map<std::string, StageEntry>;  // by path: sources may overlap

Status add_file(const std::string& path, Entries& entries) {
  if (entries.count(path)) return {};
  auto entry = file_entry(path);
  if (!entry) return entry.error();
  entries.emplace(path, *std::move(entry));
  return {};
}

Status add_link(const fs::path& path, const std::string& source, Entries& entries) {
  std::error_code error;
  const fs::path target = fs::read_symlink(path, error);
  const bool inside = target.is_relative() && lies_in(normal(path.parent_path() / target), source);
  if (inside) {
    entries.emplace(path.string(), StageEntry{StageEntry::Kind::link, path.string(), "", 0, target.string()});
    return {};
  }
  if (fs::is_directory(path, error)) {
    return bad_input("cannot stage " + path.string() + ": it is a link to the folder " + target.string() +
                     ", which lies elsewhere; list that folder in stage.files, too");
  }
  return fs::is_regular_file(path, error) ? add_file(path.string(), entries) : Status();
}

Status add_folder(const std::string& source, const std::string& left_out, Entries& entries) {
  std::error_code error;
  entries.emplace(source, StageEntry{StageEntry::Kind::folder, source, "", 0, ""});
  for (fs::recursive_directory_iterator at(source, error), end; !error && at != end; at.increment(error)) {
    const fs::path& path = at->path();
    std::error_code ignored;
    Status added;
    if (path == left_out) {
      at.disable_recursion_pending();
    } else if (at->is_symlink(ignored)) {
      added = add_link(path, source, entries);
    } else if (at->is_directory(ignored)) {
      entries.emplace(path.string(), StageEntry{StageEntry::Kind::folder, path.string(), "", 0, ""});
    } else if (at->is_regular_file(ignored)) {
      added = add_file(path.string(), entries);
    }
    if (!added) return added;
  }
  return error ? Status(bad_input("cannot read " + source + " to stage it: " + error.message())) : Status();
}

}  // namespace

std::string StagePlan::below(const std::string& top, const std::string& path) const {
  const std::string plain = normal(path);
  if (lies_in(plain, run_folder)) return shares_run_folder ? path : top + plain;
  const bool staged = std::any_of(sources.begin(), sources.end(),
                                  [&](const std::string& source) { return lies_in(plain, source); });
  return staged || plain == working_dir ? top + plain : path;
}

std::string StagePlan::on_node(const std::string& path) const { return below(root, path); }

std::string StagePlan::outside(const std::string& path) const { return below(node_root, path); }

std::string StagePlan::image_on_node(const std::string& sha256) const {
  return agent::StageStore::images_of(folder) + "/" + (sha256.empty() ? "SHA256" : sha256);
}

std::string StagePlan::word_on_node(const std::string& word) const {
  const size_t begin = path_in(word);
  if (begin >= word.size() || word[begin] != '/') return word;
  return word.substr(0, begin) + on_node(word.substr(begin));
}

Result<StagePlan> plan_stage(const Job& job, const PlanInputs& inputs, const std::string& agent_program) {
  StagePlan stage;
  stage.folder = job.stage.folder;
  stage.node_root = agent::StageStore::root_of(stage.folder, inputs.run_id);
  const bool contained = job.container.runtime != container::Runtime::none;
  stage.root = contained ? StagePlan::kRootInside : stage.node_root;
  if (contained) stage.image = job.container.image;
  stage.working_dir = inputs.working_dir;
  stage.run_folder = inputs.run_folder;
  stage.sources = job.stage.files;
  if (job.payload.empty()) {
    if (!contained) {
      if (Status added = add_trainer_program(job, inputs.trainer_program, stage); !added) return added.error();
    }
    add_trainer_inputs(job.trainer, stage);
  } else {
    add_words(job.payload, inputs.working_dir, stage);
  }
  const std::string folder = fs::path(agent_program).parent_path().string();
  for (const char* name : {"/mdsstack", "/../lib/libmds_pmix.so", "/../lib/mds/libmds_pmix.so"}) {
    add_if_there(folder + name, stage);
  }
  return stage;
}

void move_to_nodes(const StagePlan& stage, LaunchPlan& plan) {
  const auto own = plan.base_env.find("LD_LIBRARY_PATH");
  for (PlannedNode& node : plan.nodes) {
    for (agent::RankSpec& rank : node.ranks) {
      for (std::string& word : rank.argv) word = stage.word_on_node(word);
      for (auto& [name, value] : rank.env) {
        if (value.starts_with('/')) value = stage.on_node(value);
      }
      rank.env["MDS_STAGED"] = stage.root;
      std::string folders;
      for (const std::string& folder : stage.libraries) folders += stage.root + folder + ":";
      if (!folders.empty()) {
        const auto given = rank.env.find("LD_LIBRARY_PATH");
        rank.env["LD_LIBRARY_PATH"] =
            folders + (given != rank.env.end() ? given->second : own != plan.base_env.end() ? own->second : "");
      }
      if (stage.image.empty()) rank.working_dir = stage.root + stage.working_dir;
      if (!stage.shares_run_folder) rank.log_path.clear();
    }
  }
}

trainer::TrainerConfig on_nodes(const StagePlan& stage, trainer::TrainerConfig config) {
  for (trainer::DataSource& source : config.data.sources) source.path = stage.root + normal(source.path);
  for (std::string* path : {&config.model.from_pretrained, &config.checkpoint.load}) {
    if (!path->empty()) *path = stage.on_node(*path);
  }
  config.checkpoint.folder = stage.on_node(config.checkpoint.folder);
  return config;
}

Result<std::vector<StageEntry>> list_files(const std::vector<std::string>& sources, const std::string& left_out) {
  Entries entries;
  for (const std::string& source : sources) {
    std::error_code ignored;
    const bool is_folder = fs::is_directory(source, ignored);
    const Status added = is_folder ? add_folder(source, left_out, entries) : add_file(source, entries);
    if (!added) return added.error();
  }
  std::vector<StageEntry> out;
  for (auto& [path, entry] : entries) out.push_back(std::move(entry));
  return out;
}

Result<std::vector<StageEntry>> list_image(const container::Container& container) {
  std::vector<StageEntry> out;
  if (container.runtime == container::Runtime::none) return out;
  if (const auto kind = container::image_kind_for(container); !kind) return kind.error();
  auto entry = file_entry(container.image);
  if (!entry) return entry.error();
  entry->kind = StageEntry::Kind::image;
  if (!container.sha256.empty() && container.sha256 != entry->sha256) {
    return corrupt("the image " + container.image + " has the digest " + entry->sha256 +
                   ", but container.sha256 demands " + container.sha256 +
                   ": fetch it again, or correct the job file if the image was rebuilt");
  }
  out.push_back(*std::move(entry));
  return out;
}

std::vector<StageEntry> list_folders(const StagePlan& stage) {
  std::vector<StageEntry> out{{StageEntry::Kind::folder, stage.working_dir, "", 0, ""}};
  if (!stage.shares_run_folder) out.push_back({StageEntry::Kind::folder, stage.run_folder, "", 0, ""});
  return out;
}

}  // namespace mds::launcher
