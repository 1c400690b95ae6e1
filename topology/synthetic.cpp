#include "topology/synthetic.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace mds::topology {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr int kNodesMax = 100'000;

/// The regular part of a machine.
struct Shape {
  int packages = 1;
  int cores = 4;                      ///< a package
  int numa = 1;                       ///< nodes a package
  int threads = 1;                    ///< a core
  uint64_t memory_bytes = 64 * kGiB;  ///< a NUMA node
};

struct Device {
  const char* bus_id;
  int numa;
};

/// A GPU machine. Bus ids, NUMA nodes and memory as its vendor's documentation and NVML give them.
struct Model {
  const char* name;
  Shape shape;
  const char* gpu_name;
  uint64_t gpu_bytes;
  std::vector<Device> gpus;
  double nic_gbps;
  std::vector<std::pair<const char*, Device>> nics;
};

const std::vector<Model>& models() {
  static const std::vector<Device> hopper_gpus{{"0000:1b:00.0", 0}, {"0000:43:00.0", 0}, {"0000:52:00.0", 0},
                                               {"0000:61:00.0", 0}, {"0000:9d:00.0", 1}, {"0000:c3:00.0", 1},
                                               {"0000:d1:00.0", 1}, {"0000:df:00.0", 1}};
  static const std::vector<std::pair<const char*, Device>> hopper_nics{
      {"mlx5_0", {"0000:18:00.0", 0}},  {"mlx5_3", {"0000:40:00.0", 0}}, {"mlx5_4", {"0000:4f:00.0", 0}},
      {"mlx5_5", {"0000:5e:00.0", 0}},  {"mlx5_6", {"0000:9a:00.0", 1}}, {"mlx5_9", {"0000:c0:00.0", 1}},
      {"mlx5_10", {"0000:ce:00.0", 1}}, {"mlx5_11", {"0000:dc:00.0", 1}}};
  static const std::vector<Model> all{
      {"dgx-a100",
       {2, 64, 4, 2, 256 * kGiB},
       "NVIDIA A100-SXM4-80GB",
       81920 * kMiB,
       {{"0000:07:00.0", 3},
        {"0000:0f:00.0", 3},
        {"0000:47:00.0", 1},
        {"0000:4e:00.0", 1},
        {"0000:87:00.0", 7},
        {"0000:90:00.0", 7},
        {"0000:b7:00.0", 5},
        {"0000:bd:00.0", 5}},
       200,
       {{"mlx5_0", {"0000:0c:00.0", 3}},
        {"mlx5_1", {"0000:12:00.0", 3}},
        {"mlx5_2", {"0000:4b:00.0", 1}},
        {"mlx5_3", {"0000:54:00.0", 1}},
        {"mlx5_6", {"0000:8d:00.0", 7}},
        {"mlx5_7", {"0000:94:00.0", 7}},
        {"mlx5_8", {"0000:ba:00.0", 5}},
        {"mlx5_9", {"0000:cc:00.0", 5}}}},
      {"dgx-h100", {2, 56, 1, 2, 1024 * kGiB}, "NVIDIA H100 80GB HBM3", 81559 * kMiB, hopper_gpus, 400, hopper_nics},
      {"dgx-h200", {2, 56, 1, 2, 1024 * kGiB}, "NVIDIA H200", 143771 * kMiB, hopper_gpus, 400, hopper_nics},
      {"gh200",
       {1, 72, 1, 1, 480 * kGiB},
       "NVIDIA GH200 480GB",
       97871 * kMiB,
       {{"0009:01:00.0", 0}},
       400,
       {{"mlx5_0", {"0000:01:00.0", 0}}}},
  };
  return all;
}

/// Cores numbered as Linux does on such machines: first threads of all cores, then the second ones.
Machine regular_machine(const Shape& shape) {
  Machine machine;
  const int total = shape.packages * shape.cores;
  for (int core = 0; core < total; ++core) {
    const int package = core / shape.cores;
    const int numa = package * shape.numa + core % shape.cores * shape.numa / shape.cores;
    machine.cores.push_back({core, package, numa, {}});
    for (int thread = 0; thread < shape.threads; ++thread) machine.cores.back().cpus.push_back(core + thread * total);
  }
  for (int node = 0; node < shape.packages * shape.numa; ++node) {
    machine.numa.push_back({node, node / shape.numa, shape.memory_bytes});
  }
  return machine;
}

