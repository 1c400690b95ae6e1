#include "tests/topology/fuzz_input.hpp"

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "topology/doctor/doctor.hpp"
#include "topology/fabric/node_order.hpp"
#include "topology/fabric/read_fabric.hpp"
#include "topology/paths.hpp"
#include "topology/paths_pci.hpp"
#include "topology/read/read_machine.hpp"

namespace mds::topology::tests {
namespace {

void require(bool holds, const char* what, const std::string& more = "") {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s%s%s\n", what, more.empty() ? "" : ": ", more.c_str());
  std::abort();
}

template <typename T>
bool is_index(int index, const std::vector<T>& of, int min = -1) {
  return index >= min && index < static_cast<int>(of.size());
}

/// What cluster.hpp promises of a machine.
void check_promises(const Machine& m) {
  for (size_t i = 0; i < m.pci.size(); ++i) require(m.pci[i].parent < static_cast<int>(i), "parents before children");
  for (const Gpu& gpu : m.gpus) require(is_index(gpu.pci, m.pci), "a GPU's device exists");
  for (const Nic& nic : m.nics) require(is_index(nic.pci, m.pci), "a NIC's device exists");
  for (const GpuLink& link : m.links) {
    require(is_index(link.gpu, m.gpus, 0), "a link's GPU exists");
    if (link.end == LinkEnd::gpu) require(is_index(link.peer, m.gpus), "a link's peer exists");
    require(link.count >= 0 && link.gb_per_s_each >= 0, "links are not negative");
  }
  std::set<int> cpus;
  for (const Core& core : m.cores) {
    require(!core.cpus.empty(), "a core has a CPU");
    for (const int cpu : core.cpus) require(cpu >= 0 && cpus.insert(cpu).second, "a CPU belongs to one core");
  }
  require(check_size(m).ok(), "readers heed the limits");
}

void check_paths(const Machine& m) {
  const Paths paths = find_paths(m);
  require(paths.gpu_gpu.size() == m.gpus.size() * m.gpus.size() || m.gpus.empty(), "all pairs of GPUs");
  for (size_t g = 0; g < paths.gpus; ++g) {
    require(paths.between_gpus(g, g).kind == PathClass::loc, "a GPU is at itself");
    for (size_t p = 0; p < paths.gpus; ++p) {
      const Path& path = paths.between_gpus(g, p);
      require(path.kind != PathClass::dis && path.gb_per_s > 0 && path.hops >= 0, "GPUs reach each other");
    }
    for (size_t n = 0; n < paths.nics; ++n) {
      require(paths.to_nic(g, n).kind != PathClass::dis, "GPUs reach all NICs");
    }
  }
  to_json(paths, m);
}

void check_round_trips(const Machine& m) {
  const auto json = machine_from_json(nlohmann::json::parse(to_json(m).dump()));
  require(json.ok(), "our own JSON is read again", json.ok() ? "" : json.error().message);
  require(*json == m, "our own JSON loses nothing");
  if (const auto text = write_nccl_xml(m)) {
    const auto again = read_nccl_xml(*text, "");
    require(again.ok(), "a NCCL file of ours is read again", again.ok() ? "" : again.error().message);
    // There may be more: what calls itself a NIC of a GPU's class reads as a GPU.
    std::set<std::string> read;
    for (const Gpu& gpu : again->gpus) read.insert(normal_bus_id(gpu.bus_id));
    for (const Gpu& gpu : m.gpus) {
      // In the file a GPU has the address of the PCI device that it is, should a broken recording say two.
      const std::string there = gpu.pci >= 0 ? m.pci[static_cast<size_t>(gpu.pci)].bus_id : std::string();
      const bool found = read.count(normal_bus_id(gpu.bus_id)) + read.count(normal_bus_id(there)) > 0;
      require(found, "a NCCL file of ours has all GPUs", gpu.bus_id);
    }
  }
  if (const auto text = write_hwloc_xml(m)) {
    const auto again = read_hwloc_xml(*text, "");
    require(again.ok(), "an hwloc file of ours is read again", again.ok() ? "" : again.error().message);
  }
}

void try_machine(const Machine& m) {
  check_promises(m);
  check_paths(m);
  to_json(examine(m));
  check_round_trips(m);
  Machine twice = m;
  fill_in(twice, m);
  check_promises(twice);
}

bool try_machine(const Result<Machine>& machine) {
  if (!machine) return require(!machine.error().message.empty(), "errors say what"), false;
  try_machine(*machine);
  return true;
}

bool try_fabric(std::string_view text) {
  std::vector<std::string> notes;
  const auto fabric = read_fabric(text, notes);
  if (!fabric) return require(!fabric.error().message.empty(), "errors say what"), false;
  Cluster cluster;
  cluster.fabric = *fabric;
  std::set<std::string> hosts;
  for (const FabricPort& port : fabric->ports) {
    require(is_index(port.leaf, fabric->switches, 0), "a port's leaf exists");
    if (hosts.size() < 64) hosts.insert(port.host);
  }
  for (const std::string& host : hosts) {
    cluster.nodes.emplace_back().host = host;
    cluster.nodes.back().cores = {{0, 0, 0, {0}}};
  }
  require(node_order(cluster).nodes.size() == cluster.nodes.size(), "every node has its place");
  to_json(examine(cluster));
  require(merge(*fabric, *fabric).ok(), "a fabric agrees with itself");
  return true;
}

bool try_json(std::string_view text) {
  const auto document = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) return false;
  if (document.is_object() && document.contains("cores")) return try_machine(machine_from_json(document));
  const auto cluster = cluster_from_json(document);
  if (!cluster) return require(!cluster.error().message.empty(), "errors say what"), false;
  for (const Machine& machine : cluster->nodes) try_machine(machine);
  require(node_order(*cluster).nodes.size() == cluster->nodes.size(), "every node has its place");
  to_json(examine(*cluster));
  const auto again = cluster_from_json(to_json(*cluster));
  require(again.ok() && *again == *cluster, "a cluster's JSON loses nothing");
  return true;
}

}  // namespace

bool try_input(FuzzReader reader, std::string_view text) {
  switch (reader) {
    case FuzzReader::nccl_xml: {
      const auto hosts = read_nccl_hosts(text, "host");
      if (!hosts) return require(!hosts.error().message.empty(), "errors say what"), false;
      for (const Machine& machine : *hosts) try_machine(machine);
      return true;
    }
    case FuzzReader::hwloc_xml:
      return try_machine(read_hwloc_xml(text, "host"));
    case FuzzReader::nvidia_smi:
      return try_machine(read_nvidia_smi(text, "host"));
    case FuzzReader::fabric:
      return try_fabric(text);
    case FuzzReader::cluster_json:
      return try_json(text);
    case FuzzReader::guess: {
      const size_t half = text.size() / 2;
      const bool address = fabric_from_slurm_address(text.substr(0, half), text.substr(half)).ok();
      return guess_format(text) != RecordingFormat::unknown || address;
    }
  }
  return false;
}

}  // namespace mds::topology::tests
