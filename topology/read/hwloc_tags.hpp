// What hwloc has no word for (a link's generation and width, a NIC's rate, compute capability, our own order) is
// written by write_hwloc_xml() into infos whose names begin with "MDS", as "key=value key=value", and read back.
// hwloc keeps unknown infos and shows them (lstopo -v). Internal to the hwloc reader and writer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "topology/cluster.hpp"
#include "topology/read/hwloc_objects.hpp"

namespace mds::topology::hwloc::tags {

/// hwloc insists on a NUMA node and a PU, also of a recording that knows of devices only.
bool is_placeholder(const Infos& infos);
inline constexpr const char* kPlaceholder = "MDSPlaceholder";

// Each reads its tag into the struct where it is there, and returns whether it was.
bool read(const Infos& infos, Package& package);
bool read(const Infos& infos, NumaNode& numa);
bool read(const Infos& infos, Core& core);
bool read(const Infos& infos, PciDevice& device);
bool read(const Infos& infos, Gpu& gpu);
bool read(const Infos& infos, Nic& nic);

/// All links of the GPU that carries these infos; nothing where the file has none of ours.
std::optional<std::vector<GpuLink>> read_links(const Infos& infos, int gpu);

/// The place among its kind that the element had ("order"), -1 unknown.
int order(const Infos& infos);

std::pair<std::string, std::string> write(const Package& package);
std::pair<std::string, std::string> write(const NumaNode& numa);
std::pair<std::string, std::string> write(const Core& core);
std::pair<std::string, std::string> write(const PciDevice& device, size_t order);
std::pair<std::string, std::string> write(const Gpu& gpu, size_t order);
std::pair<std::string, std::string> write(const Nic& nic, size_t order);
/// One info a link; a GPU without links gets an empty one, so that a matrix beside it is not taken for more.
Infos write_links(const std::vector<GpuLink>& links, int gpu);

}  // namespace mds::topology::hwloc::tags