Machine model_machine(const Model& model) {
  Machine machine = regular_machine(model.shape);
  for (const Device& gpu : model.gpus) {
    const int index = static_cast<int>(machine.gpus.size());
    machine.gpus.push_back({index, "", gpu.bus_id, model.gpu_name, model.gpu_bytes, gpu.numa});
  }
  for (const auto& [name, device] : model.nics) {
    machine.nics.push_back({name, device.bus_id, device.numa, model.nic_gbps, true});
  }
  return machine;
}

/// A whole number from 1 to `max`, and nothing else.
std::optional<int> count_from(std::string_view text, int max) {
  int count = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (failed != std::errc() || end != text.data() + text.size() || count < 1 || count > max) return std::nullopt;
  return count;
}

/// "256GiB", "2TiB" or "512MiB".
std::optional<uint64_t> memory_from(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, uint64_t>, 3> kUnits{
      {{"MiB", kMiB}, {"GiB", kGiB}, {"TiB", 1024 * kGiB}}};
  for (const auto& [unit, bytes] : kUnits) {
    if (!text.ends_with(unit)) continue;
    const auto count = count_from(text.substr(0, text.size() - unit.size()), 1'000'000);
    if (count) return *count * bytes;
  }
  return std::nullopt;
}

/// One "key=value" of a cpu machine. False where it means nothing.
bool read_key(std::string_view item, Shape& shape) {
  const size_t equals = std::min(item.find('='), item.size());
  const std::string_view key = item.substr(0, equals);
  const std::string_view value = item.substr(std::min(equals + 1, item.size()));
  if (key == "memory") {
    const auto bytes = memory_from(value);
    if (bytes) shape.memory_bytes = *bytes;
    return bytes.has_value();
  }
  const auto count = count_from(value, 4096);
  if (!count) return false;
  if (key == "packages") return shape.packages = *count, true;
  if (key == "cores") return shape.cores = *count, true;
  if (key == "numa") return shape.numa = *count, true;
  if (key == "threads") return shape.threads = *count, true;
  return false;
}

Result<Machine> cpu_machine(std::string_view keys) {
  Shape shape;
  while (!keys.empty()) {
    const size_t comma = std::min(keys.find(','), keys.size());
    const std::string item(keys.substr(0, comma));
    if (!read_key(item, shape)) {
      return bad_input("\"" + item + "\" is not one of packages=N, cores=N, numa=N, threads=N, memory=NGiB");
    }
    keys.remove_prefix(std::min(comma + 1, keys.size()));
  }
  if (shape.numa > shape.cores) return bad_input("a package cannot have more NUMA nodes than cores");
  if (int64_t{shape.packages} * shape.cores * shape.threads > 65536) return bad_input("more than 65536 CPUs");
  return regular_machine(shape);
}

Result<Machine> machine_called(const std::string& name) {
  for (const Model& model : models()) {
    if (name == model.name) return model_machine(model);
  }
  if (name == "cpu") return regular_machine({});
  if (name.starts_with("cpu:")) return cpu_machine(std::string_view(name).substr(4));
  std::string known;
  for (const Model& model : models()) known += std::string(model.name) + ", ";
  return bad_input("no machine is called \"" + name + "\"; known are " + known +
                   "and cpu:packages=2,cores=32,numa=1,threads=2,memory=256GiB");
}

}  // namespace

Result<Cluster> synthetic_cluster(const std::string& description) {
  const auto fail = [&](const Error& error) { return error.within("synthetic topology \"" + description + "\""); };
  const size_t space = std::min(description.find(' '), description.size());
  const std::string name = description.substr(0, space);
  const std::string_view times = std::string_view(description).substr(std::min(space + 1, description.size()));
  std::optional<int> count = 1;
  if (space < description.size())
    count = times.starts_with('x') ? count_from(times.substr(1), kNodesMax) : std::nullopt;
  if (!count) {
    return fail(bad_input("expected a number of nodes from x1 to x" + std::to_string(kNodesMax) +
                          " after the space, not \"" + std::string(times) + "\""));
  }
  auto machine = machine_called(name);
  if (!machine) return fail(machine.error());
  Cluster cluster;
  cluster.nodes.assign(*count, *machine);
  for (int node = 0; node < *count; ++node) {
    char number[16];
    std::snprintf(number, sizeof number, "-%04d", node);
    cluster.nodes[node].host = name.substr(0, name.find(':')) + number;
  }
  return cluster;
}

Result<Cluster> open_topology(const std::string& source) {
  std::error_code failed;
  if (std::filesystem::exists(source, failed)) return load_cluster(source);
  auto cluster = synthetic_cluster(source);
  if (!cluster) return cluster.error().within("there is no such file or folder");
  return cluster;
}

}  // namespace mds::topology
