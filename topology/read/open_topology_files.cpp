#include "topology/read/open_topology_files.hpp"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "topology/fabric/natural_order.hpp"
#include "topology/fabric/read_fabric.hpp"

namespace mds::topology {
namespace {

namespace fs = std::filesystem;

constexpr size_t kRecordingBytesMax = size_t{256} << 20;  // 10,000 large machines; a guard against reading /dev/zero
constexpr size_t kFilesMax = 100'000;

Result<std::string> read_file(const fs::path& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) return bad_input("cannot read the topology file " + path.string());
  std::string text;
  size_t got = 1;
  while (got > 0 && text.size() <= kRecordingBytesMax) {
    const size_t size = text.size();
    text.resize(size + (size < (1 << 20) ? (1 << 16) : size));
    got = std::fread(text.data() + size, 1, text.size() - size, file.get());
    text.resize(size + got);
  }
  if (std::ferror(file.get())) return bad_input("cannot read the topology file " + path.string());
  if (text.size() > kRecordingBytesMax) return bad_input(path.string() + " is too large for a topology recording");
  return text;
}

Result<Recording> recording_of_json(std::string_view text) {
  const nlohmann::json document = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) return bad_input("is not JSON; `mdslaunch topo --json` writes a topology recording");
  if (document.is_object() && document.contains("cores")) {
    auto machine = machine_from_json(document);
    if (!machine) return machine.error();
    return Recording{RecordingFormat::cluster_json, {*std::move(machine)}, {}, {}};
  }
  auto cluster = cluster_from_json(document);
  if (!cluster) return cluster.error();
  return Recording{RecordingFormat::cluster_json, std::move(cluster->nodes), std::move(cluster->fabric), {}};
}

Result<Recording> recording_of_one(RecordingFormat format, Result<Machine> machine) {
  if (!machine) return machine.error();
  return Recording{format, {*std::move(machine)}, {}, {}};
}

RecordingFormat format_of(std::string_view text) {
  const RecordingFormat format = guess_format(text);
  return format == RecordingFormat::unknown && looks_like_fabric(text) ? RecordingFormat::fabric : format;
}

/// `host` names a machine whose recording does not.
Result<Recording> parse(std::string_view text, const std::string& host) {
  const RecordingFormat format = format_of(text);
  switch (format) {
    case RecordingFormat::cluster_json:
      return recording_of_json(text);
    case RecordingFormat::hwloc_xml:
      return recording_of_one(format, read_hwloc_xml(text, host));
    case RecordingFormat::nvidia_smi:
      return recording_of_one(format, read_nvidia_smi(text, host));
    case RecordingFormat::nccl_xml: {
      auto nodes = read_nccl_hosts(text, host);
      if (!nodes) return nodes.error();
      return Recording{format, *std::move(nodes), {}, {}};
    }
    case RecordingFormat::fabric: {
      Recording recording;
      auto fabric = read_fabric(text, recording.notes);
      if (!fabric) return fabric.error();
      recording.fabric = *std::move(fabric);
      return recording;
    }
    case RecordingFormat::unknown:
      break;
  }
  return bad_input(
      "is no topology that is known here: expected the output of `mdslaunch topo --json`, XML of hwloc (lstopo) or "
      "NCCL, "
      "`nvidia-smi topo -m`, or a fabric (Slurm's topology.conf or topology.yaml, ibnetdiscover, topograph)");
}

/// True where a file of a folder must be a recording by its name.
bool claims_to_be_one(const fs::path& path) {
  static constexpr const char* kEndings[] = {".json", ".xml", ".yaml", ".yml", ".conf"};
  const std::string ending = path.extension().string();
  return std::any_of(std::begin(kEndings), std::end(kEndings), [&](const char* known) { return ending == known; });
}

