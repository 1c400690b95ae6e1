#include "container/private_folder.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace mds::container {

Status make_private_folder(const std::string& path, const std::string& what, const std::string& remedy) {
  const auto cannot = [&](const char* verb) {
    return unavailable("cannot " + std::string(verb) + " " + what + " " + path + ": " + std::strerror(errno));
  };
  std::error_code failed;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), failed);
  if (mkdir(path.c_str(), 0700) < 0 && errno != EEXIST) return cannot("make");
  struct stat info {};
  if (lstat(path.c_str(), &info) < 0) return cannot("look at");
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 077) != 0) {
    return Error{ErrorCode::denied, what + " " + path +
                                        " must be a folder of yours that nobody else may enter (chmod 700): " + remedy};
  }
  return {};
}

bool write_all(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = write(fd, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

}  // namespace mds::container
