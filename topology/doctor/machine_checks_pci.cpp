// Width and speed of the PCI links between GPUs and NICs and their CPU.
#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "topology/doctor/machine_checks.hpp"
#include "topology/paths.hpp"

namespace mds::topology::doctor {
namespace {

const char* const kSlotRemedy =
    "Under load, read LnkCap and LnkSta (lspci -vv -s BUS-ID). If it stays: reseat card, riser and cable, look at the "
    "slot's bifurcation and link speed in the BIOS, and at dmesg for AER errors.";
const char* const kVirtualRemedy =
    "Virtual bridges and switch ports often report this though data flows faster. NCCL believes it and chooses slow "
    "ways: write the topology (mdslaunch topo --write-nccl FILE), put the true link_speed and link_width in, and set "
    "NCCL_TOPO_FILE.";

/// GT/s x lanes; 0 where either is unknown. In proportion to bandwidth within one generation of encoding.
double raw(const PciLink& link) { return link.gtps * link.width; }

/// What goes over the wire, in GB/s: 8b/10b encoding up to 5 GT/s, 128b/130b above (PCI Express Base Specification).
double wire_gb_per_s(const PciLink& link) { return raw(link) / 8 * (link.gtps <= 5 ? 0.8 : 128. / 130); }

std::string text_of(const PciLink& link) {
  const std::string speed = link.gtps > 0 ? figure(link.gtps) + " GT/s" : "an unknown speed";
  const std::string width = link.width > 0 ? " x" + std::to_string(link.width) : ", width unknown";
  return speed + width + (raw(link) > 0 ? " (" + figure(wire_gb_per_s(link)) + " GB/s)" : "");
}

/// The least that a link can report; virtual bridges do.
bool is_least(const PciLink& link) { return raw(link) > 0 && link.gtps <= 2.5 && link.width <= 1; }

enum class Role { bridge, gpu, nic };

/// A PCI device that GPU or NIC traffic passes.
struct Used {
  int device = 0;
  Role role = Role::bridge;
  int kind = 0;     ///< equal devices with equal ones below have the same
  int gpus = 0;     ///< GPUs at it or below it whose data goes this way
  double need = 0;  ///< Gbit/s of the NICs at it or below it
  bool reported = false;
};

class Tree {
 public:
  explicit Tree(const Machine& machine) : machine_(machine), used_(machine.pci.size()) {
    const auto valid = [&](int device) { return device >= 0 && device < static_cast<int>(machine.pci.size()); };
    std::set<int> own_way;  // GPUs that reach the CPU by C2C or NVLink: PCI is not their way
    for (const GpuLink& link : machine.links) {
      if (link.end == LinkEnd::cpu || link.kind == LinkKind::c2c) own_way.insert(link.gpu);
    }
    for (size_t i = 0; i < machine.gpus.size(); ++i) {
      if (!valid(machine.gpus[i].pci)) continue;
      climb(machine.gpus[i].pci, Role::gpu, own_way.count(static_cast<int>(i)) ? 0 : 1, 0);
    }
    std::set<std::pair<int, int>> ports;  // a NIC that is listed twice needs no more
    for (const Nic& nic : machine.nics) {
      const bool counts = valid(nic.pci) && is_fast(nic);
      if (counts && ports.insert({nic.pci, nic.port}).second) climb(nic.pci, Role::nic, 0, nic.gbps);
    }
    name_kinds();
  }

  std::vector<Used*> all() {
    std::vector<Used*> list;
    for (Used& used : used_) {
      if (used.kind > 0) list.push_back(&used);
    }
    return list;
  }
  const PciLink& link(const Used& used) const { return machine_.pci[static_cast<size_t>(used.device)].link; }
  const PciLink& link_max(const Used& used) const { return machine_.pci[static_cast<size_t>(used.device)].link_max; }

  /// Counts devices from the CPU down, so that parents come before children and cannot loop.
  int parent(int device) const {
    const int above = machine_.pci[static_cast<size_t>(device)].parent;
    return above < device ? above : -1;
  }
  Used& at(int device) { return used_[static_cast<size_t>(device)]; }

