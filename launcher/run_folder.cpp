#include "launcher/run_folder.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

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

RunFolder RunFolder::existing(const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  return RunFolder(folder.parent_path().string(), folder.filename().string());
}

Result<RunFolder> RunFolder::find(const std::string& run, const std::string& output_dir) {
  namespace fs = std::filesystem;
  std::error_code ec;
  const auto is_run = [&](const fs::path& path) { return fs::is_regular_file(path / "events.jsonl", ec); };
  const auto found = [&](const fs::path& path) -> Result<RunFolder> {
    const fs::path whole = fs::canonical(path, ec);
    if (ec) return cannot("open", path.string(), ec.value());
    return existing(whole.string());
  };
  const fs::path base(output_dir);
  if (run.empty()) {
    if (is_run(base / "latest")) return found(base / "latest");
    return bad_input("there is no run in " + output_dir + "; name a run folder, or its parent by --output-dir");
  }
  if (is_run(run)) return found(run);
  if (run.find('/') == std::string::npos) {
    if (is_run(base / run)) return found(base / run);
    std::vector<fs::path> matches;
    for (const auto& entry : fs::directory_iterator(base, ec)) {
      const std::string name = entry.path().filename().string();
      if (name.ends_with("-" + run) && is_run(entry.path())) matches.push_back(entry.path());
    }
    if (matches.size() == 1) return found(matches[0]);
  }
  return bad_input("'" + run + "' is neither a run folder nor a run in " + output_dir +
                   " (a run folder has an events.jsonl)");
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
