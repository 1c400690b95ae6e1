// Which NUMA node is near a core or a device. Internal to the hwloc reader.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "topology/cluster.hpp"
#include "topology/read/hwloc_bitmap.hpp"

namespace mds::topology::hwloc {

struct NumaObject {
  NumaNode node;
  Bitmap cpus;                 ///< may be empty: memory that is no core's own (1.x)
  size_t cpu_count = 0;
  bool allowed = true;         ///< a cgroup lets us allocate from it
  bool gpu_memory = false;     ///< POWER9 and Grace show a GPU's memory as a NUMA node
  int rank = 0;                ///< plain memory before high-bandwidth and other special memory of the same cores
};

class NumaNodes {
 public:
  static constexpr size_t kMax = 1024;  ///< Linux' own limit

  /// False where there is a node of this number already, or too many.
  bool add(NumaObject numa);
  bool empty() const { return nodes_.empty(); }
  std::vector<NumaObject>& all() { return nodes_; }

  /// The one with the fewest CPUs that has this CPU; -1 if there is none.
  int of_cpu(int cpu) const;

  /// Of what hangs on an object with these CPUs; -1 for a machine that has several. A package may have several, too:
  /// then it is the first, and a note says so. `machine`: all CPUs.
  int of_place(const Bitmap& cpus, const Bitmap& machine, std::vector<std::string>& notes);

 private:
  template <typename Fits>
  const NumaObject* smallest(Fits fits) const;
  std::vector<NumaObject> nodes_;
  std::unordered_map<const Bitmap*, int> known_;  ///< of_place's answers; many devices share a place
  std::set<std::string> noted_;
};

}  // namespace mds::topology::hwloc
