#include "trainer/checkpoint/checkpoint_folder.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <span>
#include <system_error>

#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/manifest.hpp"

namespace mds::trainer {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPartial = ".partial";    // being written
constexpr const char* kRemoving = ".removing";  // no longer a checkpoint

Error disk_error(const std::string& what, int errnum) {
  const std::string message = what + ": " + std::generic_category().message(errnum);
  const bool full = errnum == ENOSPC || errnum == EDQUOT;
  return full ? unavailable(message + "; free space there or choose another folder") : internal(message);
}

/// Flushes a file or folder that exists.
Status flush(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return disk_error("cannot open " + path, errno);
  const int result = ::fsync(fd), error = errno;
  ::close(fd);
  // Some network file systems cannot flush a folder and say so.
  if (result != 0 && error != EINVAL && error != ENOTSUP) return disk_error("cannot flush " + path, error);
  return {};
}

Status write_file(const std::string& path, const std::string& text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return disk_error("cannot create " + path, errno);
  size_t written = 0;
  int error = 0;
  while (written < text.size() && error == 0) {
    const ssize_t count = ::write(fd, text.data() + written, text.size() - written);
    if (count > 0) written += static_cast<size_t>(count);
    if (count < 0 && errno != EINTR) error = errno;
  }
  if (error == 0 && ::fsync(fd) != 0) error = errno;
  if (::close(fd) != 0 && error == 0) error = errno;
  if (error != 0) return disk_error("cannot write " + path + " (" + std::to_string(text.size()) + " bytes)", error);
  return {};
}

/// Puts the new folder in place of an old one in one step, where the file system can; the old one is then at `partial`.
Status replace(const std::string& partial, const std::string& committed) {
  if (::renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, committed.c_str(), RENAME_EXCHANGE) == 0) return {};
  const std::string old = committed + kRemoving;
  if (::rename(committed.c_str(), old.c_str()) != 0) return disk_error("cannot rename " + committed, errno);
  if (::rename(partial.c_str(), committed.c_str()) != 0) {
    const int error = errno;
    ::rename(old.c_str(), committed.c_str());
    return disk_error("cannot rename " + partial, error);
  }
  std::error_code ignored;
  fs::remove_all(old, ignored);
  return {};
}

}  // namespace

std::string CheckpointFolder::committed_path(int64_t step) const {
  char name[32];
  std::snprintf(name, sizeof name, "/step-%08lld", static_cast<long long>(step));
  return path_ + name;
}

std::string CheckpointFolder::partial_path(int64_t step) const { return committed_path(step) + kPartial; }

Status CheckpointFolder::prepare(int64_t step) const {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) return disk_error("cannot create the checkpoint folder " + path_, error.value());
  for (const fs::directory_entry& entry : fs::directory_iterator(path_, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step-") || !(name.ends_with(kPartial) || name.ends_with(kRemoving))) continue;
    std::error_code ignored;
    fs::remove_all(entry.path(), ignored);
  }
  fs::create_directory(partial_path(step), error);
  if (error) return disk_error("cannot create " + partial_path(step), error.value());
  return {};
}

Status CheckpointFolder::commit(int64_t step, const std::string& manifest) const {
  const std::string partial = partial_path(step), committed = committed_path(step);
  if (Status status = write_file(partial + "/manifest.json", manifest); !status) return status;
  if (Status status = flush(partial); !status) return status;
  std::error_code ignored;
  const bool replaces = fs::exists(committed, ignored);
  if (replaces) {
    if (Status status = replace(partial, committed); !status) return status;
  } else if (::rename(partial.c_str(), committed.c_str()) != 0) {
    return disk_error("cannot rename " + partial, errno);
  }
  if (Status status = flush(path_); !status) return status;
  if (replaces) discard(step);
  return {};
}

void CheckpointFolder::discard(int64_t step) const {
  std::error_code ignored;
  fs::remove_all(partial_path(step), ignored);
}

void CheckpointFolder::remove_older(int keep, int64_t step) const {
  if (keep <= 0) return;
  const std::vector<std::string> checkpoints = list_checkpoints(path_);
  for (size_t i = static_cast<size_t>(keep); i < checkpoints.size(); ++i) {
    if (checkpoints[i] == committed_path(step)) continue;
    // Renamed first, so that a half-removed folder is never taken for a checkpoint.
    const std::string removing = checkpoints[i] + kRemoving;
    std::error_code ignored;
    fs::rename(checkpoints[i], removing, ignored);
    if (!ignored) fs::remove_all(removing, ignored);
  }
}

std::vector<std::string> list_checkpoints(const std::string& folder) {
  std::vector<std::pair<int64_t, std::string>> found;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    constexpr size_t kPrefix = 5, kDigitsMax = 18;  // "step-"
    if (!name.starts_with("step-") || name.size() == kPrefix || name.size() > kPrefix + kDigitsMax) continue;
    if (name.find_first_not_of("0123456789", kPrefix) != std::string::npos) continue;
    if (!read_manifest(entry.path().string())) continue;
    found.emplace_back(std::stoll(name.substr(kPrefix)), folder + "/" + name);
  }
  std::ranges::sort(found, std::greater{});
  std::vector<std::string> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

}  // namespace mds::trainer
