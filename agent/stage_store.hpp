// Stage store: where a node keeps the files that were sent to it, for nodes without a shared file system.
//
//   <folder>/lock                      held for moments, by whoever changes what is below
//   <folder>/objects/<sha256>          a whole file; <sha256>.part.<random> is on its way
//   <folder>/images/<sha256>           hard link to an object that is a container's image; see images_of()
//   <folder>/runs/<run>/lock           shared by the agents of a run on this machine
//   <folder>/runs/<run>/pins/<sha256>  hard link to an object, which is not removed while it has one
//   <folder>/runs/<run>/root/<path>    what ranks see: hard links below their absolute paths on the launcher's machine
//
// Invariants
//   F1  A file gets an object's name only after all of its bytes had that digest. Disks do forget: who pins an object
//       that was there already hashes it again (agent/node_stage.cpp).
//   F2  The folder belongs to the user alone (0700); another's or a linked one is refused.
//   F3  A run's folder goes with its last agent on this machine, or that agent's guard. Where both were killed, the
//       next agent that opens the store removes it, and parts that nobody writes any more.
//   F4  Runs that stage the same file at once do not wait for each other: each writes a part of its own, and what has
//       been renamed last is the object; the others keep what they have pinned. Of a run's own agents the first counts.
//   F5  Images are a cache: an object that has a link in images/ is not removed with a run. It is there for the next
//       job that names its digest, and hashed again before it is used.
#pragma once

#include <cstdint>
#include <string>

#include "agent/unique_fd.hpp"
#include "topology/result.hpp"

namespace mds::agent {

/// A file on its way into the store. It is removed unless StageStore::keep() took it.
class StagePart {
 public:
  StagePart(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  StagePart(StagePart&& other) noexcept : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, "")) {}
  ~StagePart();

  int fd() const { return fd_.get(); }  ///< for reading, too
  const std::string& path() const { return path_; }

 private:
  friend class StageStore;
  UniqueFd fd_;  ///< locked: somebody writes it
  std::string path_;
};

class StageStore {
 public:
  /// Makes what is missing, removes what dead agents left, and joins the run. `keep`: objects stay when the run ends.
  /// Errors: denied, unavailable (with path and reason).
  static Result<StageStore> open(const std::string& folder, const std::string& run, bool keep);

  /// <folder>/runs/<run>/root
  static std::string root_of(const std::string& folder, const std::string& run);
  /// <folder>/images: the image store (container/image_store.hpp) of containers whose image was staged. It is on one
  /// file system with the objects, so no image is there twice.
  static std::string images_of(const std::string& folder) { return folder + "/images"; }
  std::string root() const { return root_of(folder_, run_); }

  /// True if the object is there; it is pinned then. Its bytes are not looked at.
  Result<bool> pin(const std::string& sha256);
  std::string pinned(const std::string& sha256) const { return run_folder() + "/pins/" + sha256; }
  /// The open file `damaged` is: it is neither pinned nor in the store any more, if it was.
  void discard(const std::string& sha256, int damaged);

  /// Room for `bytes` is taken at once where the file system can. Errors: unavailable (disk full: with path and bytes).
  Result<StagePart> begin(const std::string& sha256, uint64_t bytes);
  /// Requires that its bytes have this digest. It is pinned, too.
  Status keep(StagePart part, const std::string& sha256);

  /// Puts a pinned object, a symbolic link or a folder at `path` below the root; links and folders that are there stay.
  /// Requires an absolute, normal path (is_stage_path).
  Status place_object(const std::string& sha256, const std::string& path);
  Status place_link(const std::string& target, const std::string& path);
  Status place_folder(const std::string& path);
  /// Puts a pinned object into the image store, where it outlives the run.
  Status place_image(const std::string& sha256);

  /// Leaves the run; see leave_stage().
  void leave();

 private:
  StageStore(std::string folder, std::string run) : folder_(std::move(folder)), run_(std::move(run)) {}
  std::string run_folder() const { return folder_ + "/runs/" + run_; }
  Status join(bool keep);
  void remove_left_overs();

  std::string folder_, run_;
  UniqueFd member_;  ///< the run's lock, shared
};

/// Removes the run's folder, and its objects that no other run has (unless it keeps them), if no other agent is in that
/// run. For the guard of an agent that has ended; does nothing where all is gone.
void leave_stage(const std::string& folder, const std::string& run);

/// Absolute, without "." or "..", double or final slashes.
bool is_stage_path(const std::string& path);

}  // namespace mds::agent
