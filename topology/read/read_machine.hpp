// Machines from recordings: hwloc XML, NCCL and RCCL XML, `nvidia-smi topo -m`, our own JSON. And back.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topology/cluster.hpp"

namespace mds::topology {

enum class RecordingFormat { unknown, cluster_json, hwloc_xml, nccl_xml, nvidia_smi, fabric };

/// Guessed from the content's first kilobytes, never from a file's name.
RecordingFormat guess_format(std::string_view text);

/// What a machine may have at most, whatever it was read from: far above real ones (NCCL stops at 256 of a kind), and
/// little enough for tables of all pairs. check_size() refuses more: bad_input with the number and the limit.
inline constexpr size_t kGpusMax = 256, kNicsMax = 1024, kNumaMax = 1024;
Status check_size(const Machine& machine);

/// hwloc XML 1.x, 2.x and 3.x. NCCL and RCCL dumps, also device-only files of virtual machines, whose GPUs are known by
/// class and vendor alone. The text of `nvidia-smi topo -m`. Everything is read as it stands: contradictions and
/// impossible values are for doctor() to name. A recording has no host name, or has one inside ("HostName"): `host` is
/// used where there is none. Limits: 256 MiB (NCCL 16, nvidia-smi 4), 65,536 devices, 64 levels.
/// Errors: bad_input with line (or element) and what is wrong: "line 12: <gpu> outside of a <pci>".
Result<Machine> read_hwloc_xml(std::string_view text, const std::string& host);
Result<Machine> read_nccl_xml(std::string_view text, const std::string& host);
Result<Machine> read_nvidia_smi(std::string_view text, const std::string& host);

/// A NCCL dump of an NVLink domain over several hosts (GB200 NVL72) holds all of them, told apart by `host_hash`;
/// each becomes a machine: `host`, or where there are several `host`-0, `host`-1, ... in the order of the file.
/// read_nccl_xml refuses such a file. Errors: as above.
Result<std::vector<Machine>> read_nccl_hosts(std::string_view text, const std::string& host);

/// What NCCL_TOPO_FILE takes (RCCL's, where the GPUs are AMD's): the tree in NCCL's own form, ports that are down left
/// out. NCCL reads at most 256 nodes (it fails on the last), 16 attributes a node and 255 characters a value: bridges
/// that nothing depends on are left out first, affinity masks that are longer leave it to NCCL to ask the kernel. What
/// NCCL does not know (memory, UUIDs, names, hardware threads of a core) stands in attributes that it skips and
/// read_nccl_xml reads. Errors: infeasible where it does not fit, or where a GPU has no bus id (NCCL finds it by that).
Result<std::string> write_nccl_xml(const Machine& machine);
/// hwloc XML 2.x, which lstopo and every hwloc from 2.0 on load.
Result<std::string> write_hwloc_xml(const Machine& machine);

/// Adds to `machine` what `other`, another recording of the same machine, knows and it does not (cores, NVLinks, PCI
/// links, NICs, names), matching GPUs by bus id, then UUID, then index, NICs by name, then bus id and port. The PCI
/// tree with more switches wins as a whole: two half trees make no tree. Which of the two comes first decides only
/// over what both know.
void fill_in(Machine& machine, const Machine& other);

}  // namespace mds::topology