 private:
  void climb(int device, Role role, int gpus, double need) {
    used_[static_cast<size_t>(device)].role = role;
    for (int at = device; at >= 0; at = parent(at)) {
      Used& used = used_[static_cast<size_t>(at)];
      used.device = at;
      used.kind = 1;
      used.gpus += gpus;
      used.need += need;
    }
  }

  void name_kinds() {
    std::map<std::string, int> kinds;
    std::vector<std::set<int>> below(used_.size());
    for (size_t i = used_.size(); i-- > 0;) {
      Used& used = used_[i];
      if (used.kind == 0) continue;
      const PciDevice& device = machine_.pci[i];
      std::string name = std::to_string(static_cast<int>(used.role)) + " " + std::to_string(device.pci_class) + " ";
      name += device.vendor + device.device + device.subsystem_vendor + device.subsystem_device;
      for (const int kind : below[i]) name += " " + std::to_string(kind);
      used.kind = kinds.try_emplace(name, static_cast<int>(kinds.size()) + 1).first->second;
      if (const int above = parent(static_cast<int>(i)); above >= 0)
        below[static_cast<size_t>(above)].insert(used.kind);
    }
  }

  const Machine& machine_;
  std::vector<Used> used_;  // by index into Machine::pci
};

std::string subject_of(const Machine& machine, const Used& used) {
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    if (machine.gpus[i].pci == used.device) return gpu_subject(machine, i);
  }
  for (size_t i = 0; i < machine.nics.size(); ++i) {
    if (machine.nics[i].pci == used.device) return nic_subject(machine, i);
  }
  return pci_subject(machine, static_cast<size_t>(used.device));
}

/// One subject for several devices: all GPUs as ranges, others by the first and how many more.
std::string subject_of(const Machine& machine, const std::vector<Used*>& devices) {
  std::vector<int> gpus;
  for (const Used* used : devices) {
    for (size_t i = 0; i < machine.gpus.size(); ++i) {
      if (machine.gpus[i].pci == used->device) gpus.push_back(static_cast<int>(i));
    }
  }
  if (!gpus.empty() && gpus.size() >= devices.size()) return gpus_subject(machine, gpus);
  const std::string first = subject_of(machine, *devices.front());
  return devices.size() == 1 ? first : first + " and " + std::to_string(devices.size() - 1) + " more";
}

bool is_possible(const PciLink& link) {
  return link.gtps >= 0 && link.gtps <= 128 && link.width >= 0 && link.width <= 32;
}

void check_possible(Report& report, Tree& tree) {
  for (Used* used : tree.all()) {
    const PciLink& link = tree.link(*used);
    if (is_possible(link)) continue;
    used->reported = true;
    report.add(Severity::fault, "pci-link-impossible", subject_of(report.machine(), *used),
               "its PCI link claims " + text_of(link) + "; PCI Express ends at 128 GT/s and x32",
               "Record the machine again, or correct the recording.");
  }
}

/// True if the link is as wide as it could be, but at the lowest speed: GPUs at rest save power so.
bool is_at_rest(const PciLink& link, const PciLink& max) {
  return link.gtps > 0 && link.gtps <= 2.5 && max.gtps > link.gtps && link.width >= max.width;
}

/// Links that could more than they were trained to.
void check_trained(Report& report, Tree& tree) {
  std::vector<Used*> resting;
  for (Used* used : tree.all()) {
    const PciLink &link = tree.link(*used), &max = tree.link_max(*used);
    if (used->reported || raw(link) == 0) continue;
    if (used->role != Role::nic && is_at_rest(link, max)) {
      used->reported = true;  // nor compared with GPUs that are at work
      if (used->role == Role::gpu) resting.push_back(used);
    }
    const bool narrow = max.width > link.width, slow = max.gtps > link.gtps;
    if (used->reported || used->role == Role::bridge || (!narrow && !slow)) continue;
    used->reported = true;
    report.add(Severity::warning, narrow ? "pci-link-narrow" : "pci-link-slow", subject_of(report.machine(), *used),
               "its PCI link runs at " + text_of(link) + ", but both ends could " + text_of(max), kSlotRemedy);
  }
  if (resting.empty()) return;
  report.add(Severity::note, "pci-link-resting", subject_of(report.machine(), resting),
             "PCI links run at " + text_of(tree.link(*resting.front())) + " and could " +
                 text_of(tree.link_max(*resting.front())) + ": GPUs at rest do that to save power",
             "Nothing, unless it stays so under load (nvidia-smi -q -d PERFORMANCE; lspci -vv -s BUS-ID).");
}

/// Equal devices with equal ones below have equal links.
void check_peers(Report& report, Tree& tree) {
  std::map<int, std::vector<Used*>> kinds;
  for (Used* used : tree.all()) kinds[used->kind].push_back(used);
  for (const auto& [kind, peers] : kinds) {
    PciLink best;
    for (const Used* used : peers) {
      if (!used->reported && raw(tree.link(*used)) > raw(best)) best = tree.link(*used);
    }
    size_t as_good = 0;
    for (const Used* used : peers) as_good += raw(tree.link(*used)) == raw(best);
    for (Used* used : peers) {
      const PciLink& link = tree.link(*used);
      if (used->reported || raw(link) >= raw(best)) continue;
      used->reported = true;
      const bool unknown = raw(link) == 0;
      const bool least = used->role == Role::bridge && is_least(link);
      // A second adapter in a lesser slot that is wide enough for its port slows nothing down.
      const bool enough = used->role == Role::nic && used->need > 0 && wire_gb_per_s(link) * 8 >= used->need;
      const char* code = least                     ? "virtual-bridge"
                         : unknown                 ? "pci-link-unknown"
                         : link.width < best.width ? "pci-link-narrow"
                                                   : "pci-link-slow";
      report.add(enough ? Severity::note : Severity::warning, code, subject_of(report.machine(), *used),
                 "its PCI link reports " + text_of(link) + "; " + amount(as_good, "equal device") +
                     " of this machine: " + text_of(best),
                 least ? kVirtualRemedy : kSlotRemedy);
    }
  }
}

/// What the class of a GPU could: lanes, and the speed of its generation. Empty where we do not know.
PciLink class_link(const Gpu& gpu) {
  const auto named = [&](std::string_view part) { return gpu.name.find(part) != std::string::npos; };
  if (named("GeForce") || named("RTX") || named("A2")) return {};  // some of these have eight lanes
  if (gpu.sm >= 90 && gpu.sm < 120) return {32, 16};
  if (gpu.sm == 80) return {16, 16};
  if (gpu.sm == 60 || gpu.sm == 70) return {8, 16};
  if (!gpu.gcn.empty()) return {0, 16};
  constexpr std::array<std::pair<std::string_view, double>, 9> kNames{{{"B200", 32},
                                                                       {"B300", 32},
                                                                       {"H200", 32},
                                                                       {"H100", 32},
                                                                       {"H800", 32},
                                                                       {"A100", 16},
                                                                       {"A800", 16},
                                                                       {"V100", 8},
                                                                       {"P100", 8}}};
  for (const auto& [part, gtps] : kNames) {
    if (named(part)) return {gtps, 16};
  }
  return {};
}

void check_class(Report& report, Tree& tree) {
  const Machine& machine = report.machine();
  std::vector<Used*> slow;
  PciLink slow_link, could;
  for (const Gpu& gpu : machine.gpus) {
    if (gpu.pci < 0 || gpu.pci >= static_cast<int>(machine.pci.size())) continue;
    Used& used = tree.at(gpu.pci);
    const PciLink &link = tree.link(used), most = class_link(gpu);
    if (used.reported || used.gpus == 0 || raw(link) == 0 || most.width == 0) continue;
    if (link.width < most.width) {
      used.reported = true;
      report.add(Severity::warning, "pci-link-narrow", subject_of(machine, used),
                 "its PCI link has " + amount(static_cast<size_t>(link.width), "lane") + ", " + text_of(link) +
                     "; such a GPU has " + std::to_string(most.width),
                 kSlotRemedy);
    } else if (link.gtps < most.gtps) {
      slow.push_back(&used);
      slow_link = link;
      could = most;
    }
  }
  if (slow.empty()) return;
  report.add(Severity::note, "pci-link-slow", subject_of(machine, slow),
             "PCI links run at " + text_of(slow_link) + "; such GPUs can do " + text_of(could),
             "Either the machine's slots are of an older generation, or the GPUs are at rest: read it again under load "
             "(nvidia-smi -q -d PERFORMANCE; lspci -vv).");
}

/// Bridges slower than what hangs below them, where all are alike: no fault of one part.
void check_uplinks(Report& report, Tree& tree) {
  std::map<std::string, std::vector<Used*>> slow;  // by what the link reports
  std::map<std::string, PciLink> below;
  for (Used* used : tree.all()) {
    for (int above = tree.parent(used->device); above >= 0 && used->role != Role::bridge; above = tree.parent(above)) {
      Used& bridge = tree.at(above);
      const PciLink &link = tree.link(bridge), &end = tree.link(*used);
      const bool matters = bridge.gpus > 0 || wire_gb_per_s(link) * 8 < bridge.need;
      if (bridge.reported || !matters || raw(link) == 0 || raw(end) <= raw(link) || !is_possible(end)) continue;
      auto& peers = slow[text_of(link)];
      if (std::find(peers.begin(), peers.end(), &bridge) == peers.end()) peers.push_back(&bridge);
      below[text_of(link)] = end;
    }
  }
  for (const auto& [text, bridges] : slow) {
    const PciLink& link = tree.link(*bridges.front());
    const bool least = is_least(link);
    report.add(least ? Severity::warning : Severity::note, least ? "virtual-bridge" : "pci-uplink-slow",
               subject_of(report.machine(), bridges),
               "the bridge's link reports " + text + ", what hangs below it " + text_of(below[text]) +
                   "; NCCL counts " + figure(pci_gb_per_s(link)) + " GB/s on the way to the CPU",
               least
                   ? kVirtualRemedy
                   : "All such bridges here report the same: the machine's design, power saving, or a switch's virtual "
                     "port. If a bandwidth test (nvbandwidth) shows more, tell NCCL with NCCL_TOPO_FILE.");
  }
}

/// Links that nothing is known of.
void check_known(Report& report, Tree& tree) {
  const Machine& machine = report.machine();
  std::vector<Used*> unknown;
  std::vector<int> treeless;
  for (Used* used : tree.all()) {
    if (used->role == Role::gpu && !used->reported && raw(tree.link(*used)) == 0) unknown.push_back(used);
  }
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    if (machine.gpus[i].pci < 0) treeless.push_back(static_cast<int>(i));
  }
  if (!unknown.empty()) {
    report.add(
        Severity::note, "pci-link-unknown", subject_of(machine, unknown),
        "PCI links report " + text_of(tree.link(*unknown.front())) +
            "; NCCL counts unknown speed as 8 GT/s and width 0 as 16 lanes",
        "A virtual machine hides it. Give NCCL the truth: mdslaunch topo --write-nccl FILE, correct link_speed and "
        "link_width there, and set NCCL_TOPO_FILE.");
  }
  if (!treeless.empty()) {
    const bool some = treeless.size() < machine.gpus.size();
    report.add(
        some ? Severity::warning : Severity::note, "pci-tree-unknown", gpus_subject(machine, treeless),
        "the PCI devices above are unknown, so that the nearest NIC is guessed by NUMA node",
        "Add a source that has them, --input once more for the same host: hwloc's XML (lstopo --whole-io), or an "
        "NCCL dump (NCCL_TOPO_DUMP_FILE).");
  }
}

/// An adapter that its slot holds back.
void check_nic_slots(Report& report, Tree& tree) {
  for (Used* used : tree.all()) {
    const PciLink& link = tree.link(*used);
    if (used->role != Role::nic || used->reported || raw(link) == 0) continue;
    if (wire_gb_per_s(link) * 8 >= 0.9 * used->need) continue;
    used->reported = true;
    report.add(Severity::warning, "nic-slot-slow", subject_of(report.machine(), *used),
               "its ports have " + figure(used->need) + " Gbit/s together, its PCI link " + text_of(link) + " only " +
                   figure(wire_gb_per_s(link) * 8) + " Gbit/s",
               "Move it to a wider or faster slot. " + std::string(kSlotRemedy));
  }
}

}  // namespace

void check_pci_links(Report& report) {
  Tree tree(report.machine());
  check_possible(report, tree);
  check_trained(report, tree);
  check_peers(report, tree);
  check_class(report, tree);
  check_nic_slots(report, tree);
  check_uplinks(report, tree);
  check_known(report, tree);
}

}  // namespace mds::topology::doctor
