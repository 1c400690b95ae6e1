// Settings of this host that training suffers from, as far as they can be read without being root.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "topology/doctor/doctor.hpp"

namespace mds::topology {

/// What the checks look at, so that tests can make one up. Bytes; UINT64_MAX: unlimited.
struct HostFacts {
  std::string root;                        ///< in front of /sys and /proc: "" on a real host
  std::optional<uint64_t> shm_bytes;       ///< size of /dev/shm; empty: there is none
  uint64_t memlock_bytes = UINT64_MAX;     ///< hard limit
  uint64_t open_files = UINT64_MAX;        ///< hard limit: agents raise the soft one to it
  std::optional<bool> clock_synchronised;  ///< as the kernel says
};

/// The facts of this host: /dev/shm, the limits of this process, adjtimex(2).
HostFacts read_host_facts();

/// Findings about the host that `machine` was discovered on. Files that are not there or not readable are passed over:
/// containers and virtual machines have few of them.
std::vector<Finding> examine_host(const HostFacts& facts, const Machine& machine);

}  // namespace mds::topology
