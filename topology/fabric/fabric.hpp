// Fabric: the switches between the nodes, as value structs. Every fabric source fills these.
#pragma once

#include <string>
#include <vector>

namespace mds::topology {

/// A switch. In a fat tree it has several parents, in Slurm's and topograph's trees one.
struct FabricSwitch {
  std::string name;          ///< as the source calls it; unique
  int level = 0;             ///< 0: leaf (nodes hang on it), 1: spine, 2: core, ...
  std::vector<int> parents;  ///< indices into Fabric::switches, ascending; empty at the top
  bool operator==(const FabricSwitch&) const = default;
};

/// One cable from a node to a leaf.
struct FabricPort {
  std::string host;
  std::string nic;  ///< "mlx5_0"; empty where the source only knows the node
  int leaf = 0;     ///< index into Fabric::switches
  double gbps = 0;  ///< Gbit/s, 0 unknown
  bool operator==(const FabricPort&) const = default;
};

/// Nodes that belong together otherwise than by switches: an NVLink domain (NVL72) or a block of Slurm's topology.
struct FabricBlock {
  std::string name;
  std::vector<std::string> hosts;
  bool operator==(const FabricBlock&) const = default;
};

/// Empty: nothing is known, and nodes keep the order in which they were given.
struct Fabric {
  std::vector<FabricSwitch> switches;
  std::vector<FabricPort> ports;  ///< by host, then NIC
  std::vector<FabricBlock> blocks;
  bool empty() const { return switches.empty() && blocks.empty(); }
  bool operator==(const Fabric&) const = default;
};

}  // namespace mds::topology
