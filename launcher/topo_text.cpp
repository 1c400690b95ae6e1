#include "launcher/topo_text.hpp"

#include <algorithm>
#include <cstdio>
#include <set>

#include "topology/doctor/machine_checks.hpp"
#include "topology/fabric/host_ranges.hpp"
#include "topology/paths.hpp"
#include "topology/picture/device_tree.hpp"

namespace mds::launcher {
namespace {

using namespace topology;
using doctor::amount;
using doctor::number_ranges;
using picture::DeviceNode;
using picture::NumaView;

constexpr size_t kColumnsMax = 16;  // GPUs side by side in a table

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) {
    if (!part.empty()) text += (text.empty() ? "" : ", ") + part;
  }
  return text;
}

std::string padded(const std::string& text, size_t width) {
  return text.size() < width ? text + std::string(width - text.size(), ' ') : text + " ";
}

std::string cpus_text(const std::vector<const Core*>& cores) {
  std::vector<int> cpus;
  for (const Core* core : cores) cpus.insert(cpus.end(), core->cpus.begin(), core->cpus.end());
  return cpus.empty() ? "" : " (CPUs " + number_ranges(std::move(cpus)) + ")";
}

std::string pci_text(const Machine& machine, int device) {
  if (device < 0 || device >= static_cast<int>(machine.pci.size())) return "";
  const std::string link = picture::link_text(machine.pci[static_cast<size_t>(device)].link);
  return link.empty() ? "" : "PCI " + link;
}

/// "4 x NVLink to each of 3 GPUs", "18 x NVLink to NVSwitch".
std::string links_text(const Machine& machine, int gpu) {
  std::vector<std::string> parts;
  for (const LinkKind kind : {LinkKind::nvlink, LinkKind::xgmi, LinkKind::c2c}) {
    const char* name = kind == LinkKind::nvlink ? "NVLink" : kind == LinkKind::xgmi ? "xGMI" : "C2C";
    int to_gpus = 0, to_switch = 0, to_cpu = 0;
    std::set<int> peers;
    for (const GpuLink& link : machine.links) {
      if (link.gpu != gpu || link.kind != kind) continue;
      (link.end == LinkEnd::gpu ? to_gpus : link.end == LinkEnd::nvswitch ? to_switch : to_cpu) += link.count;
      if (link.end == LinkEnd::gpu) peers.insert(link.peer);
    }
    if (to_gpus > 0) {
      parts.push_back(std::to_string(to_gpus) + " " + name + " to " + amount(peers.size(), "GPU"));
    }
    if (to_switch > 0) parts.push_back(std::to_string(to_switch) + " " + name + " to NVSwitch");
    if (to_cpu > 0) parts.push_back(std::to_string(to_cpu) + " " + name + " to the CPU");
  }
  return joined(parts);
}

void print_devices(const Machine& machine, const DeviceNode& node, const std::string& indent, std::string& out) {
  for (const auto& adapter : node.nics) {
    for (const int index : adapter) {
      const Nic& nic = machine.nics[static_cast<size_t>(index)];
      const std::string kind = nic.rdma ? "RDMA" : "Ethernet";
      out += indent + padded(nic.name.empty() ? "nic" : "nic " + nic.name, 14) + padded(nic.bus_id, 14) +
             joined({kind, picture::rate_text(nic.gbps), pci_text(machine, nic.pci),
                     nic.interface.empty() ? "" : "interface " + nic.interface}) +
             "\n";
    }
  }
  for (const int index : node.gpus) {
    const Gpu& gpu = machine.gpus[static_cast<size_t>(index)];
    const std::string arch = !gpu.gcn.empty() ? gpu.gcn : gpu.sm > 0 ? "sm" + std::to_string(gpu.sm) : "";
    out += indent + padded("gpu " + std::to_string(gpu.index), 14) + padded(gpu.bus_id, 14) +
           joined({gpu.name.empty() ? arch : gpu.name, picture::memory_text(gpu.memory_bytes),
                   pci_text(machine, gpu.pci), links_text(machine, index)}) +
           "\n";
  }
  for (const DeviceNode& below : node.switches) {
    out += indent + padded("PCI switch", 14) + padded(machine.pci[static_cast<size_t>(below.pci)].bus_id, 14) +
           pci_text(machine, below.pci) + "\n";
    print_devices(machine, below, indent + "  ", out);
  }
}

/// One cell of the tables: "NVL 370.8".
std::string cell(const Path& path) {
  char text[48];
  const bool known = path.gb_per_s > 0 && path.kind != PathClass::loc && path.kind != PathClass::dis;
  std::snprintf(text, sizeof text, known ? "%s %.4g" : "%s", to_string(path.kind), path.gb_per_s);
  return text;
}

