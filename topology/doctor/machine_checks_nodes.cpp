// NUMA nodes: that those exist on which cores, GPUs and NICs are said to be, and have what these need.
#include <algorithm>
#include <map>
#include <set>

#include "topology/doctor/machine_checks.hpp"
#include "topology/fabric/host_ranges.hpp"

namespace mds::topology::doctor {
namespace {

std::string gibibytes(uint64_t bytes) { return figure(static_cast<double>(bytes >> 20) / 1024) + " GiB"; }

/// What is said about a device's NUMA node, if anything.
struct Complaint {
  const char* code = nullptr;
  std::string message;
  std::string remedy;
};

class Nodes {
 public:
  explicit Nodes(const Machine& machine) : machine_(machine) {
    for (const NumaNode& node : machine.numa) memory_[node.os_index] = node.memory_bytes;
    for (const Core& core : machine.cores) ++cores_[core.numa];
    for (const auto& [node, bytes] : memory_) memory_is_known_ |= bytes > 0;
  }

  Complaint about(int node) const {
    const std::string name = "NUMA node " + std::to_string(node);
    const auto known = memory_.find(node);
    if (known == memory_.end()) {
      return {"numa-missing", "it is on " + name + ", which this machine does not have, or this process may not use",
              "Compare with numactl --hardware. In a job: ask for cores and memory near the device (Slurm: "
              "--gpus-per-task with --gpu-bind=closest, or --exclusive); in a container: widen its cpuset."};
    }
    if (!machine_.cores.empty() && cores_.count(node) == 0) {
      return {"numa-without-cores", "it is on " + name + ", where there is no core for its process",
              "Give the job cores there (cpuset, Slurm's --exclusive), or switch sub-NUMA clustering (NPS, SNC) off in "
              "the BIOS."};
    }
    if (memory_is_known_ && known->second == 0) {
      return {"numa-without-memory", "it is on " + name + ", which has no memory: buffers lie on another node",
              "Populate the memory channels of that socket alike, or switch sub-NUMA clustering (NPS, SNC) off in the "
              "BIOS."};
    }
    return {};
  }

  bool several() const { return memory_.size() > 1; }
  const std::map<int, uint64_t>& memory() const { return memory_; }
  size_t cores_on(int node) const { return cores_.count(node) ? cores_.at(node) : 0; }

 private:
  const Machine& machine_;
  std::map<int, uint64_t> memory_;  // bytes by OS index
  std::map<int, size_t> cores_;     // how many, by OS index
  bool memory_is_known_ = false;
};

void check_devices(Report& report, const Nodes& nodes) {
  const Machine& machine = report.machine();
  std::vector<int> lost_gpus;
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    const int node = machine.gpus[i].numa;
    if (node < 0) {
      lost_gpus.push_back(static_cast<int>(i));
      continue;
    }
    const Complaint complaint = nodes.about(node);
    if (!complaint.code) continue;
    report.add(Severity::warning, std::string("gpu-") + complaint.code, gpu_subject(machine, i), complaint.message,
               complaint.remedy);
  }
  const char* const locate =
      "cat /sys/bus/pci/devices/BUS-ID/numa_node says -1 where the firmware (ACPI _PXM) or the hypervisor does not "
      "tell: "
      "update the BIOS, or give the machine's real topology to NCCL with NCCL_TOPO_FILE (mdslaunch topo --write-nccl) "
      "and to us with --topology.";
  if (!lost_gpus.empty() && nodes.several()) {
    report.add(Severity::warning, "gpu-numa-unknown", gpus_subject(machine, lost_gpus),
               "NUMA node unknown on a machine with " + std::to_string(nodes.memory().size()) +
                   " of them: ranks may get cores and memory of the wrong one",
               locate);
  }
  std::vector<std::string> lost_nics;
  for (size_t i = 0; i < machine.nics.size(); ++i) {
    const Nic& nic = machine.nics[i];
    if (nic.bus_id.empty() || !is_fast(nic)) continue;  // virtual, or of no matter
    if (nic.numa < 0) {
      lost_nics.push_back(nic.name);
      continue;
    }
    if (nodes.memory().count(nic.numa) > 0) continue;  // a NIC needs no cores and memory of its own
    const Complaint complaint = nodes.about(nic.numa);
    report.add(Severity::warning, "nic-numa-missing", nic_subject(machine, i), complaint.message, complaint.remedy);
  }
  if (!lost_nics.empty() && nodes.several()) {
    report.add(Severity::warning, "nic-numa-unknown", "nic " + fold_hosts(lost_nics),
               "NUMA node unknown on a machine with " + std::to_string(nodes.memory().size()) + " of them", locate);
  }
}

void check_memory(Report& report, const Nodes& nodes) {
  uint64_t least = UINT64_MAX, most = 0;
  int poorest = 0;
  for (const auto& [node, bytes] : nodes.memory()) {
    if (nodes.cores_on(node) == 0 || bytes == 0) continue;  // memory of a device, or unknown
    if (bytes < least) poorest = node;
    least = std::min(least, bytes);
    most = std::max(most, bytes);
  }
  if (most == 0 || static_cast<double>(least) >= 0.75 * static_cast<double>(most)) return;
  report.add(Severity::warning, "memory-imbalance", "numa " + std::to_string(poorest),
             "NUMA node " + std::to_string(poorest) + " has " + gibibytes(least) + ", another has " + gibibytes(most) +
                 ": its ranks run out of memory first, and its channels are slower",
             "dmidecode -t memory shows which modules are missing or failed; populate all channels alike.");
}

void check_cores(Report& report, const Nodes& nodes) {
  const Machine& machine = report.machine();
  std::set<int> without;
  for (const Core& core : machine.cores) {
    if (nodes.memory().count(core.numa) == 0) without.insert(core.numa);
  }
  if (!without.empty() && !nodes.memory().empty()) {
    report.add(Severity::warning, "cores-numa-missing", "numa " + number_ranges({without.begin(), without.end()}),
               "cores belong to NUMA nodes whose memory this machine does not have, or this process may not use",
               "Compare with numactl --hardware; in a container or job let cpuset.mems go with cpuset.cpus.");
  }
  if (machine.cores.size() >= machine.gpus.size() || machine.cores.empty()) return;
  report.add(Severity::warning, "cores-fewer-than-gpus", amount(machine.cores.size(), "core"),
             amount(machine.cores.size(), "core") + " for " + amount(machine.gpus.size(), "GPU") +
                 ": ranks share cores, and their launches of kernels wait for each other",
             "Ask for more cores (Slurm: --cpus-per-task or --exclusive; containers: --cpus), at least two a GPU.");
}

}  // namespace

void check_memory_nodes(Report& report) {
  const Nodes nodes(report.machine());
  check_devices(report, nodes);
  check_memory(report, nodes);
  check_cores(report, nodes);
}

}  // namespace mds::topology::doctor
