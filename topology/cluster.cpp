#include "topology/cluster.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

namespace mds::topology {
namespace {

using nlohmann::json;

constexpr int kVersion = 1;
constexpr uint64_t kRecordingBytesMax = 256 << 20;  // 10,000 large machines; a guard against reading /dev/zero
constexpr int kIndexMax = 1 << 20;                  // of CPUs and NUMA nodes; Linux stops at 8192

/// One JSON object with its place in the document. The first field that is wrong is kept as the error; getters then
/// return defaults, so that a parser reads as a list of fields.
class Fields {
 public:
  Fields(const json& object, std::string where, std::optional<Error>& error)
      : object_(object), where_(std::move(where)), error_(error) {
    if (!object_.is_object()) fail("", "expected an object");
  }

  void get(const char* key, std::string& out, bool required = false) {
    const json* value = find(key, required);
    if (!value) return;
    read_text(*value, key, out);
  }

  void get(const char* key, bool& out) {
    const json* value = find(key, false);
    if (!value) return;
    if (!value->is_boolean()) return fail(key, "expected true or false");
    out = value->get<bool>();
  }

  void get(const char* key, double& out) {
    const json* value = find(key, false);
    if (!value) return;
    if (!value->is_number() || !(value->get<double>() >= 0)) return fail(key, "expected a number >= 0");
    out = value->get<double>();
  }

  void get(const char* key, uint64_t& out) {
    const json* value = find(key, false);
    if (!value) return;
    if (!value->is_number_unsigned()) return fail(key, "expected a whole number >= 0");
    out = value->get<uint64_t>();
  }

  void get(const char* key, int& out, bool required = false, int min = 0) {
    const json* value = find(key, required);
    if (value) read_index(*value, key, min, out);
  }

  void get(const char* key, std::vector<int>& out) {
    const json* value = array(key, true);
    if (!value) return;
    for (size_t i = 0; i < value->size() && !error_; ++i) {
      int number = 0;
      read_index((*value)[i], element(key, i), 0, number);
      out.push_back(number);
    }
  }

  void get(const char* key, std::vector<std::string>& out) {
    const json* value = array(key, false);
    if (!value) return;
    for (size_t i = 0; i < value->size() && !error_; ++i) read_text((*value)[i], element(key, i), out.emplace_back());
  }

  /// An array of objects; `read(fields, element)` fills each.
  template <typename T, typename Read>
  void get(const char* key, std::vector<T>& out, bool required, Read read) {
    const json* value = array(key, required);
    if (!value) return;
    for (size_t i = 0; i < value->size() && !error_; ++i) {
      Fields fields((*value)[i], path(element(key, i)), error_);
      if (!error_) read(fields, out.emplace_back());
    }
  }

  void fail(const std::string& key, const std::string& problem) {
    if (error_) return;
    const std::string place = path(key);
    error_ = bad_input(place.empty() ? problem : place + ": " + problem);
  }

 private:
  const json* find(const char* key, bool required) {
    if (error_) return nullptr;
    const auto found = object_.find(key);
    if (found != object_.end()) return &*found;
    if (required) fail(key, "is missing");
    return nullptr;
  }

  const json* array(const char* key, bool required) {
    const json* value = find(key, required);
    if (value && !value->is_array()) return fail(key, "expected an array"), nullptr;
    return value;
  }

  void read_index(const json& value, const std::string& key, int min, int& out) {
    const bool whole = value.is_number_integer();
    // An unsigned number above int64_t's range would wrap: compare it as what it is.
    const bool small = whole && (value.is_number_unsigned() ? value.get<uint64_t>() <= uint64_t{kIndexMax}
                                                            : value.get<int64_t>() >= min);
    if (!small) {
      return fail(key, "expected a whole number from " + std::to_string(min) + " to " + std::to_string(kIndexMax));
    }
    out = value.get<int>();
  }

