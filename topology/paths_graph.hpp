// The graph that NCCL searches: GPUs, PCI switches, NUMA nodes ("CPU"), NICs, their ports ("NET") and the NVSwitch.
#pragma once

#include <vector>

#include "topology/paths.hpp"

namespace mds::topology {

enum class GraphNodeKind : uint8_t { gpu, pci, nvswitch, cpu, nic, net };

/// Link classes carry the names of the path classes that they alone would give: loc, nvl, c2c, pix (any PCI), sys, net.
struct GraphLink {
  int to = 0;  ///< index into Graph::nodes
  PathClass kind = PathClass::loc;
  double gb_per_s = 0;
};

/// Links are in the order of NCCL's search, which decides between ways of the same width: widest first, up last.
struct GraphNode {
  GraphNodeKind kind = GraphNodeKind::pci;
  std::vector<GraphLink> links{};
};

struct Graph {
  std::vector<GraphNode> nodes;
  std::vector<int> gpus;      ///< node of each of Machine::gpus
  std::vector<int> nets;      ///< node of each of Machine::nics
  std::vector<int> cpus;      ///< nodes of the NUMA nodes that devices hang on, by OS index
  std::vector<int> cpu_numa;  ///< their OS indices, -1 for the unknown one
};

Graph build_graph(const Machine& machine);

/// The path from every node to `base` (an index into Graph::nodes), as ncclTopoSetPaths finds it: breadth first, the
/// widest of the shortest. O(nodes + links).
std::vector<Path> search(const Graph& graph, int base);

}  // namespace mds::topology
