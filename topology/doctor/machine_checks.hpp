// The checks of one machine, by what they look at.
//
// A machine is judged against itself: what most of its equal parts have, the others should have, too (warning). What
// all of them lack is how the machine was built or what a source does not show (note). What cannot be is a fault.
#pragma once

#include <string>
#include <vector>

#include "topology/doctor/doctor.hpp"

namespace mds::topology::doctor {

/// Collects findings about one machine.
class Report {
 public:
  explicit Report(const Machine& machine) : machine_(machine) {}

  void add(Severity severity, std::string code, std::string subject, std::string message, std::string remedy);
  const Machine& machine() const { return machine_; }
  std::vector<Finding> take() { return std::move(findings_); }

 private:
  const Machine& machine_;  ///< the caller's, which outlives this
  std::vector<Finding> findings_;
};

void check_gpus(Report& report);          ///< unequal or doubled GPUs, their order, GPUDirect
void check_gpu_links(Report& report);     ///< NVLink, xGMI, C2C
void check_pci_links(Report& report);     ///< width and speed of what GPUs and NICs hang on
void check_nics(Report& report);          ///< doubled, slow or silent NICs
void check_ways_to_nics(Report& report);  ///< GPUs far from every NIC
void check_memory_nodes(Report& report);  ///< NUMA nodes, cores, memory
void check_source(Report& report);        ///< what the source left out

/// How findings name a part: "gpu 3 (0000:3b:00.0)", "nic mlx5_0 (0000:18:00.0)", "pci 0000:17:00.0". The picture finds
/// what to mark by the same words. Require an index in range.
std::string gpu_subject(const Machine& machine, size_t gpu);
std::string nic_subject(const Machine& machine, size_t nic);
std::string pci_subject(const Machine& machine, size_t device);
/// "gpus 0-2,5": those at these positions of Machine::gpus, by the driver's index; one alone as gpu_subject.
std::string gpus_subject(const Machine& machine, const std::vector<int>& gpus);
/// True if a subject "gpus 0-2,5" names this driver's index.
bool names_gpu(const std::string& subject, int index);

/// "0-2,5" for {0, 1, 2, 5}. Sorts, and drops what stands twice.
std::string number_ranges(std::vector<int> numbers);
/// "1 GPU", "8 GPUs".
std::string amount(size_t count, const std::string& noun);
/// At most one digit behind the point, and none where it would be 0: "31.5", "400".
std::string figure(double value);

/// An adapter for training's traffic: RDMA, or at least 10 Gbit/s.
bool is_fast(const Nic& nic);

}  // namespace mds::topology::doctor
