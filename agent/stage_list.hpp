// Stage list: the files of a run that reach nodes without a shared file system, and where each of them lies there. It
// is itself a file that is staged, the first.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "topology/result.hpp"

namespace mds::agent {

inline constexpr size_t kStagePartBytes = 512u << 10;        ///< of one stage_part; a file's last one is smaller
inline constexpr uint64_t kStageListBytesMax = 256u << 20;   ///< a million files

struct StageEntry {
  enum class Kind { file, link, folder, image };  ///< image: a file for the node's image store, not below the root
  Kind kind = Kind::file;
  std::string path;    ///< absolute and normal, on the launcher's machine; on the node below the run's root
  std::string sha256;  ///< of a file or image
  uint64_t bytes = 0;
  std::string target;  ///< of a symbolic link
};

/// JSON: [["f", path, sha256, bytes], ["l", path, target], ["d", path],
/// ["i", path, sha256, bytes], ...]
std::string to_text(const std::vector<StageEntry>& entries);
/// Errors: corrupt.
Result<std::vector<StageEntry>> stage_list_from_text(const std::string& text);

}  // namespace mds::agent
