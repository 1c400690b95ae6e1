// GPUs among themselves.
#include <algorithm>
#include <map>
#include <set>

#include "topology/doctor/machine_checks.hpp"

namespace mds::topology::doctor {
namespace {

/// Positions of the GPUs by what `key` says of each; those of which it says "" are left out.
template <typename Key>
std::map<std::string, std::vector<int>> grouped(const Machine& machine, Key key) {
  std::map<std::string, std::vector<int>> groups;
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    const std::string value = key(machine.gpus[i]);
    if (!value.empty()) groups[value].push_back(static_cast<int>(i));
  }
  return groups;
}

bool is_slice(const Gpu& gpu) { return gpu.uuid.starts_with("MIG-"); }  // several may share a device

void check_doubles(Report& report) {
  const Machine& machine = report.machine();
  const auto complain = [&](const auto& groups, const char* what) {
    for (const auto& [value, gpus] : groups) {
      if (gpus.size() < 2) continue;
      report.add(
          Severity::fault, "duplicate-gpu", gpus_subject(machine, gpus),
          amount(gpus.size(), "GPU") + " have the same " + what + ", " + value,
          "Two GPUs cannot: record the machine again, and look whether a recording was edited or joined wrongly.");
    }
  };
  const auto by_bus = grouped(machine, [](const Gpu& gpu) { return is_slice(gpu) ? "" : gpu.bus_id; });
  complain(by_bus, "bus id");
  complain(grouped(machine, [](const Gpu& gpu) { return gpu.uuid; }), "UUID");
  complain(grouped(machine, [](const Gpu& gpu) { return std::to_string(gpu.index); }), "index");

  std::map<std::string, int> devices;
  for (const PciDevice& device : machine.pci) {
    if (!device.bus_id.empty()) ++devices[device.bus_id];
  }
  for (const auto& [bus_id, count] : devices) {
    if (count < 2 || (by_bus.count(bus_id) > 0 && by_bus.at(bus_id).size() > 1)) continue;  // said already
    report.add(Severity::fault, "duplicate-bus-id", "pci " + bus_id,
               std::to_string(count) + " PCI devices have this bus id",
               "A bus id belongs to one device: record the machine again.");
  }
}

void check_equal(Report& report) {
  const Machine& machine = report.machine();
  const bool sized =
      std::all_of(machine.gpus.begin(), machine.gpus.end(), [](auto& gpu) { return gpu.memory_bytes > 0; });
  const auto kinds = grouped(machine, [sized](const Gpu& gpu) {
    if (is_slice(gpu)) return std::string();
    const std::string memory = sized ? std::to_string((gpu.memory_bytes + (1 << 29)) >> 30) + " GiB" : "";
    if (!gpu.name.empty()) return gpu.name + (memory.empty() ? "" : ", " + memory);
    if (!gpu.gcn.empty()) return gpu.gcn;
    return gpu.sm > 0 ? "compute capability " + figure(gpu.sm / 10.) : memory;
  });
  if (kinds.size() < 2) return;
  std::string list;
  for (const auto& [kind, gpus] : kinds) {
    list += (list.empty() ? "" : "; ") + gpus_subject(machine, gpus) + ": " + kind;
  }
  report.add(Severity::warning, "gpus-unequal", amount(machine.gpus.size(), "GPU"), "the GPUs are not alike: " + list,
             "A job goes as fast as the slowest and must fit into the smallest: leave the others out "
             "(CUDA_VISIBLE_DEVICES), or, where they should be alike, look for ECC or MIG settings that differ.");
}

void check_order(Report& report) {
  const Machine& machine = report.machine();
  std::vector<const Gpu*> gpus;
  for (const Gpu& gpu : machine.gpus) {
    if (gpu.bus_id.empty()) return;
    gpus.push_back(&gpu);
  }
  std::sort(gpus.begin(), gpus.end(), [](const Gpu* a, const Gpu* b) { return a->index < b->index; });
  const bool sorted = std::is_sorted(gpus.begin(), gpus.end(), [](auto* a, auto* b) { return a->bus_id < b->bus_id; });
  if (sorted) return;
  report.add(Severity::note, "gpu-order", amount(gpus.size(), "GPU"),
             "the driver's order of the GPUs is not that of their bus ids",
             "Nothing to do for jobs started here: devices are chosen by UUID or bus id. Scripts that count GPUs want "
             "CUDA_DEVICE_ORDER=PCI_BUS_ID.");
}

void check_gdr(Report& report) {
  const Machine& machine = report.machine();
  const bool has_rdma = std::any_of(machine.nics.begin(), machine.nics.end(), [](const Nic& nic) { return nic.rdma; });
  std::vector<int> without;
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    if (!machine.gpus[i].gdr) without.push_back(static_cast<int>(i));
  }
  if (without.empty() || !has_rdma) return;
  report.add(Severity::warning, "gpu-without-gdr", gpus_subject(machine, without),
             "NICs cannot read GPU memory (no GPUDirect RDMA): traffic between nodes takes a copy through the host",
             "modprobe nvidia-peermem (or a kernel from 5.12 on with DMA-BUF), and in the BIOS Above 4G Decoding and "
             "Resizable BAR on; in a virtual machine ATS must be on. GeForce cards cannot do it.");
}

void check_domains(Report& report) {
  const Machine& machine = report.machine();
  const auto domains = grouped(machine, [](const Gpu& gpu) { return gpu.nvlink_domain; });
  if (domains.empty()) return;
  std::vector<int> without;
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    if (machine.gpus[i].nvlink_domain.empty()) without.push_back(static_cast<int>(i));
  }
  if (domains.size() == 1 && without.empty()) return;
  std::string list;
  for (const auto& [domain, gpus] : domains) {
    list += (list.empty() ? "" : "; ") + gpus_subject(machine, gpus) + ": " + domain;
  }
  if (!without.empty()) list += "; " + gpus_subject(machine, without) + ": none";
  report.add(
      Severity::warning, "nvlink-domain-split", amount(machine.gpus.size(), "GPU"),
      "the GPUs of this node belong to different NVLink domains: " + list,
      "nvidia-smi -q shows Fabric State: wait until it is Completed on all, or restart nvidia-imex and the fabric "
      "manager.");
}

}  // namespace

void check_gpus(Report& report) {
  check_doubles(report);
  check_equal(report);
  check_order(report);
  check_gdr(report);
  check_domains(report);
}

}  // namespace mds::topology::doctor
