// Files and folders of recordings, parsed one by one; open_topology() puts them together.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "topology/cluster.hpp"
#include "topology/read/read_machine.hpp"

namespace mds::topology {

/// What one file holds: machines, or a fabric.
struct Recording {
  RecordingFormat format = RecordingFormat::unknown;
  std::vector<Machine> nodes;
  Fabric fabric;
  std::vector<std::string> notes;
};

/// The host that a file stands for if it does not name one itself: its name without the ending, and without the view
/// ("node7.nccl.xml" and "node7.hwloc.xml" are both node7).
std::string host_of_file(const std::filesystem::path& path);

/// Errors: bad_input naming the file and the place in it.
Result<Recording> read_recording(const std::filesystem::path& path);

/// All recordings in a folder, in natural order of their names, read by as many threads as there are cores. What was
/// left out is appended to `notes`. Errors: bad_input naming the first file, in that order, that is broken.
Result<std::vector<std::pair<std::filesystem::path, Recording>>> read_folder(const std::filesystem::path& folder,
                                                                             std::vector<std::string>& notes);

}  // namespace mds::topology
