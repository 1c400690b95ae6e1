// What --topology and --input take: files, folders and synthetic machines, all into one Cluster.
#pragma once

#include <string>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

/// One source: a recording of a machine or a cluster (any format, guessed from content), a folder of recordings (one a
/// node: the host is the one inside, or the file's stem, without ".hwloc", ".nccl", ".smi" or ".topo"; in natural order
/// of their names; fabric files among them give the fabric), or a synthetic machine ("dgx-h100 x64"). "FILE xN" repeats
/// a recording of one machine N times (hosts STEM-0000, ...); "fabric:leaf=8" after either adds switches
/// (read/synthetic.hpp).
/// In a folder hidden files, folders and texts that are no recordings are left out; what is called .json, .xml, .yaml,
/// .yml or .conf and is none is an error. A fabric alone has no nodes: give the machines, too (open_topologies).
/// `notes`, if given, gets what was left out or assumed. Errors: bad_input naming file and place.
Result<Cluster> open_topology(const std::string& source, std::vector<std::string>* notes = nullptr);

/// Several sources, as --topology may be repeated: nodes are appended; a recording whose host is there already fills in
/// what is unknown of it (hwloc and NCCL's view of one machine; two files of one format are two nodes, the second
/// called as its file); fabrics are merged. Where the nodes are synthetic or repeated and the fabric has none of their
/// hosts, they take the names of the fabric's hosts, in natural order: so
/// "--topology fabric.yaml --topology 'dgx-h100 x6'" puts six machines into that fabric. Adapters that the fabric calls
/// HCA-1, HCA-2, ... are a node's mlx5_0, mlx5_1, ... where it has those.
Result<Cluster> open_topologies(const std::vector<std::string>& sources, std::vector<std::string>* notes = nullptr);

}  // namespace mds::topology
