#include "topology/read/synthetic.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "topology/paths.hpp"
#include "topology/read/synthetic_models.hpp"

namespace mds::topology {
namespace {

constexpr int kNodesMax = 100'000;

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

/// "key=value,key=value" against a table of what each key does with its value. False from there: not a value for it.
using KeyTable = std::map<std::string_view, std::function<bool(std::string_view)>>;

Status read_keys(std::string_view keys, const KeyTable& table, const char* example) {
  while (!keys.empty()) {
    const size_t comma = std::min(keys.find(','), keys.size());
    const std::string_view item = keys.substr(0, comma);
    const size_t equals = std::min(item.find('='), item.size());
    const auto known = table.find(item.substr(0, equals));
    if (equals == item.size() || known == table.end() || !known->second(item.substr(equals + 1))) {
      return bad_input("\"" + std::string(item) + "\" is not one of " + example);
    }
    keys.remove_prefix(std::min(comma + 1, keys.size()));
  }
  return {};
}

std::function<bool(std::string_view)> number_into(int& out, int max) {
  return [&out, max](std::string_view text) {
    const auto count = count_from(text, max);
    if (count) out = *count;
    return count.has_value();
  };
}

std::function<bool(std::string_view)> memory_into(uint64_t& out) {
  return [&out](std::string_view text) {
    const auto bytes = memory_from(text);
    if (bytes) out = *bytes;
    return bytes.has_value();
  };
}

KeyTable shape_keys(MachineShape& shape) {
  return {{"packages", number_into(shape.packages, 4096)},
          {"cores", number_into(shape.cores, 4096)},
          {"numa", number_into(shape.numa, 4096)},
          {"threads", number_into(shape.threads, 4096)}};
}

Status check_shape(const MachineShape& shape) {
  if (shape.numa > shape.cores) return bad_input("a package cannot have more NUMA nodes than cores");
  if (int64_t{shape.packages} * shape.cores * shape.threads > 65536) return bad_input("more than 65536 CPUs");
  return {};
}

Result<Machine> cpu_machine(std::string_view keys) {
  MachineShape shape;
  KeyTable table = shape_keys(shape);
  table["memory"] = memory_into(shape.memory_bytes);
  const Status read = read_keys(keys, table, "packages=N, cores=N, numa=N, threads=N, memory=NGiB");
  if (!read) return read.error();
  if (const Status good = check_shape(shape); !good) return good.error();
  return machine_of(shape, {});
}

/// NVLinks of a GPU of this compute capability: P100 4, V100 6, A100 12, H100 and B200 18; others have none.
int nvlinks_of(int sm) {
  switch (sm) {
    case 60:
      return 4;
    case 70:
      return 6;
    case 80:
      return 12;
    case 90:
    case 100:
    case 103:
      return 18;
    default:
      return 0;
  }
}

PciLink pci_of(int sm) { return {sm < 80 ? 8.0 : sm < 90 ? 16.0 : 32.0, 16}; }

std::string bus_id_of(int slot, int bus, int device) {
  char text[32];
  std::snprintf(text, sizeof text, "%04x:%02x:%02x.0", slot / 32, 0x10 + slot % 32 * 6 + bus, device);
  return text;
}

/// GPU i and the NICs that fall to it share a PCI switch; both are spread evenly over the NUMA nodes.
std::vector<PciSlot> spread_slots(int gpus, int nics, int numa_nodes) {
  std::vector<PciSlot> slots;
  for (int gpu = 0; gpu < gpus; ++gpu) {
    slots.push_back({gpu * numa_nodes / gpus, bus_id_of(gpu, 0, 0), {bus_id_of(gpu, 2, 0)}, {}});
  }
  for (int nic = 0; nic < nics; ++nic) {
    const int gpu = nic * gpus / nics;
    auto& own = slots[gpu].nics;
    own.emplace_back("mlx5_" + std::to_string(nic), bus_id_of(gpu, 3, static_cast<int>(own.size())));
  }
  return slots;
}

Result<LinkModel> links_between(const std::string& shape, int gpus, int sm) {
  LinkModel links;
  if (shape == "none" || gpus == 1) return links;
  const int count = nvlinks_of(sm);
  if (count == 0) return bad_input("no GPU with sm=" + std::to_string(sm) + " has NVLink: use nvlink=none");
  links.gb_per_s_each = nvlink_gb_per_s(sm);
  if (shape == "switch") {
    links.shape = LinkModel::Shape::nvswitch;
    links.switches = {{"0000:0a:00.0", count}};
    return links;
  }
  const int each = count / (gpus - 1);
  if (each == 0) {
    return bad_input("a mesh of " + std::to_string(gpus) + " GPUs needs more than the " + std::to_string(count) +
                     " NVLinks that such a GPU has: use nvlink=switch");
  }
  links.shape = LinkModel::Shape::matrix;
  links.counts = full_mesh(gpus, each);
  return links;
}

Result<Machine> gpu_machine(std::string_view keys) {
  MachineModel model;
  model.shape = {2, 32, 1, 1, 256 * kGiB};
  model.gpu.memory_bytes = 80 * kGiB;
  int gpus = 8, sm = 90, nics = 0, gbps = 400;
  std::string nvlink;
  KeyTable table = shape_keys(model.shape);
  table["memory"] = memory_into(model.gpu.memory_bytes);
  table["host_memory"] = memory_into(model.shape.memory_bytes);
  table["gpus"] = number_into(gpus, 64);
  table["sm"] = number_into(sm, 999);
  table["gbps"] = number_into(gbps, 100'000);
  table["nics"] = [&](std::string_view text) { return text == "0" ? (nics = -1, true) : number_into(nics, 256)(text); };
  table["nvlink"] = [&](std::string_view text) {
    nvlink = text;
    return text == "switch" || text == "mesh" || text == "none";
  };
  const Status read = read_keys(keys, table,
                                "packages=N, cores=N, numa=N, threads=N, host_memory=NGiB, gpus=N, sm=90, "
                                "nvlink=switch|mesh|none, memory=NGiB, nics=N, gbps=N");
  if (!read) return read.error();
  if (const Status good = check_shape(model.shape); !good) return good.error();
  if (nvlink.empty()) nvlink = nvlinks_of(sm) > 0 ? "switch" : "none";
  auto links = links_between(nvlink, gpus, sm);
  if (!links) return links.error();
  model.links = *std::move(links);
  model.gpu.name = "GPU sm_" + std::to_string(sm);
  model.gpu.sm = sm;
  model.gpu.link = pci_of(sm);
  model.nic_gbps = gbps;
  model.slots = spread_slots(gpus, nics == 0 ? gpus : std::max(nics, 0), model.shape.packages * model.shape.numa);
  return machine_of(model);
}

const MachineModel* model_called(const std::string& name) {
  const auto& models = machine_models();
  const auto found = std::find_if(models.begin(), models.end(), [&](const auto& model) { return model.name == name; });
  return found == models.end() ? nullptr : &*found;
}

Result<Machine> machine_called(const std::string& name) {
  if (const MachineModel* model = model_called(name)) return machine_of(*model);
  if (name == "cpu") return machine_of(MachineShape{}, {});
  if (name.starts_with("cpu:")) return cpu_machine(std::string_view(name).substr(4));
  if (name == "gpu" || name.starts_with("gpu:")) return gpu_machine(name.size() > 4 ? name.substr(4) : "");
  std::string known;
  for (const MachineModel& model : machine_models()) known += model.name + ", ";
  return bad_input("no machine is called \"" + name + "\"; known are " + known +
                   "cpu:packages=2,cores=32,numa=1,threads=2,memory=256GiB and gpu:gpus=8,sm=90,nvlink=switch");
}

}  // namespace

Result<SourceName> split_source(const std::string& source) {
  SourceName parts;
  parts.name = source;
  const auto last_word = [&] { return parts.name.substr(std::min(parts.name.rfind(' '), parts.name.size() - 1) + 1); };
  const auto drop = [&](size_t word) { parts.name.resize(parts.name.size() - word - 1); };
  if (source.find(' ') == std::string::npos) return parts;
  if (const std::string word = last_word(); word.starts_with("fabric:")) {
    parts.fabric = word.substr(7);
    parts.has_fabric = true;
    drop(word.size());
  }
  const std::string word = parts.name.find(' ') == std::string::npos ? "" : last_word();
  if (word.size() < 2 || word[0] != 'x' || (word[1] != '-' && (word[1] < '0' || word[1] > '9'))) return parts;
  const auto count = count_from(std::string_view(word).substr(1), kNodesMax);
  if (!count) return bad_input("expected from x1 to x" + std::to_string(kNodesMax) + " nodes, not " + word);
  parts.count = *count;
  parts.counted = true;
  drop(word.size());
  return parts;
}

Result<Cluster> synthetic_cluster(const std::string& description) {
  const auto fail = [&](const Error& error) { return error.within("synthetic topology \"" + description + "\""); };
  const auto parts = split_source(description);
  if (!parts) return fail(parts.error());
  const size_t space = parts->name.find(' ');
  if (space != std::string::npos) {
    return fail(bad_input("expected a number of nodes (x16) or a fabric (fabric:leaf=8) after the name, not \"" +
                          parts->name.substr(space + 1) + "\""));
  }
  auto machine = machine_called(parts->name);
  if (!machine) return fail(machine.error());
  const MachineModel* model = model_called(parts->name);
  Cluster cluster;
  cluster.nodes.assign(parts->count, *machine);
  for (int node = 0; node < parts->count; ++node) {
    Machine& own = cluster.nodes[node];
    char number[32];
    std::snprintf(number, sizeof number, "-%04d", node);
    own.host = parts->name.substr(0, parts->name.find(':')) + number;
    if (!model || model->domain_nodes == 0) continue;
    std::snprintf(number, sizeof number, "%08d.0", node / model->domain_nodes);
    for (Gpu& gpu : own.gpus) gpu.nvlink_domain = number;
  }
  if (parts->has_fabric) {
    if (const Status added = add_synthetic_fabric(cluster, parts->fabric); !added) return fail(added.error());
  }
  return cluster;
}

}  // namespace mds::topology