  /// Names end up in terminals, pictures and JSON: only printable ASCII, and not whole books of it.
  void read_text(const json& value, const std::string& key, std::string& out) {
    if (!value.is_string()) return fail(key, "expected a string");
    out = value.get<std::string>();
    const bool printable = std::all_of(out.begin(), out.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
    if (!printable || out.size() > 4096) fail(key, "expected at most 4096 characters of printable ASCII");
  }

  static std::string element(const std::string& key, size_t i) { return key + "[" + std::to_string(i) + "]"; }
  std::string path(const std::string& key) const {
    return where_.empty() ? key : key.empty() ? where_ : where_ + "." + key;
  }

  const json& object_;
  const std::string where_;
  std::optional<Error>& error_;
};

/// What the types of the fields do not say: no CPU belongs to two cores, none is empty, there is a core at all.
void check(Fields& fields, const Machine& machine) {
  if (machine.host.empty()) fields.fail("host", "must not be empty");
  if (machine.cores.empty()) fields.fail("cores", "must not be empty");
  std::set<int> seen;
  for (size_t i = 0; i < machine.cores.size(); ++i) {
    const std::string key = "cores[" + std::to_string(i) + "].cpus";
    if (machine.cores[i].cpus.empty()) return fields.fail(key, "must not be empty");
    for (const int cpu : machine.cores[i].cpus) {
      if (!seen.insert(cpu).second) return fields.fail(key, "CPU " + std::to_string(cpu) + " is listed twice");
    }
  }
}

void read_machine(Fields& fields, Machine& machine) {
  fields.get("host", machine.host, true);
  fields.get("cores", machine.cores, true, [](Fields& f, Core& core) {
    f.get("index", core.index, true);
    f.get("package", core.package);
    f.get("numa", core.numa);
    f.get("cpus", core.cpus);
    std::sort(core.cpus.begin(), core.cpus.end());
  });
  fields.get("numa", machine.numa, true, [](Fields& f, NumaNode& numa) {
    f.get("os_index", numa.os_index, true);
    f.get("package", numa.package);
    f.get("memory_bytes", numa.memory_bytes);
  });
  fields.get("gpus", machine.gpus, false, [](Fields& f, Gpu& gpu) {
    f.get("index", gpu.index, true);
    f.get("uuid", gpu.uuid);
    f.get("bus_id", gpu.bus_id);
    f.get("name", gpu.name);
    f.get("memory_bytes", gpu.memory_bytes);
    f.get("numa", gpu.numa, false, -1);
  });
  fields.get("nics", machine.nics, false, [](Fields& f, Nic& nic) {
    f.get("name", nic.name, true);
    f.get("bus_id", nic.bus_id);
    f.get("numa", nic.numa, false, -1);
    f.get("gbps", nic.gbps);
    f.get("rdma", nic.rdma);
  });
  fields.get("notes", machine.notes);
  check(fields, machine);
}

Result<Cluster> load_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return bad_input("cannot read the topology file " + path.string());
  std::string text(1 << 16, '\0');
  uint64_t size = 0;
  while (file.read(text.data() + size, static_cast<std::streamsize>(text.size() - size)), file.gcount() > 0) {
    size += static_cast<uint64_t>(file.gcount());
    if (size > kRecordingBytesMax) return bad_input(path.string() + " is too large for a topology recording");
    if (size == text.size()) text.resize(2 * text.size());
  }
  text.resize(size);
  const json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) {
    return bad_input(path.string() + " is not JSON; `mdslaunch topo --json` writes a topology recording");
  }
  if (document.is_object() && document.contains("cores")) {
    auto machine = machine_from_json(document);
    if (!machine) return machine.error().within(path.string());
    return Cluster{{*std::move(machine)}};
  }
  auto cluster = cluster_from_json(document);
  if (!cluster) return cluster.error().within(path.string());
  return cluster;
}

Result<Cluster> load_folder(const std::filesystem::path& folder) {
  std::set<std::filesystem::path> files;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failed)) {
    if (entry.path().extension() == ".json") files.insert(entry.path());
  }
  if (failed) return bad_input("cannot read the folder " + folder.string() + ": " + failed.message());
  if (files.empty()) return bad_input("the folder " + folder.string() + " holds no topology recordings (*.json)");
  Cluster all;
  for (const auto& file : files) {
    auto cluster = load_file(file);
    if (!cluster) return cluster;
    std::move(cluster->nodes.begin(), cluster->nodes.end(), std::back_inserter(all.nodes));
  }
  return all;
}

}  // namespace

json to_json(const Machine& machine) {
  json cores = json::array(), numa = json::array(), gpus = json::array(), nics = json::array();
  for (const Core& c : machine.cores) {
    cores.push_back({{"index", c.index}, {"package", c.package}, {"numa", c.numa}, {"cpus", c.cpus}});
  }
  for (const NumaNode& n : machine.numa) {
    numa.push_back({{"os_index", n.os_index}, {"package", n.package}, {"memory_bytes", n.memory_bytes}});
  }
  for (const Gpu& g : machine.gpus) {
    gpus.push_back({{"index", g.index},
                    {"uuid", g.uuid},
                    {"bus_id", g.bus_id},
                    {"name", g.name},
                    {"memory_bytes", g.memory_bytes},
                    {"numa", g.numa}});
  }
  for (const Nic& n : machine.nics) {
    nics.push_back({{"name", n.name}, {"bus_id", n.bus_id}, {"numa", n.numa}, {"gbps", n.gbps}, {"rdma", n.rdma}});
  }
  return {{"host", machine.host},    {"cores", std::move(cores)}, {"numa", std::move(numa)},
          {"gpus", std::move(gpus)}, {"nics", std::move(nics)},   {"notes", machine.notes}};
}

json to_json(const Cluster& cluster) {
  json nodes = json::array();
  for (const Machine& machine : cluster.nodes) nodes.push_back(to_json(machine));
  return {{"version", kVersion}, {"nodes", std::move(nodes)}};
}

Result<Machine> machine_from_json(const json& document) {
  std::optional<Error> error;
  Machine machine;
  Fields fields(document, "", error);
  if (!error) read_machine(fields, machine);
  if (error) return error->within("topology");
  return machine;
}

Result<Cluster> cluster_from_json(const json& document) {
  std::optional<Error> error;
  Cluster cluster;
  Fields fields(document, "", error);
  int version = 0;
  fields.get("version", version, true);
  if (!error && version != kVersion) {
    fields.fail("version",
                "is " + std::to_string(version) + "; this program reads version " + std::to_string(kVersion));
  }
  fields.get("nodes", cluster.nodes, true, read_machine);
  if (cluster.nodes.empty()) fields.fail("nodes", "must not be empty");
  if (error) return error->within("topology");
  return cluster;
}

Result<Cluster> load_cluster(const std::string& path) {
  std::error_code failed;
  return std::filesystem::is_directory(path, failed) ? load_folder(path) : load_file(path);
}

}  // namespace mds::topology
