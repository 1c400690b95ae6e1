// MappedFile: a regular file, mapped read-only as a whole.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "topology/result.hpp"

namespace mds::trainer {

/// Owns the mapping; movable. Reading is thread-safe. A file that another process truncates while it is mapped ends
/// this process with SIGBUS, as with any mapped file: sizes are checked once, when it is opened.
class MappedFile {
 public:
  /// Only regular files (symlinks are followed). Errors: bad_input if the file cannot be opened or is not a regular
  /// one.
  static Result<MappedFile> open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }

  /// Tells the kernel that the file will be read from start to end.
  void expect_sequential() const;

 private:
  MappedFile() = default;

  std::string path_;
  std::span<const std::byte> bytes_;  // empty for an empty file, which cannot be mapped
};

}  // namespace mds::trainer
