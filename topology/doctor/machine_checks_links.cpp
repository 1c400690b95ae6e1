// NVLink, xGMI and C2C: what leaves a GPU otherwise than by PCI Express.
#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>

#include "topology/doctor/machine_checks.hpp"

namespace mds::topology::doctor {
namespace {

const char* name_of(LinkKind kind) {
  return kind == LinkKind::nvlink ? "NVLink" : kind == LinkKind::xgmi ? "xGMI" : "C2C";
}

const char* const kLinkRemedy =
    "nvidia-smi nvlink --status (AMD: rocm-smi --showtopo) shows each link. Down: look for Xid 74 or 'xgmi' in dmesg, "
    "reset the GPU or restart the fabric manager, then reseat the board or the bridge.";

bool in_range(const Machine& machine, int gpu) { return gpu >= 0 && gpu < static_cast<int>(machine.gpus.size()); }

/// What cannot be: a link to its own GPU, to nothing, of no lanes.
void check_each(Report& report) {
  const Machine& machine = report.machine();
  for (const GpuLink& link : machine.links) {
    if (!in_range(machine, link.gpu)) continue;
    const size_t gpu = static_cast<size_t>(link.gpu);
    const std::string what = std::to_string(link.count) + " x " + name_of(link.kind);
    const bool itself = link.end == LinkEnd::gpu &&
                        (link.peer == link.gpu ||
                         (link.peer < 0 && !link.peer_bus_id.empty() && link.peer_bus_id == machine.gpus[gpu].bus_id));
    if (itself) {
      report.add(Severity::fault, "link-to-itself", gpu_subject(machine, gpu), what + " to the GPU itself",
                 "A loop-back connector or a wrong recording: take the connector out, or record the machine again.");
    } else if (link.end == LinkEnd::gpu && !in_range(machine, link.peer)) {
      const std::string target = link.peer_bus_id.empty() ? "a device without an address" : link.peer_bus_id;
      report.add(
          Severity::fault, "link-to-unknown-device", gpu_subject(machine, gpu),
          what + " to " + target + ", which is no GPU of this machine",
          "The peer has fallen off the bus (dmesg: Xid 79), is hidden from this process, or the recording is cut "
          "short: nvidia-smi -L (rocm-smi) must list it.");
    } else if (link.count <= 0) {
      report.add(Severity::warning, "link-without-lanes", gpu_subject(machine, gpu),
                 std::string(name_of(link.kind)) + " with a count of 0: the links are down", kLinkRemedy);
    }
  }
}

/// A link has two ends, so both GPUs must count the same. Gives the GPUs complained about.
std::set<int> check_symmetry(Report& report) {
  const Machine& machine = report.machine();
  std::set<int> complained;
  std::map<std::array<int, 3>, int> counts;  // kind, from, to
  for (const GpuLink& link : machine.links) {
    if (link.end != LinkEnd::gpu || link.peer == link.gpu) continue;
    if (!in_range(machine, link.gpu) || !in_range(machine, link.peer)) continue;
    counts[{static_cast<int>(link.kind), link.gpu, link.peer}] += link.count;
  }
  for (const auto& [way, there] : counts) {
    const auto [kind, a, b] = way;
    const auto reverse = counts.find({kind, b, a});
    const int back = reverse == counts.end() ? 0 : reverse->second;
    if (there == back || (reverse != counts.end() && a > b)) continue;
    const std::string link = name_of(static_cast<LinkKind>(kind));
    const auto index = [&](int gpu) { return std::to_string(machine.gpus[static_cast<size_t>(gpu)].index); };
    report.add(Severity::fault, "link-asymmetric", gpus_subject(machine, {a, b}),
               "gpu " + index(a) + " counts " + std::to_string(there) + " x " + link + " to gpu " + index(b) +
                   ", gpu " + index(b) + " counts " + std::to_string(back) + " back",
               kLinkRemedy);
    complained.insert({a, b});
  }
  return complained;
}

/// GPUs of one kind have as many links as each other; those in `known` are complained about already.
void check_totals(Report& report, LinkKind kind, const std::set<int>& known) {
  const Machine& machine = report.machine();
  std::vector<int> total(machine.gpus.size());
  for (const GpuLink& link : machine.links) {
    const bool itself = link.end == LinkEnd::gpu && link.peer == link.gpu;
    if (link.kind == kind && in_range(machine, link.gpu) && !itself) total[static_cast<size_t>(link.gpu)] += link.count;
  }
  std::map<int, std::vector<int>> by_total;
  for (size_t i = 0; i < total.size(); ++i) {
    if (known.count(static_cast<int>(i)) == 0) by_total[total[i]].push_back(static_cast<int>(i));
  }
  if (by_total.size() < 2) return;
  const int most = by_total.rbegin()->first;
  const size_t full = by_total.rbegin()->second.size();
  const size_t linked = machine.gpus.size() - by_total[0].size();
  for (const auto& [count, gpus] : by_total) {
    if (count == most || gpus.empty()) continue;
    // Bridges that join some of a server's cards leave others alone by design; a board of many does not.
    const bool board = linked * 4 >= machine.gpus.size() * 3;
    if (count == 0) {
      report.add(board ? Severity::fault : Severity::warning,
                 kind == LinkKind::xgmi ? "gpu-without-xgmi" : "gpu-without-nvlink", gpus_subject(machine, gpus),
                 "no " + std::string(name_of(kind)) + ", while " + amount(linked, "GPU") +
                     " of this machine have up to " + std::to_string(most),
                 kLinkRemedy);
    } else {
      report.add(Severity::warning, "gpu-links-fewer", gpus_subject(machine, gpus),
                 std::to_string(count) + " x " + name_of(kind) + ", while " + amount(full, "GPU") +
                     " of this machine have " + std::to_string(most),
                 kLinkRemedy);
    }
  }
}

void check_speeds(Report& report, LinkKind kind) {
  const Machine& machine = report.machine();
  double best = 0;
  for (const GpuLink& link : machine.links) {
    if (link.kind == kind) best = std::max(best, link.gb_per_s_each);
  }
  std::map<int, double> slow;
  for (const GpuLink& link : machine.links) {
    if (link.kind != kind || !in_range(machine, link.gpu) || link.gb_per_s_each <= 0) continue;
    if (link.gb_per_s_each < 0.95 * best) slow[link.gpu] = link.gb_per_s_each;
  }
  if (slow.empty()) return;
  std::vector<int> gpus;
  for (const auto& [gpu, speed] : slow) gpus.push_back(gpu);
  report.add(Severity::warning, "gpu-link-slow", gpus_subject(machine, gpus),
             std::string(name_of(kind)) + " of " + figure(slow.begin()->second) + " GB/s a link, while others have " +
                 figure(best) + " GB/s",
             kLinkRemedy);
}

/// GPUs that are sold on boards with links of their own, by name or PCI device.
bool sold_with_links(const Machine& machine, const Gpu& gpu) {
  for (const char* name : {"SXM", "HBM3", "H200", "B200", "B300", "MI250", "MI300", "MI325", "MI350", "MI355"}) {
    if (gpu.name.find(name) != std::string::npos && gpu.name.find("NVL") == std::string::npos) return true;
  }
  if (gpu.pci < 0 || gpu.pci >= static_cast<int>(machine.pci.size())) return false;
  const PciDevice& device = machine.pci[static_cast<size_t>(gpu.pci)];
  if (device.vendor != "0x10de" && device.vendor != "0x1002") return false;
  // P100, V100 and A100 SXM, H100 and H200 SXM, B200, MI250X, MI300X.
  constexpr std::array<std::string_view, 12> kDevices{"0x15f9", "0x1db1", "0x1db5", "0x20b0", "0x20b2", "0x2324",
                                                      "0x2330", "0x2335", "0x2901", "0x7408", "0x740c", "0x74a1"};
  return std::find(kDevices.begin(), kDevices.end(), device.device) != kDevices.end();
}

void check_seen(Report& report) {
  const Machine& machine = report.machine();
  if (machine.gpus.size() < 2) return;
  std::vector<int> gpus;
  size_t anonymous = 0;
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    const Gpu& gpu = machine.gpus[i];
    const bool nameless = gpu.name.empty() && gpu.gcn.empty() && gpu.sm == 0;
    anonymous += nameless;
    if (nameless || sold_with_links(machine, gpu)) gpus.push_back(static_cast<int>(i));
  }
  if (machine.links.empty() && gpus.size() > 1) {
    report.add(
        Severity::note, "links-unseen", gpus_subject(machine, gpus),
        anonymous == gpus.size()
            ? "nothing is known of the GPUs but their addresses, and so no NVLink or xGMI between them"
            : "no NVLink or xGMI is known, though such GPUs are sold with it: the source does not show it",
        "Add a source that does, --input once more for the same host: an NCCL dump (NCCL_TOPO_DUMP_FILE), or run "
        "this on the machine itself, where the driver is asked.");
  }
  std::map<int, std::string> hidden;  // by GPU
  for (const GpuLink& link : machine.links) {
    const bool placeholder = link.peer_bus_id.empty() || link.peer_bus_id.find("ffff:ff:ff") != std::string::npos;
    const bool rack = in_range(machine, link.gpu) && !machine.gpus[static_cast<size_t>(link.gpu)].nvlink_domain.empty();
    if (rack) continue;  // the switches of an NVLink domain are in boxes of their own
    if (link.end == LinkEnd::nvswitch && placeholder) hidden[link.gpu] = link.peer_bus_id;
  }
  if (hidden.empty()) return;
  gpus.clear();
  for (const auto& [gpu, address] : hidden) gpus.push_back(gpu);
  report.add(Severity::note, "nvswitch-hidden", gpus_subject(machine, gpus),
             "NVLinks end at an NVSwitch without a bus id: the virtual machine hides the switches",
             "Nothing to do: GPUs with links to a switch count as joined by it.");
}

}  // namespace

void check_gpu_links(Report& report) {
  check_each(report);
  const std::set<int> asymmetric = check_symmetry(report);
  for (const LinkKind kind : {LinkKind::nvlink, LinkKind::xgmi, LinkKind::c2c}) {
    check_totals(report, kind, asymmetric);
    check_speeds(report, kind);
  }
  check_seen(report);
}

}  // namespace mds::topology::doctor
