// Fabrics from files: Slurm's topology.conf and topology.yaml, ibnetdiscover, topograph models, SLURM_TOPOLOGY_ADDR.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topology/fabric/fabric.hpp"
#include "topology/result.hpp"

namespace mds::topology {

/// True if the text looks like one of the fabric formats below (decided by content, never by a file's name).
bool looks_like_fabric(std::string_view text);

/// Reads any of: Slurm topology.conf (SwitchName=... trees, BlockName=... blocks), Slurm topology.yaml (tree, block),
/// `ibnetdiscover` output, topograph YAML models. At most 64 MiB. Notes (what was skipped) are appended to `notes`.
/// Errors: bad_input with line and what would be right.
Result<Fabric> read_fabric(std::string_view text, std::vector<std::string>& notes);

/// One host's place from SLURM_TOPOLOGY_ADDR ("s0.s1.node7") and SLURM_TOPOLOGY_ADDR_PATTERN ("switch.switch.node").
/// Errors: bad_input.
Result<Fabric> fabric_from_slurm_address(std::string_view address, std::string_view pattern);

/// All together (at once, as each merge costs as much as what it makes); the same switch names are the same switches.
/// Errors: bad_input where they contradict each other: a NIC on different leaves, a switch below others or itself.
Result<Fabric> merge(const std::vector<Fabric>& fabrics);
Result<Fabric> merge(const Fabric& a, const Fabric& b);

}  // namespace mds::topology
