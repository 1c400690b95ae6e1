// The CPUs of NCCL's recordings: affinity masks of NUMA nodes, and what cores there are likely to be behind them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

inline constexpr int kCpusMax = 8192;  // Linux stops there

/// The CPU numbers of a mask: comma-separated hexadecimal words of 32 bits, highest first ("0003ff,f0003fff"); CPU 0 is
/// bit 0 of the last, `offset` is added to all. Errors: bad_input.
Result<std::vector<int>> cpus_of_mask(std::string_view mask, int offset);
/// The inverse, without leading zero words. Requires ascending CPUs, all >= 0.
std::string mask_of_cpus(const std::vector<int>& cpus);

/// The hardware threads of a core: n, n + stride, ..., `threads` of them. threads 0: not said.
struct Siblings {
  int threads = 0, stride = 0;
  bool operator==(const Siblings&) const = default;
};

struct NumaCpus {
  int numa = 0, package = 0;
  std::vector<int> cpus;  ///< ascending
  std::string arch{};
  Siblings siblings{};
};

/// NCCL knows hardware threads only. Cores are guessed where the recording does not say (`siblings`):
/// - x86: where the CPUs of every NUMA node are two runs of the same shape, as far apart on every node, n and
///   n + distance are one core (Linux numbers the first threads of all cores first); else every CPU is a core;
/// - POWER: the four CPUs from a multiple of 4 on are one core (SMT4, as POWER9 machines run);
/// - others: every CPU is a core.
/// A CPU that several nodes claim goes to the first. Cores are ordered by NUMA node, then CPU.
std::vector<Core> guess_cores(std::vector<NumaCpus> nodes);

/// What guess_cores() must be told so that it gives these cores: threads 0 if nothing (or nothing would help).
Siblings siblings_to_tell(const std::vector<NumaCpus>& nodes, const std::vector<Core>& cores);

}  // namespace mds::topology
