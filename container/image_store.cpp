#include "container/image_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <utility>
#include <vector>

#include "container/private_folder.hpp"
#include "container/sha256.hpp"

namespace mds::container {
namespace {

namespace fs = std::filesystem;
using namespace std::string_view_literals;

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }

 private:
  int fd_;
};

Error cannot(const std::string& what, const std::string& path, int error) {
  return unavailable("cannot " + what + " " + path + ": " + strerror(error));
}

/// Copies and hashes in one pass.
Result<std::string> copy_hashing(int from, int to, const std::string& from_path, const std::string& to_path,
                                 uint64_t bytes) {
  Sha256 digest;
  std::vector<char> buffer(4 << 20);
  for (;;) {
    const ssize_t n = read(from, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return cannot("read the image", from_path, errno);
    if (n == 0) break;
    digest.add(buffer.data(), static_cast<size_t>(n));
    if (!write_all(to, buffer.data(), static_cast<size_t>(n))) {
      return unavailable("cannot stage the image of " + std::to_string(bytes) + " bytes as " + to_path + ": " +
                         strerror(errno) + "; make room, or name another folder in MDS_IMAGE_STORE");
    }
  }
  if (fsync(to) < 0) return cannot("write", to_path, errno);
  return digest.finish();
}

/// Deletes a half-made file or folder unless it was kept.
class Unfinished {
 public:
  explicit Unfinished(std::string path) : path_(std::move(path)) {}
  ~Unfinished() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  Status keep_as(const std::string& name) {
    if (rename(path_.c_str(), name.c_str()) < 0) return cannot("rename to", name, errno);
    path_.clear();
    return {};
  }

 private:
  std::string path_;
};

bool is_private_file(const std::string& path) {
  struct stat info {};
  return lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && info.st_uid == geteuid();
}

/// The verified copy, "<store>/<digest>". Requires the digest's lock.
Result<StagedImage> verified_copy(const Container& container, const std::string& store) {
  const std::string name = store + "/" + container.sha256;
  struct stat info {};
  if (is_private_file(name) && stat(name.c_str(), &info) == 0) {
    return StagedImage{name, false, static_cast<uint64_t>(info.st_size)};
  }
  const File image(open(container.image.c_str(), O_RDONLY | O_CLOEXEC));
  if (!image || fstat(image.get(), &info) < 0) return cannot("open the image", container.image, errno);
  if (!S_ISREG(info.st_mode)) {
    return bad_input(container.image + " is no file: container.sha256 is for image files (pack the folder with tar, or "
                                       "build a SIF)");
  }
  Unfinished unfinished(name + ".part." + std::to_string(getpid()));
  const File copy(open(unfinished.path().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400));
  if (!copy) return cannot("write", unfinished.path(), errno);
  const auto bytes = static_cast<uint64_t>(info.st_size);
  const auto digest = copy_hashing(image.get(), copy.get(), container.image, unfinished.path(), bytes);
  if (!digest) return digest.error();
  if (*digest != container.sha256) {
    return corrupt("the image " + container.image + " has the digest " + *digest + ", but container.sha256 demands " +
                   container.sha256 + ": fetch it again, or correct the job file if the image was rebuilt");
  }
  if (Status kept = unfinished.keep_as(name); !kept) return kept.error();
  return StagedImage{name, true, bytes};
}

/// Runs a program with `errors` as its standard error, and writes how it ended to `result`. An agent reaps whatever
/// children it has, so a status that waitpid() would give there may be gone: it is taken here, in a process between.
[[noreturn]] void run_and_tell(char* const* argv, int errors, int result) {
  dup2(errors, STDERR_FILENO);
  dup2(result, STDERR_FILENO + 1);
  close_range(STDERR_FILENO + 2, ~0U, 0);  // what the agent holds: locks, connections
  const pid_t pid = fork();
  if (pid == 0) {
    execvp(argv[0], argv);
    _exit(127);
  }
  int status = 0;
  if (pid > 0 && waitpid(pid, &status, 0) == pid) {
    [[maybe_unused]] const ssize_t n = write(STDERR_FILENO + 1, &status, sizeof status);
  }
  _exit(0);
}

/// Unpacks with tar, which refuses paths that lead out of the folder. Device nodes come from the host.
Status unpack(const std::string& archive, const std::string& folder) {
  struct stat info {};
  const uint64_t bytes = stat(archive.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
  std::vector<std::string> words{"tar",   "--extract",        "--file",           archive,
                                 "--directory", folder,  "--exclude=./dev/*", "--exclude=dev/*"};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int errors[2], result[2];
  if (pipe2(errors, O_CLOEXEC) < 0) return system_error("pipe", errno);
  const File said(errors[0]);
  if (pipe2(result, O_CLOEXEC) < 0) {
    ::close(errors[1]);
    return system_error("pipe", errno);
  }
  const File ended(result[0]);
  const pid_t pid = fork();
  if (pid == 0) run_and_tell(argv.data(), errors[1], result[1]);
  ::close(errors[1]);
  ::close(result[1]);
  if (pid < 0) return system_error("starting tar", errno);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(said.get(), buffer, sizeof buffer)) > 0;) {
    if (text.size() < 2000) text.append(buffer, static_cast<size_t>(n));
  }
  int status = 0;
  const bool told = read(ended.get(), &status, sizeof status) == sizeof status;
  waitpid(pid, nullptr, 0);
  if (told && WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (told && WIFEXITED(status) && WEXITSTATUS(status) == 127) return unavailable("tar is missing on this node");
  return unavailable("unpacking " + archive + " of " + std::to_string(bytes) + " bytes into " + folder +
                     " failed: " + (text.empty() ? "tar was killed" : text.substr(0, text.find('\n'))));
}

/// "<store>/<name>.root". Requires the lock.
Result<std::string> unpacked(const std::string& archive, const std::string& store, const std::string& name) {
  const std::string folder = store + "/" + name + ".root";
  std::error_code failed;
  if (fs::is_directory(fs::symlink_status(folder, failed))) return folder;
  Unfinished unfinished(folder + ".part." + std::to_string(getpid()));
  if (mkdir(unfinished.path().c_str(), 0700) < 0) return cannot("make", unfinished.path(), errno);
  if (Status done = unpack(archive, unfinished.path()); !done) return done.error();
  if (Status kept = unfinished.keep_as(folder); !kept) return kept.error();
  return folder;
}

File open_lock(const std::string& store, const std::string& name) {
  return File(open((store + "/" + name + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
}

/// What was left half made by who was killed, of any image that nobody stages now: it may be what fills the disk.
/// Requires the lock of image `name`.
void remove_halves(const std::string& store, const std::string& name) {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(store, ignored)) {
    std::string image = entry.path().filename().string();
    const size_t end = image.find(".part.");
    if (end == std::string::npos) continue;
    image.erase(end);
    if (image.ends_with(".root")) image.resize(image.size() - 5);
    const File lock = open_lock(store, image);
    const bool is_free = image == name || (lock && flock(lock.get(), LOCK_EX | LOCK_NB) == 0);
    if (is_free) fs::remove_all(entry.path(), ignored);
  }
}

/// A name for an archive without a digest: a changed file gets another one.
std::string name_by_stamp(const struct stat& info) {
  return "unverified-" + std::to_string(info.st_dev) + "-" + std::to_string(info.st_ino) + "-" +
         std::to_string(info.st_size) + "-" + std::to_string(info.st_mtim.tv_sec) + "." +
         std::to_string(info.st_mtim.tv_nsec);
}

Status check_kind(const Container& container, ImageKind kind) {
  const Runtime runtime = container.runtime;
  const auto only = [&](const char* what) {
    return bad_input(container.image + " is a " + to_string(kind) + " image, but " + to_string(runtime) + " needs " +
                     what);
  };
  if (runtime == Runtime::enroot && kind != ImageKind::squashfs) return only("a squashfs file (enroot import, export)");
  const bool folder_only = runtime == Runtime::podman || runtime == Runtime::bubblewrap;
  if (folder_only && kind != ImageKind::folder && kind != ImageKind::tar) return only("a folder or a tar archive");
  if (runtime == Runtime::charliecloud && kind == ImageKind::sif) return only("a folder, a tar archive or squashfs");
  return {};
}

}  // namespace

const char* to_string(ImageKind kind) {
  switch (kind) {
    case ImageKind::folder: return "folder";
    case ImageKind::sif: return "SIF";
    case ImageKind::squashfs: return "squashfs";
    case ImageKind::tar: return "tar";
  }
  return "unknown";
}

Result<ImageKind> image_kind(const std::string& path) {
  struct stat info {};
  const File file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file || fstat(file.get(), &info) < 0) return cannot("open the image", path, errno);
  if (S_ISDIR(info.st_mode)) {
    // A link such as /bin -> usr/bin stays inside; what the shell itself links to is the image's matter.
    if (fstatat(file.get(), "bin/sh", &info, AT_SYMLINK_NOFOLLOW) == 0) return ImageKind::folder;
    return bad_input(path + " is no image: the folder has no bin/sh");
  }
  std::array<char, 512> head{};
  const ssize_t n = S_ISREG(info.st_mode) ? read(file.get(), head.data(), head.size()) : 0;
  const std::string_view text(head.data(), n > 0 ? static_cast<size_t>(n) : 0);
  if (text.size() > 42 && text.substr(32, 9) == "SIF_MAGIC") return ImageKind::sif;
  if (text.substr(0, 4) == "hsqs") return ImageKind::squashfs;
  if (text.size() == 512 && text.substr(257, 5) == "ustar") return ImageKind::tar;
  for (const std::string_view packed : {"\x1f\x8b"sv, "\xfd" "7zXZ"sv, "\x28\xb5\x2f\xfd"sv}) {
    if (text.substr(0, packed.size()) == packed) return ImageKind::tar;  // tar itself says if it holds none
  }
  return bad_input(path + " is no image: neither SIF, squashfs, a tar archive nor a root folder");
}

Result<ImageKind> image_kind_for(const Container& container) {
  const auto kind = image_kind(container.image);
  if (!kind) return kind.error();
  if (Status fits = check_kind(container, *kind); !fits) return fits.error();
  return *kind;
}

std::string default_image_store() {
  const char* named = std::getenv("MDS_IMAGE_STORE");
  return named && *named ? named : "/var/tmp/mds-images-" + std::to_string(geteuid());
}

Result<StagedImage> stage_image(const Container& container, const std::string& store) {
  const auto given = image_kind_for(container);
  if (!given) return given.error();
  const bool unpacks = *given == ImageKind::tar;
  if (container.sha256.empty() && !unpacks) return StagedImage{container.image, false, 0};
  if (*given == ImageKind::folder) {
    return bad_input(container.image +
                     " is a folder, which container.sha256 cannot verify: pack it with tar, or build a SIF");
  }
  const Status ours = make_private_folder(store, "the image store", "remove it or name another in MDS_IMAGE_STORE");
  if (!ours) return ours.error();
  struct stat info {};
  if (stat(container.image.c_str(), &info) < 0) return cannot("look at", container.image, errno);
  const std::string name = container.sha256.empty() ? name_by_stamp(info) : container.sha256;
  const File lock = open_lock(store, name);
  if (!lock || flock(lock.get(), LOCK_EX) < 0) return cannot("lock", store + "/" + name + ".lock", errno);

  remove_halves(store, name);

  StagedImage staged{container.image, false, static_cast<uint64_t>(info.st_size)};
  if (!container.sha256.empty()) {
    auto copy = verified_copy(container, store);
    if (!copy) return copy;
    staged = *copy;
    // The copy is what counts: the original may have been another file a moment ago.
    Container copied = container;
    copied.image = staged.path;
    const auto kind = image_kind_for(copied);
    if (!kind) return kind.error();
    if (*kind != ImageKind::tar) return staged;
  }
  auto folder = unpacked(staged.path, store, name);
  if (!folder) return folder.error();
  staged.path = *folder;
  return staged;
}

}  // namespace mds::container
