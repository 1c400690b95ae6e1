#include "topology/cost/machines.hpp"

#include <algorithm>
#include <numeric>
#include <set>

#include "topology/paths.hpp"

namespace mds::topology::cost {
namespace {

// A device on a PCI express 3 x16 slot reaches 12 GB/s; where no recording says more, that is the least to expect.
constexpr double kPciGb = 12;
// 100 Gbit/s Ethernet.
constexpr double kNetworkGb = 12.5;

/// GB/s of all NVLink, xGMI or C2C-free links of a GPU to others.
double links_between_gpus(const Machine& machine, int gpu) {
  double sum = 0;
  for (const GpuLink& link : machine.links) {
    if (link.gpu == gpu && link.end != LinkEnd::cpu) sum += link.count * link.gb_per_s_each;
  }
  return sum;
}

/// GPUs that GPU 0's links reach, itself included: over a switch all that have links to one, else its neighbours'.
int linked_gpus(const Machine& machine) {
  std::set<int> domain{0};
  bool switched = false;
  for (size_t before = 0; before != domain.size();) {
    before = domain.size();
    for (const GpuLink& link : machine.links) {
      if (!domain.count(link.gpu)) continue;
      switched = switched || link.end == LinkEnd::nvswitch;
      if (link.end == LinkEnd::gpu && link.peer >= 0) domain.insert(link.peer);
    }
    for (const GpuLink& link : machine.links) {
      if (switched && link.end == LinkEnd::nvswitch) domain.insert(link.gpu);
    }
  }
  return static_cast<int>(domain.size());
}

/// GB/s of the narrowest path between two of the first `gpus` GPUs, over PCI, sockets or whatever there is.
double narrowest_path(const Machine& machine, const Paths& paths, int gpus) {
  double least = 0;
  for (int a = 0; a < gpus && !machine.pci.empty(); ++a) {
    for (int b = 0; b < a; ++b) {
      const double gb = paths.between_gpus(static_cast<size_t>(a), static_cast<size_t>(b)).gb_per_s;
      if (gb > 0 && (least == 0 || gb < least)) least = gb;
    }
  }
  return least == 0 ? kPciGb : least;
}

/// GB/s of a node's NICs for one of its ranks: no NIC carries more than the path to it. RDMA only, where there is any.
double network_gb(const Machine& machine, const Paths& paths, int ranks) {
  double rdma = 0, sockets = 0;
  for (size_t nic = 0; nic < machine.nics.size(); ++nic) {
    double gb = machine.nics[nic].gbps / 8, path = 0;
    for (size_t gpu = 0; gpu < paths.gpus; ++gpu) path = std::max(path, paths.to_nic(gpu, nic).gb_per_s);
    if (path > 0) gb = std::min(gb, path);
    (machine.nics[nic].rdma ? rdma : sockets) += gb;
  }
  return (rdma > 0 ? rdma : sockets) / ranks;
}

uint64_t node_memory(const Machine& machine) {
  return std::accumulate(machine.numa.begin(), machine.numa.end(), uint64_t{0},
                         [](uint64_t sum, const NumaNode& numa) { return sum + numa.memory_bytes; });
}

void describe_gpus(const Machine& machine, Machines& out) {
  for (int i = 0; i < out.ranks_per_node && i < static_cast<int>(machine.gpus.size()); ++i) {
    const Gpu& gpu = machine.gpus[static_cast<size_t>(i)];
    const uint64_t memory = gpu_memory(gpu);
    if (out.memory_bytes == 0 || (memory != 0 && memory < out.memory_bytes)) out.memory_bytes = memory;
    if (i > 0 && gpu.name == machine.gpus.front().name) continue;
    const auto device = device_class(gpu);
    if (!device) {
      out.rates_known = false;
      out.notes.push_back("no rates are known of \"" + gpu.name + "\": times cannot be estimated");
      return;
    }
    if (out.device.gemm == 0 || device->gemm < out.device.gemm) out.device = *device;
    out.links.sm = gpu.sm;
  }
  // Names come without a compute capability in many recordings.
  if (out.links.sm == 0 && out.device.gemm_fp8 > 0 && out.device.nvlink > 0) out.links.sm = 90;
  if (out.links.sm == 0 && out.device.name == "A100") out.links.sm = 80;
  if (out.links.sm == 0 && out.device.name == "V100") out.links.sm = 70;
}

void describe_links(const Machine& machine, const Paths& paths, Machines& out) {
  Links& links = out.links;
  const int gpus = std::min<int>(out.ranks_per_node, static_cast<int>(machine.gpus.size()));
  double each = 0;
  for (int i = 0; i < gpus; ++i) {
    const double gb = links_between_gpus(machine, i);
    each = i == 0 ? gb : std::min(each, gb);
  }
  out.domain = each > 0 ? std::min(gpus, linked_gpus(machine)) : 1;
  const bool silent = machine.links.empty() && machine.pci.empty();
  if (each == 0 && silent && out.device.nvlink > 0 && gpus > 1) {
    each = out.device.nvlink;
    out.domain = gpus;
    out.notes.push_back("the recording says nothing of NVLink: taken as " + out.device.name + " have it, all " +
                        std::to_string(gpus) + " GPUs of a node");
  }
  links.hardware = out.domain > 1 ? LinkHardware::nvlink : LinkHardware::pci;
  links.inside = out.domain > 1 ? each : narrowest_path(machine, paths, gpus);
  links.nvls = false;  // the trainer leaves NVLink SHARP off
  out.slow_links = {LinkHardware::pci, narrowest_path(machine, paths, gpus), 0, links.sm, false, false};
  links.amd_cpu = !machine.packages.empty() && machine.packages.front().vendor == "AuthenticAMD";
}

int domain_nodes(const Cluster& cluster, int nodes) {
  if (cluster.nodes.front().gpus.empty()) return 1;
  const std::string& domain = cluster.nodes.front().gpus.front().nvlink_domain;
  int count = 0;
  for (int i = 0; i < nodes && i < static_cast<int>(cluster.nodes.size()); ++i) {
    const auto& gpus = cluster.nodes[static_cast<size_t>(i)].gpus;
    count += !domain.empty() && !gpus.empty() && gpus.front().nvlink_domain == domain;
  }
  return std::max(1, count);
}

}  // namespace

Machines describe_machines(const Cluster& cluster, bool gpu, int nodes, int ranks_per_node, const std::string& order) {
  const Machine& machine = cluster.nodes.front();
  const Paths paths = gpu ? find_paths(machine) : Paths{};
  Machines out;
  out.gpu = gpu;
  out.nodes = nodes;
  out.ranks_per_node = std::max(1, ranks_per_node);
  out.order = order;
  out.host_bytes = node_memory(machine) / static_cast<uint64_t>(out.ranks_per_node);
  if (gpu) {
    out.rates_known = true;
    for (int i = 0; i < nodes && i < static_cast<int>(cluster.nodes.size()) && out.rates_known; ++i) {
      describe_gpus(cluster.nodes[static_cast<size_t>(i)], out);
    }
    describe_links(machine, paths, out);
    out.domain *= domain_nodes(cluster, nodes);
  } else {
    const int cores = static_cast<int>(machine.cores.size()) / out.ranks_per_node;
    out.device = cpu_class(cores);
    out.rates_known = true;
    out.memory_bytes = out.host_bytes;
    out.links.hardware = LinkHardware::host;
    out.links.inside = 3;  // a socket over loopback, copied twice
    out.domain = out.ranks_per_node;
  }
  out.links.network = network_gb(machine, paths, out.ranks_per_node);
  const bool distributed = nodes > 1 && cluster.nodes.size() > 1 && cluster.nodes[1].host != machine.host;
  if (!distributed) out.links.network = gpu ? out.links.inside : 3;  // virtual nodes of one machine
  if (distributed && out.links.network <= 0) {
    out.links.network = kNetworkGb / out.ranks_per_node;
    out.notes.push_back("the recording has no NIC with a speed: taken as 100 Gbit/s a node");
  }
  out.slow_links.network = out.links.network;
  return out;
}

Group group_along(Axis axis, const Layout& layout, const Machines& machines) {
  const auto size = [&](const std::string& name) {
    return name == "tp" ? layout.tensor : name == "cp" ? layout.context : name == "dp" ? layout.data : layout.pipeline;
  };
  const auto belongs = [&](const std::string& name) {
    if (axis == Axis::data) return name == "dp" || name == "cp";
    return name == (axis == Axis::tensor ? "tp" : axis == Axis::context ? "cp" : "pp");
  };
  int64_t stride = 1, ranks = 1, first = 0;
  for (size_t at = 0; at < machines.order.size(); at += 3) {
    const std::string name = machines.order.substr(at, 2);
    if (belongs(name)) {
      ranks *= size(name);
      if (first == 0) first = stride;
    }
    stride *= size(name);
  }
  const int64_t node = std::max(machines.domain, machines.ranks_per_node);
  const int64_t per_node = first >= node ? 1 : std::clamp<int64_t>(node / first, 1, ranks);
  return {static_cast<int>(ranks), static_cast<int>(per_node), per_node > 1 && first * per_node > machines.domain};
}

const Links& links_of(const Group& group, const Machines& machines) {
  return group.leaves_domain ? machines.slow_links : machines.links;
}

}  // namespace mds::topology::cost
