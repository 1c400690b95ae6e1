// mdslaunch topo
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/run.hpp"
#include "topology/placement.hpp"
#include "topology/synthetic.hpp"

namespace mds::launcher {
namespace {

Result<topology::Cluster> chosen_cluster(const Arguments& arguments) {
  if (arguments.has("input")) return topology::open_topology(arguments.value("input"));
  Result<topology::Machine> machine = topology::discover_machine();
  if (!machine) return machine.error();
  return topology::Cluster{{*std::move(machine)}};
}

// The picture is one of a placement: one rank on each GPU, or on each memory node where there are no GPUs.
Result<std::string> cluster_picture(const topology::Cluster& cluster) {
  size_t gpus = SIZE_MAX;
  size_t memory_nodes = SIZE_MAX;
  for (const topology::Machine& machine : cluster.nodes) {
    gpus = std::min(gpus, machine.gpus.size());
    memory_nodes = std::min(memory_nodes, machine.numa.size());
  }
  const bool cuda = gpus > 0;
  const int per_node = static_cast<int>(std::max<size_t>(1, cuda ? gpus : memory_nodes));
  const auto grid = topology::RankGrid::make(1, 1, per_node * static_cast<int>(cluster.nodes.size()), 1);
  if (!grid) return grid.error();
  const auto kind = cuda ? topology::DeviceKind::cuda : topology::DeviceKind::cpu;
  const auto placement = topology::place(cluster, {*grid, per_node, kind, false});
  if (!placement) return placement.error();
  return topology::placement_svg(cluster, *placement, *grid);
}

double gibibytes(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

void print_machine(const topology::Machine& machine) {
  std::set<int> packages;
  size_t threads = 0;
  for (const topology::Core& core : machine.cores) {
    packages.insert(core.package);
    threads += core.cpus.size();
  }
  std::printf("%s: %zu package%s, %zu cores, %zu threads\n", machine.host.c_str(), packages.size(),
              packages.size() == 1 ? "" : "s", machine.cores.size(), threads);
  for (const topology::NumaNode& node : machine.numa) {
    std::printf("  memory node %d: %.1f GiB, package %d\n", node.os_index, gibibytes(node.memory_bytes), node.package);
  }
  for (const topology::Gpu& gpu : machine.gpus) {
    std::printf("  gpu %d: %s, %.1f GiB, %s, memory node %d\n", gpu.index, gpu.name.c_str(),
                gibibytes(gpu.memory_bytes), gpu.bus_id.c_str(), gpu.numa);
  }
  for (const topology::Nic& nic : machine.nics) {
    std::printf("  nic %s: %s%s", nic.name.c_str(), nic.rdma ? "RDMA" : "Ethernet", nic.gbps > 0 ? "" : "\n");
    if (nic.gbps > 0) std::printf(", %g Gbit/s\n", nic.gbps);
  }
  for (const std::string& note : machine.notes) std::printf("  note: %s\n", note.c_str());
}

}  // namespace

int topo_command(const Arguments& arguments) {
  const Result<topology::Cluster> cluster = chosen_cluster(arguments);
  if (!cluster) return report_error(cluster.error());
  if (arguments.has("svg")) {
    const Result<std::string> picture = cluster_picture(*cluster);
    if (!picture) return report_error(picture.error());
    if (Status written = write_text(arguments.value("svg"), *picture); !written) return report_error(written.error());
  }
  if (arguments.has("json")) {
    std::printf("%s\n", to_json(*cluster).dump(2).c_str());
    return kExitFinished;
  }
  for (const topology::Machine& machine : cluster->nodes) print_machine(machine);
  return kExitFinished;
}

}  // namespace mds::launcher