/// Files of equal nodes are often equal to the byte: parsed once, if they follow each other.
class Parser {
 public:
  Result<Recording> read(const std::string& text, const std::string& host) {
    if (!last_text_.empty() && text == last_text_) {
      Recording again = last_;
      for (Machine& node : again.nodes) node.host = host + node.host.substr(last_host_.size());
      return again;
    }
    auto recording = parse(text, host);
    if (!recording) return recording;
    // A name that comes from inside the file is not ours to change.
    const bool named = std::any_of(recording->nodes.begin(), recording->nodes.end(),
                                   [&](const Machine& node) { return !node.host.starts_with(host); });
    last_text_ = named ? "" : text;
    last_host_ = host;
    if (!named) last_ = *recording;
    return recording;
  }

 private:
  std::string last_text_, last_host_;
  Recording last_;
};

/// Nothing: the file is no recording, and need not be one.
using FileContent = std::optional<Result<Recording>>;

FileContent read_file_of_folder(const fs::path& path, Parser& parser) {
  const auto text = read_file(path);
  if (!text) return text.error();
  if (!claims_to_be_one(path) && format_of(*text) == RecordingFormat::unknown) return std::nullopt;
  auto recording = parser.read(*text, host_of_file(path));
  if (!recording) return recording.error().within(path.string());
  return recording;
}

std::vector<FileContent> read_all(const std::vector<fs::path>& files) {
  constexpr size_t kFilesOfThread = 32;  // fewer are not worth a thread
  const size_t threads =
      std::clamp<size_t>(files.size() / kFilesOfThread, 1, std::clamp(std::thread::hardware_concurrency(), 1u, 16u));
  std::vector<FileContent> contents(files.size());
  const auto read_part = [&](size_t part) {
    Parser parser;
    for (size_t i = files.size() * part / threads; i < files.size() * (part + 1) / threads; ++i) {
      contents[i] = read_file_of_folder(files[i], parser);
    }
  };
  std::vector<std::jthread> others;
  for (size_t part = 1; part < threads; ++part) others.emplace_back(read_part, part);
  read_part(0);
  others.clear();  // joins them
  return contents;
}

}  // namespace

std::string host_of_file(const fs::path& path) {
  std::string stem = path.stem().string();
  for (const char* view : {".hwloc", ".nccl", ".rccl", ".smi", ".topo"}) {
    const std::string_view suffix(view);
    if (stem.size() > suffix.size() && stem.ends_with(suffix)) stem.resize(stem.size() - suffix.size());
  }
  for (char& c : stem) c = c > 0x20 && c < 0x7f ? c : '_';  // hosts end up in terminals and JSON
  return stem.empty() ? "node" : stem;
}

Result<Recording> read_recording(const fs::path& path) {
  const auto text = read_file(path);
  if (!text) return text.error();
  auto recording = parse(*text, host_of_file(path));
  if (!recording) return recording.error().within(path.string());
  return recording;
}

Result<std::vector<std::pair<fs::path, Recording>>> read_folder(const fs::path& folder,
                                                                std::vector<std::string>& notes) {
  std::vector<fs::path> files;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    const std::string name = entry.path().filename().string();
    std::error_code unreadable;
    if (name.starts_with('.') || !entry.is_regular_file(unreadable)) {
      notes.push_back(entry.path().string() + " was left out: hidden, or no file");
    } else {
      files.push_back(entry.path());
    }
    if (files.size() > kFilesMax) return bad_input("the folder " + folder.string() + " holds more than 100,000 files");
  }
  if (failed) return bad_input("cannot read the folder " + folder.string() + ": " + failed.message());
  std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) {
    return natural_less(a.filename().string(), b.filename().string());
  });
  std::vector<FileContent> contents = read_all(files);
  std::vector<std::pair<fs::path, Recording>> recordings;
  for (size_t i = 0; i < files.size(); ++i) {
    if (!contents[i]) {
      notes.push_back(files[i].string() + " was left out: it is no recording of a topology");
    } else if (!*contents[i]) {
      return contents[i]->error();
    } else {
      recordings.emplace_back(files[i], **std::move(contents[i]));
    }
  }
  if (recordings.empty()) return bad_input("the folder " + folder.string() + " holds no topology recordings");
  return recordings;
}

}  // namespace mds::topology
