// Search: every layout of a job on its machines, judged by the memory and step-time models; and what would make a job
// fit that does not. Deterministic: the same question gives the same answer in the same order.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "topology/cost/machines.hpp"
#include "topology/cost/memory.hpp"
#include "topology/cost/step_time.hpp"
#include "topology/cost/work.hpp"

namespace mds::topology::cost {

struct Candidate {
  Work work;
  Memory memory;        ///< of the fullest stage
  int stage = 0;
  bool fits = false;    ///< with kMemoryError to spare; also if the machines' memory is unknown
  StepTime time;        ///< of those that fit (all of them where none does); zero where no rates are known
  double seconds() const { return time.total(); }
};

/// What the search may choose; everything else stays as `work` has it.
struct Freedom {
  bool tensor = false;
  bool sequence_parallel = false;  ///< then it is on exactly where tensor > 1 and the sequence divides
  bool context = false;
  bool pipeline = false;
  bool data = false;
  bool micro_batch = false;
  bool virtual_stages = false;     ///< the interleaved schedule with every number of chunks, too
};

struct SearchResult {
  std::vector<Candidate> best;  ///< at most `keep`, best first; those that fit before those that do not
  size_t considered = 0;        ///< layouts that are possible at all
  size_t fitting = 0;
};

/// Tensor ranks stay within an NVLink domain as long as a layout there fits, and divide heads, key heads and MLP; a
/// stage has a layer at least; replicas divide the batch. GPUs: by step time. CPUs: the most replicas first, because
/// sums over sockets cost more than they save there. Ties go to fewer tensor, then fewer pipeline ranks, then larger
/// micro batches (smaller ones where no rates are known).
SearchResult search_layouts(const Work& work, const Machines& machines, const Freedom& freedom, size_t keep);

/// Whether ranks, heads, layers and batch divide as the layout asks.
bool is_possible(const Work& work, const Machines& machines);
Candidate judge(const Work& work, const Machines& machines);

/// The smallest sets of changes (recomputation, sequence parallel, tensor, pipeline, ZeRO stage, micro batch, offload)
/// that make `work` fit, each checked by the model; quickest first, at most `keep`. `allowed` says whether a changed
/// work may be proposed. Empty if nothing does.
std::vector<Candidate> what_would_fit(const Work& work, const Machines& machines,
                                      const std::function<bool(const Work&)>& allowed, size_t keep);
/// In how many of those respects two works differ.
int changes(const Work& a, const Work& b);

}  // namespace mds::topology::cost
