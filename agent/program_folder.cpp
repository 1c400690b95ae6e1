#include "agent/program_folder.hpp"

#include <filesystem>

namespace mds::agent {
namespace {

std::string& folder_of_copy() {
  static std::string folder;
  return folder;
}

}  // namespace

std::string program_folder() {
  if (!folder_of_copy().empty()) return folder_of_copy();
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path().string();
}

void set_program_folder(const std::string& folder) { folder_of_copy() = folder; }

}  // namespace mds::agent
