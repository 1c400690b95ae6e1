// Doctor: what is wrong with a machine or a cluster, in sentences that name the part, the reason and the remedy.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "topology/cluster.hpp"

namespace mds::topology {

enum class Severity {
  note,     ///< worth knowing: something could not be seen, and how to make it seen
  warning,  ///< training works, but slower than this machine could
  fault,    ///< broken or impossible: will fail, or is not what it claims to be
};
const char* to_string(Severity severity);

struct Finding {
  Severity severity = Severity::warning;
  std::string code;     ///< stable, for scripts: "gpu-without-nvlink", "pci-link-slow", "duplicate-nic", ...
  std::string host;     ///< empty: the cluster
  std::string subject;  ///< "gpu 3 (0000:3b:00.0)"
  std::string message;  ///< what is wrong, with the figures
  std::string remedy;
  bool operator==(const Finding&) const = default;
};

/// Findings about one machine. Clean recordings give none of severity warning or above.
std::vector<Finding> examine(const Machine& machine);

/// Findings about all nodes (equal findings of many nodes are folded into one, hosts as ranges) and about what lies
/// between them: nodes unlike their peers, hosts missing a rail, cables swapped between leaves.
std::vector<Finding> examine(const Cluster& cluster);

nlohmann::json to_json(const std::vector<Finding>& findings);

}  // namespace mds::topology
