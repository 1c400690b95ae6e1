#include "agent/shared_beat.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace mds::agent {

void SharedBeat::Unmap::operator()(BeatPage* page) const { munmap(page, sizeof(BeatPage)); }

Result<SharedBeat> SharedBeat::create() {
  UniqueFd fd(memfd_create("mds-beat", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd || ftruncate(fd.get(), sizeof(BeatPage)) < 0 ||
      fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
    return system_error("heartbeat page", errno);
  }
  auto beat = map(fd.get());
  if (beat) beat->fd_ = std::move(fd);
  return beat;
}

Result<SharedBeat> SharedBeat::attach(int fd) {
  struct stat info {};
  if (fstat(fd, &info) < 0 || static_cast<size_t>(info.st_size) < sizeof(BeatPage)) {
    return bad_input("file descriptor " + std::to_string(fd) + " is no heartbeat page");
  }
  auto beat = map(fd);
  if (!beat) return bad_input(beat.error().message);
  return beat;
}

Result<SharedBeat> SharedBeat::map(int fd) {
  void* at = mmap(nullptr, sizeof(BeatPage), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return system_error("mapping the heartbeat page", errno);
  return SharedBeat(UniqueFd(), static_cast<BeatPage*>(at));  // zeros are a valid, empty page
}

}  // namespace mds::agent
