#include "launcher/run_folder.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace mds::launcher {

namespace {

Error cannot(const std::string& what, const std::string& path, int errnum) {
  return unavailable("cannot " + what + " " + path + ": " + std::strerror(errnum));
}

/// Letters of a job's name that are awkward in a path become '_'.
std::string path_part(const std::string& name) {
  std::string part;
  for (const char c : name) part += (std::isalnum(static_cast<unsigned char>(c)) || std::strchr("._-", c)) ? c : '_';
  return part.empty() || part[0] == '.' ? "job" + part : part;
}

}  // namespace

RunFolder::RunFolder(std::string output_dir, std::string id)
    : output_dir_(std::move(output_dir)), id_(std::move(id)), path_(output_dir_ + "/" + id_) {}

RunFolder RunFolder::named(const std::string& output_dir, const std::string& name, std::time_t now,
                           const std::string& id) {
  std::tm local{};
  localtime_r(&now, &local);
  char time[32];
  std::strftime(time, sizeof time, "%Y%m%d-%H%M%S", &local);
  std::error_code ec;
  std::filesystem::path absolute = std::filesystem::absolute(output_dir, ec).lexically_normal();
  if (!absolute.has_filename()) absolute = absolute.parent_path();  // "runs/"
  return RunFolder(absolute.string(), path_part(name) + "-" + time + "-" + id);
}

Status RunFolder::make() const {
  std::error_code ec;
  std::filesystem::create_directories(output_dir_, ec);
  if (ec) return cannot("make the folder", output_dir_, ec.value());
  if (mkdir(path_.c_str(), 0700) != 0) return cannot("make the folder", path_, errno);
  for (const char* sub : {"logs", "checkpoints", "stacks", "tensorboard"}) {
    if (mkdir(file(sub).c_str(), 0700) != 0) return cannot("make the folder", file(sub), errno);
  }
  return {};
}

Status RunFolder::write(const std::string& name, const std::string& content) const {
  const std::string path = file(name);
  const std::string temporary = path + ".part";
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return cannot("create", temporary, errno);
  size_t done = 0;
  int errnum = 0;
  while (done < content.size() && errnum == 0) {
    const ssize_t n = ::write(fd, content.data() + done, content.size() - done);
    if (n >= 0) {
      done += static_cast<size_t>(n);
    } else if (errno != EINTR) {
      errnum = errno;
    }
  }
  if (close(fd) != 0 && errnum == 0) errnum = errno;
  if (errnum == 0 && std::rename(temporary.c_str(), path.c_str()) != 0) errnum = errno;
  if (errnum == 0) return {};
  unlink(temporary.c_str());
  return cannot("write", path, errnum);
}

Status RunFolder::link_latest() const {
  const std::string link = output_dir_ + "/latest";
  const std::string temporary = output_dir_ + "/.latest-" + id_;
  if (symlink(id_.c_str(), temporary.c_str()) != 0) return cannot("make the link", temporary, errno);
  if (std::rename(temporary.c_str(), link.c_str()) == 0) return {};
  const int errnum = errno;
  unlink(temporary.c_str());
  return cannot("replace the link", link, errnum);
}

}  // namespace mds::launcher