/// GPUs across; GPUs, then NICs down: what NCCL will count on.
std::string paths_text(const Machine& machine) {
  const size_t columns = std::min(machine.gpus.size(), kColumnsMax);
  if (machine.gpus.empty() || machine.gpus.size() + machine.nics.size() < 2) return "";
  const Paths paths = find_paths(machine);
  size_t label = 8;
  for (const Nic& nic : machine.nics) label = std::max(label, nic.name.size() + 2);
  std::string out = "  paths: class and GB/s, as NCCL counts\n  " + std::string(label, ' ');
  for (size_t gpu = 0; gpu < columns; ++gpu) out += padded("gpu " + std::to_string(machine.gpus[gpu].index), 11);
  if (columns < machine.gpus.size()) out += "...";
  while (out.back() == ' ') out.pop_back();
  out += "\n";
  const auto row = [&](const std::string& name, auto path_to) {
    out += "  " + padded(name, label);
    for (size_t gpu = 0; gpu < columns; ++gpu) out += padded(path_to(gpu), 11);
    while (out.back() == ' ') out.pop_back();
    out += "\n";
  };
  for (size_t b = 0; b < machine.gpus.size() && machine.gpus.size() > 1; ++b) {
    row("gpu " + std::to_string(machine.gpus[b].index),
        [&](size_t a) { return a == b ? std::string("-") : cell(paths.between_gpus(a, b)); });
  }
  for (size_t nic = 0; nic < machine.nics.size(); ++nic) {
    const Nic& it = machine.nics[nic];
    row(it.name.empty() ? it.bus_id : it.name, [&](size_t gpu) { return cell(paths.to_nic(gpu, nic)); });
  }
  return out;
}

std::string machine_text(const Machine& machine) {
  std::set<int> packages;
  size_t threads = 0;
  uint64_t memory = 0;
  for (const Core& core : machine.cores) {
    packages.insert(core.package);
    threads += core.cpus.size();
  }
  for (const NumaNode& node : machine.numa) memory += node.memory_bytes;
  std::string cores = machine.cores.empty() ? "cores unknown" : amount(machine.cores.size(), "core");
  if (threads > machine.cores.size()) cores += " with " + amount(threads, "thread");
  std::string out = "  " +
                    joined({packages.empty() ? "" : amount(packages.size(), "package"), cores,
                            amount(machine.numa.size(), "NUMA node"), picture::memory_text(memory),
                            amount(machine.gpus.size(), "GPU"), amount(machine.nics.size(), "NIC")}) +
                    "\n";
  for (const NumaView& view : picture::numa_views(machine)) {
    if (view.os_index < 0) {
      out += "  NUMA node unknown\n";
    } else {
      out += "  NUMA node " + std::to_string(view.os_index) + ": " +
             joined({"package " + std::to_string(view.package), picture::memory_text(view.memory_bytes),
                     amount(view.cores.size(), "core") + cpus_text(view.cores)}) +
             "\n";
    }
    print_devices(machine, view.devices, "    ", out);
  }
  out += paths_text(machine);
  for (const std::string& note : machine.notes) out += "  note: " + note + "\n";
  return out;
}

std::string fabric_text(const Cluster& cluster) {
  if (cluster.fabric.empty()) return "";
  int levels = 0;
  for (const FabricSwitch& one : cluster.fabric.switches) levels = std::max(levels, one.level + 1);
  std::vector<size_t> switches(static_cast<size_t>(levels));
  for (const FabricSwitch& one : cluster.fabric.switches) ++switches[static_cast<size_t>(std::max(one.level, 0))];
  std::vector<std::string> parts;
  for (size_t level = 0; level < switches.size(); ++level) {
    parts.push_back(std::to_string(switches[level]) + " switches of level " + std::to_string(level));
  }
  if (!cluster.fabric.blocks.empty()) parts.push_back(amount(cluster.fabric.blocks.size(), "block"));
  return "fabric: " + joined(parts) + "\n";
}

struct Shade {
  const char* begin;
  const char* end;
};

Shade shade_of(Severity severity, bool colours) {
  if (!colours) return {"", ""};
  const char* begin = severity == Severity::fault     ? "\x1b[1;31m"
                      : severity == Severity::warning ? "\x1b[33m"
                                                      : "\x1b[36m";
  return {begin, "\x1b[0m"};
}

}  // namespace

std::string topology_text(const Cluster& cluster) {
  std::string out;
  for (const picture::MachineKind& kind : picture::machine_kinds(cluster)) {
    if (!out.empty()) out += "\n";
    out += fold_hosts(kind.hosts);
    if (kind.hosts.size() > 1) out += ": " + amount(kind.hosts.size(), "node") + " alike";
    out += "\n" + machine_text(*kind.machine);
  }
  const std::string fabric = fabric_text(cluster);
  return fabric.empty() ? out : out + "\n" + fabric;
}

std::string findings_text(const std::vector<Finding>& findings, bool colours) {
  std::string out;
  for (const Severity severity : {Severity::fault, Severity::warning, Severity::note}) {
    const auto count = static_cast<size_t>(
        std::count_if(findings.begin(), findings.end(), [&](auto& finding) { return finding.severity == severity; }));
    if (count == 0) continue;
    const Shade shade = shade_of(severity, colours);
    out += (out.empty() ? "" : "\n") + std::string(shade.begin) + amount(count, to_string(severity)) + shade.end + "\n";
    for (const Finding& finding : findings) {
      if (finding.severity != severity) continue;
      out += "  " + std::string(shade.begin) + finding.code + shade.end + "  " +
             (finding.host.empty() ? "" : finding.host + ": ") + finding.subject + ": " + finding.message + "\n";
      if (!finding.remedy.empty()) out += "      remedy: " + finding.remedy + "\n";
    }
  }
  return out.empty() ? "no findings\n" : out;
}

}  // namespace mds::launcher
