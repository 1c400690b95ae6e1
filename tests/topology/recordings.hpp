// Recordings of real machines, which lie beside the checkout and not in it: MDS_TOPOLOGIES, or ../shared/topologies.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/catch.hpp"

namespace mds::topology::tests {

/// The folder, or an empty path where there is none. Fails instead where CI says that everything must run.
inline std::filesystem::path recordings_folder() {
  const char* named = std::getenv("MDS_TOPOLOGIES");
  const std::filesystem::path source(__FILE__);  // <checkout>/tests/topology/recordings.hpp
  const auto checkout = std::filesystem::absolute(source).parent_path().parent_path().parent_path();
  const std::filesystem::path folder =
      named ? std::filesystem::path(named) : checkout.parent_path() / "shared/topologies";
  std::error_code failed;
  if (std::filesystem::is_directory(folder, failed)) return folder;
  const char* ci = std::getenv("CI");
  if (ci && std::string(ci) == "true") FAIL("no recorded topologies in " << folder);
  WARN("SKIPPED: no recorded topologies in " << folder << "; set MDS_TOPOLOGIES");
  return {};
}

inline std::string read_text(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// The files in a folder of the recordings ("nccl", "hwloc", "fabric") by name; none where they are not there.
inline std::vector<std::filesystem::path> recordings(const std::string& subfolder) {
  const auto folder = recordings_folder();
  std::vector<std::filesystem::path> files;
  if (folder.empty()) return files;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(folder / subfolder, failed)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace mds::topology::tests
