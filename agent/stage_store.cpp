#include "agent/stage_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <random>
#include <vector>

#include "container/private_folder.hpp"
#include "container/sha256.hpp"

namespace mds::agent {
namespace {

namespace fs = std::filesystem;

constexpr std::time_t kCopyAgeMax = 3600;  // seconds: nobody takes longer to start one
constexpr const char* kKeep = "/keep";  // in a run's folder: its objects stay

Error cannot(const std::string& what, const std::string& path, int error) {
  return unavailable("cannot " + what + " " + path + ": " + std::strerror(error));
}

UniqueFd open_lock(const std::string& path) {
  return UniqueFd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
}

/// While it lives nobody else changes the store. Not valid where that cannot be had: the store is gone.
UniqueFd lock_store(const std::string& folder) {
  UniqueFd lock = open_lock(folder + "/lock");
  while (lock && flock(lock.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return UniqueFd();
  }
  return lock;
}

bool is_free(const UniqueFd& lock) { return lock && flock(lock.get(), LOCK_EX | LOCK_NB) == 0; }

std::vector<std::string> entries(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

nlink_t links_of(const std::string& path) {
  struct stat info {};
  return lstat(path.c_str(), &info) == 0 ? info.st_nlink : 0;
}

bool is_file(const std::string& path, const struct stat& file) {
  struct stat info {};
  return lstat(path.c_str(), &info) == 0 && info.st_ino == file.st_ino && info.st_dev == file.st_dev;
}

/// Requires the store's lock, and that nobody is in the run.
void remove_run(const std::string& folder, const std::string& run) {
  const std::string ours = folder + "/runs/" + run;
  std::error_code ignored;
  const bool keep = fs::exists(ours + kKeep, ignored);
  const std::vector<std::string> pins = entries(ours + "/pins");
  fs::remove_all(ours, ignored);
  for (const std::string& pin : pins) {
    const std::string object = folder + "/objects/" + pin;
    if (!keep && links_of(object) == 1) unlink(object.c_str());
  }
}

/// Those that nobody writes any more. Requires the store's lock.
void remove_parts(const std::string& folder) {
  for (const std::string& name : entries(folder + "/objects")) {
    const std::string path = folder + "/objects/" + name;
    if (name.find(".part.") == std::string::npos) continue;
    if (is_free(UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)))) unlink(path.c_str());
  }
}

/// Folders that hold nothing any more: a run leaves nothing behind. The last step cannot be shared with who comes now,
/// who then finds the lock's file gone and opens the store once more.
void remove_if_empty(const std::string& folder) {
  if (rmdir((folder + "/runs").c_str()) != 0 || rmdir((folder + "/objects").c_str()) != 0) return;
  unlink((folder + "/lock").c_str());
  rmdir(folder.c_str());
}

/// Programs that were sent beside the store and never ran, which would have removed them.
void remove_old_copies(const std::string& folder) {
  const fs::path path(folder);
  const std::string prefix = path.filename().string() + ".agent-";
  for (const std::string& name : entries(path.parent_path().string())) {
    const std::string copy = (path.parent_path() / name).string();
    struct stat info {};
    const bool ours = name.starts_with(prefix) && lstat(copy.c_str(), &info) == 0 && info.st_uid == geteuid();
    if (ours && std::time(nullptr) - info.st_ctime > kCopyAgeMax) unlink(copy.c_str());
  }
}

std::string random_name() {
  std::random_device random;
  return std::to_string(random()) + std::to_string(random());
}

Status make_folders(const std::string& path) {
  std::error_code failed;
  fs::create_directories(path, failed);
  return failed ? Status(cannot("make", path, failed.value())) : Status();
}

}  // namespace

// --------------------------------------------------------------------------------------------------------------- part

StagePart::~StagePart() {
  if (!path_.empty()) unlink(path_.c_str());
}

// -------------------------------------------------------------------------------------------------------------- store

std::string StageStore::root_of(const std::string& folder, const std::string& run) {
  return folder + "/runs/" + run + "/root";
}

Result<StageStore> StageStore::open(const std::string& folder, const std::string& run, bool keep) {
  StageStore store(folder, run);
  const Status ours = container::make_private_folder(folder, "the folder for staged files",
                                                     "remove it or name another in stage.folder");
  if (!ours) return ours.error();
  if (Status joined = store.join(keep); !joined) return joined.error();
  return store;
}

Status StageStore::join(bool keep) {
  for (int attempt = 0; attempt < 10; ++attempt) {
    const UniqueFd lock = lock_store(folder_);
    if (!lock) return cannot("lock", folder_ + "/lock", errno);
    // The last agent of another run may just have removed the store under us.
    if (struct stat info {}; fstat(lock.get(), &info) == 0 && info.st_nlink == 0) {
      mkdir(folder_.c_str(), 0700);
      continue;
    }
    for (const std::string& part : {folder_ + "/objects", run_folder() + "/pins", root()}) {
      if (Status made = make_folders(part); !made) return made;
    }
    member_ = open_lock(run_folder() + "/lock");
    if (!member_ || flock(member_.get(), LOCK_SH) != 0) return cannot("lock", run_folder() + "/lock", errno);
    if (keep) UniqueFd(::open((run_folder() + kKeep).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    remove_left_overs();
    return {};
  }
  return unavailable("the store " + folder_ + " is being removed all the time");
}

/// Requires the store's lock.
void StageStore::remove_left_overs() {
  for (const std::string& run : entries(folder_ + "/runs")) {
    if (run != run_ && is_free(open_lock(folder_ + "/runs/" + run + "/lock"))) remove_run(folder_, run);
  }
  remove_parts(folder_);
  remove_old_copies(folder_);
}

Result<bool> StageStore::pin(const std::string& sha256) {
  const UniqueFd lock = lock_store(folder_);
  const std::string object = folder_ + "/objects/" + sha256;
  if (link(object.c_str(), pinned(sha256).c_str()) == 0 || errno == EEXIST) return true;
  if (errno == ENOENT) return false;
  return cannot("link " + object + " as", pinned(sha256), errno);
}

void StageStore::discard(const std::string& sha256, int damaged) {
  const UniqueFd lock = lock_store(folder_);
  struct stat info {};
  if (fstat(damaged, &info) != 0) return;
  for (const std::string& name : {folder_ + "/objects/" + sha256, images_of(folder_) + "/" + sha256, pinned(sha256)}) {
    if (is_file(name, info)) unlink(name.c_str());
  }
}

Result<StagePart> StageStore::begin(const std::string& sha256, uint64_t bytes) {
  const std::string path = folder_ + "/objects/" + sha256 + ".part." + random_name();
  const UniqueFd lock = lock_store(folder_);  // a part without its own lock would count as left over
  // Ranks may read and execute: many paths with different modes may be this one file.
  StagePart part(UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0500)), path);
  if (part.fd() < 0) return cannot("write", path, errno);
  flock(part.fd(), LOCK_EX);
  if (bytes > 0 && fallocate(part.fd(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes)) != 0 && errno == ENOSPC) {
    return unavailable("no room for " + std::to_string(bytes) + " bytes as " + path + ": " + std::strerror(ENOSPC) +
                       "; make room, or name another folder in stage.folder");
  }
  return part;
}

Status StageStore::keep(StagePart part, const std::string& sha256) {
  const std::string object = folder_ + "/objects/" + sha256;
  const UniqueFd lock = lock_store(folder_);
  if (access(pinned(sha256).c_str(), F_OK) == 0) return {};  // by another agent of this run, which reads it already
  if (rename(part.path_.c_str(), object.c_str()) != 0) return cannot("rename to", object, errno);
  part.path_.clear();
  if (link(object.c_str(), pinned(sha256).c_str()) != 0) {
    return cannot("link " + object + " as", pinned(sha256), errno);
  }
  return {};
}

Status StageStore::place_object(const std::string& sha256, const std::string& path) {
  const std::string place = root() + path;
  if (Status made = make_folders(fs::path(place).parent_path().string()); !made) return made;
  const UniqueFd lock = lock_store(folder_);
  if (link(pinned(sha256).c_str(), place.c_str()) == 0) return {};
  struct stat info {};
  if (errno == EEXIST && lstat(pinned(sha256).c_str(), &info) == 0 && is_file(place, info)) return {};
  // A rank of an earlier attempt may have put something else there; ranks of this one never see it missing.
  const std::string beside = place + ".part." + random_name();
  const bool linked = link(pinned(sha256).c_str(), beside.c_str()) == 0;
  if (linked && rename(beside.c_str(), place.c_str()) == 0) return {};
  const int error = errno;
  unlink(beside.c_str());
  return cannot("link " + pinned(sha256) + " as", place, error);
}

Status StageStore::place_link(const std::string& target, const std::string& path) {
  const std::string place = root() + path;
  if (Status made = make_folders(fs::path(place).parent_path().string()); !made) return made;
  if (symlink(target.c_str(), place.c_str()) == 0 || errno == EEXIST) return {};
  return cannot("make the link", place, errno);
}

Status StageStore::place_folder(const std::string& path) { return make_folders(root() + path); }

Status StageStore::place_image(const std::string& sha256) {
  const std::string images = images_of(folder_), place = images + "/" + sha256;
  const Status ours = container::make_private_folder(images, "the store of staged images", "remove it");
  if (!ours) return ours;
  const UniqueFd lock = lock_store(folder_);
  // Another run may have made its own copy the object (F4) or have thrown this one out as damaged.
  const std::string object = folder_ + "/objects/" + sha256;
  struct stat info {};
  if (lstat(object.c_str(), &info) != 0) {
    if (link(pinned(sha256).c_str(), object.c_str()) != 0 || lstat(object.c_str(), &info) != 0) {
      return cannot("link " + pinned(sha256) + " as", object, errno);
    }
  }
  if (is_file(place, info)) return {};
  const std::string beside = object + ".part." + random_name();  // remove_parts() knows it if we die in between
  if (link(object.c_str(), beside.c_str()) == 0 && rename(beside.c_str(), place.c_str()) == 0) return {};
  const int error = errno;
  unlink(beside.c_str());
  return cannot("link " + object + " as", place, error);
}

void StageStore::leave() {
  member_.reset();
  leave_stage(folder_, run_);
}

void leave_stage(const std::string& folder, const std::string& run) {
  if (access((folder + "/runs/" + run).c_str(), F_OK) != 0) return;
  const UniqueFd lock = lock_store(folder);
  if (!lock) return;
  const UniqueFd member(::open((folder + "/runs/" + run + "/lock").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!is_free(member)) return;
  remove_run(folder, run);
  remove_parts(folder);
  remove_if_empty(folder);
}

bool is_stage_path(const std::string& path) {
  return path.size() > 1 && path.front() == '/' && path.back() != '/' && path.find('\0') == std::string::npos &&
         fs::path(path).lexically_normal().string() == path;
}

}  // namespace mds::agent
