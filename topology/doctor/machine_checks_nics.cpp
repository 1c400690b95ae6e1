// NICs among themselves, and how far the GPUs are from them.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <tuple>

#include "topology/doctor/machine_checks.hpp"
#include "topology/fabric/host_ranges.hpp"
#include "topology/paths.hpp"

namespace mds::topology::doctor {
namespace {

const char* const kPortRemedy =
    "ibstat (or ethtool) shows state and rate of the port, and its counters the errors: look at cable, transceiver and "
    "the switch's port, whose speed must not be fixed to less.";

std::string names_of(const Machine& machine, const std::vector<size_t>& nics) {
  if (nics.size() == 1) return nic_subject(machine, nics[0]);
  std::vector<std::string> names;
  for (const size_t nic : nics) {
    const Nic& it = machine.nics[nic];
    names.push_back(it.name.empty() ? it.bus_id : it.name);
  }
  return "nics " + fold_hosts(names);
}

/// A GUID that an adapter really has: plug-ins number theirs 0, 1, 2.
bool is_real_guid(const std::string& guid) {
  return std::strtoull(guid.c_str(), nullptr, 16) > 0xffff || guid.find(':') != std::string::npos;
}

void check_doubles(Report& report) {
  const Machine& machine = report.machine();
  std::map<std::string, std::vector<size_t>> by_name, by_port;
  for (size_t i = 0; i < machine.nics.size(); ++i) {
    const Nic& nic = machine.nics[i];
    const std::string port = " port " + std::to_string(nic.port);
    if (!nic.name.empty()) by_name[nic.name + port].push_back(i);
    if (!nic.rdma || nic.name.find('+') != std::string::npos) continue;  // NCCL's fused adapters repeat their parts
    if (nic.name.starts_with("usnic")) continue;  // Cisco's virtual adapters share GUID and function; NCCL uses none
    if (is_real_guid(nic.guid)) {
      by_port["GUID " + nic.guid + port].push_back(i);
    } else if (!nic.bus_id.empty()) {
      by_port["bus id " + nic.bus_id + port].push_back(i);
    }
  }
  std::vector<bool> said(machine.nics.size());
  for (const auto* groups : {&by_name, &by_port}) {
    for (const auto& [what, nics] : *groups) {
      if (nics.size() < 2 || said[nics[1]]) continue;
      for (const size_t nic : nics) said[nic] = true;
      report.add(Severity::fault, "duplicate-nic", nic_subject(machine, nics[0]),
                 "the same NIC is listed " + std::to_string(nics.size()) + " times (" + names_of(machine, nics) +
                     "): same " + (groups == &by_name ? "name" : "adapter") + ", " + what,
                 "NCCL would open it twice and count its bandwidth twice: record the machine again, or take one out of "
                 "the topology file.");
    }
  }
}

/// Adapters of one model: equal PCI ids, or as far as is known equal.
using Models = std::map<std::tuple<std::string, std::string, std::string, uint32_t>, std::vector<size_t>>;

Models rdma_models(const Machine& machine) {
  Models models;
  for (size_t i = 0; i < machine.nics.size(); ++i) {
    const Nic& nic = machine.nics[i];
    if (!nic.rdma) continue;
    const bool known = nic.pci >= 0 && nic.pci < static_cast<int>(machine.pci.size());
    const PciDevice device = known ? machine.pci[static_cast<size_t>(nic.pci)] : PciDevice{};
    models[{device.vendor, device.device, device.subsystem_device, device.pci_class}].push_back(i);
  }
  return models;
}

void check_rates(Report& report) {
  const Machine& machine = report.machine();
  std::vector<size_t> silent;
  bool any_rate = false;
  for (const auto& [model, nics] : rdma_models(machine)) {
    double best = 0;
    for (const size_t nic : nics) best = std::max(best, machine.nics[nic].gbps);
    any_rate |= best > 0;
    const size_t as_fast = static_cast<size_t>(
        std::count_if(nics.begin(), nics.end(), [&](size_t nic) { return machine.nics[nic].gbps == best; }));
    for (const size_t nic : nics) {
      const double rate = machine.nics[nic].gbps;
      if (best == 0) silent.push_back(nic);
      if (best == 0 || rate == best) continue;
      const bool none = rate == 0;
      report.add(Severity::warning, none ? "nic-without-rate" : "nic-slow", nic_subject(machine, nic),
                 (none ? "reports no rate (0 Gbit/s): its port is down, or the source does not show it; "
                       : "runs at " + figure(rate) + " Gbit/s; ") +
                     amount(as_fast, "equal adapter") + " of this machine: " + figure(best) + " Gbit/s",
                 kPortRemedy);
    }
  }
  if (silent.empty()) return;
  report.add(any_rate ? Severity::warning : Severity::note, "nic-without-rate", names_of(machine, silent),
             any_rate ? "no rate (0 Gbit/s), while other adapters of this machine have one"
                      : "the source does not say how fast the NICs are (0 Gbit/s)",
             any_rate
                 ? kPortRemedy
                 : "Add a source that does, --input once more for the same host (an NCCL dump), or run this on the "
                   "machine itself.");
}

/// A port that is down while others of the machine are up; where none is, the fabric is simply not there.
void check_ports(Report& report) {
  const Machine& machine = report.machine();
  std::vector<size_t> down;
  bool any_up = false;
  for (size_t i = 0; i < machine.nics.size(); ++i) {
    if (!machine.nics[i].rdma) continue;
    machine.nics[i].active ? void(any_up = true) : down.push_back(i);
  }
  if (down.empty() || !any_up) return;
  report.add(Severity::note, "nic-port-down", names_of(machine, down),
             "no port is up, while other adapters of this machine have one; ranks are not given these", kPortRemedy);
}

void check_gdr(Report& report) {
  const Machine& machine = report.machine();
  std::vector<size_t> without;
  size_t with = 0;
  for (size_t i = 0; i < machine.nics.size(); ++i) {
    if (!machine.nics[i].rdma) continue;
    machine.nics[i].gdr ? void(++with) : without.push_back(i);
  }
  if (without.empty() || machine.gpus.empty()) return;
  const std::string remedy =
      "modprobe nvidia-peermem (AMD: the amdgpu driver with peer memory), or a kernel from 5.12 on with DMA-BUF; in "
      "containers the host needs it.";
  if (with > 0) {
    report.add(Severity::warning, "nic-without-gdr", names_of(machine, without),
               "cannot read GPU memory (GPUDirect RDMA), while " + amount(with, "other NIC") + " can", remedy);
  } else {
    report.add(Severity::note, "nic-without-gdr", names_of(machine, without),
               "no NIC is known to read GPU memory (GPUDirect RDMA)", remedy);
  }
}

}  // namespace

void check_nics(Report& report) {
  check_doubles(report);
  check_rates(report);
  check_ports(report);
  check_gdr(report);
}

void check_ways_to_nics(Report& report) {
  const Machine& machine = report.machine();
  const auto fast = static_cast<size_t>(std::count_if(machine.nics.begin(), machine.nics.end(), is_fast));
  if (fast == 0 || machine.gpus.empty()) return;
  const Paths paths = find_paths(machine);
  std::vector<int> far;
  for (size_t gpu = 0; gpu < machine.gpus.size(); ++gpu) {
    PathClass best = PathClass::dis;
    for (size_t nic = 0; nic < machine.nics.size(); ++nic) {
      if (is_fast(machine.nics[nic])) best = std::min(best, paths.to_nic(gpu, nic).kind);
    }
    if (best >= PathClass::sys && machine.gpus[gpu].numa >= 0) far.push_back(static_cast<int>(gpu));
  }
  if (far.empty()) return;
  // With fewer adapters than GPUs somebody has to be far; with enough of them something is in a wrong slot.
  const bool enough = fast >= machine.gpus.size();
  report.add(enough ? Severity::warning : Severity::note, "gpu-far-from-nics", gpus_subject(machine, far),
             "no fast NIC (the machine has " + std::to_string(fast) +
                 ") is nearer than across CPU sockets or NUMA nodes (SYS)",
             enough
                 ? "Move a NIC into a slot of that NUMA node; the board's manual shows which slots belong to which CPU."
                 : "By design with so few NICs; a NIC per NUMA node with GPUs would help traffic between nodes.");
}

}  // namespace mds::topology::doctor
