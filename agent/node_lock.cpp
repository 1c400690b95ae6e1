#include "agent/node_lock.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <thread>

namespace mds::agent {
namespace {

constexpr char kLeave = 'L';
constexpr std::chrono::milliseconds kPause{5};

/// The abstract address of a name; `length` is what bind() and sendto() want.
sockaddr_un address_of(const std::string& name, socklen_t& length) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const size_t size = std::min(name.size(), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, name.data(), size);  // after a NUL: no file
  length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + size);
  return address;
}

}  // namespace

UniqueFd make_door() {
  UniqueFd door(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (door) setsockopt(door.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
  return door;
}

Status take_node_lock(int door, const std::string& name, std::chrono::milliseconds patience) {
  socklen_t length = 0;
  const sockaddr_un address = address_of(name, length);
  const auto* at = reinterpret_cast<const sockaddr*>(&address);
  const UniqueFd knocker(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (bind(door, at, length) != 0) {
    if (errno != EADDRINUSE) return system_error("cannot take the node's lock", errno);
    if (std::chrono::steady_clock::now() >= deadline) {
      return unavailable("an earlier agent of this node does not leave");
    }
    sendto(knocker.get(), &kLeave, 1, MSG_NOSIGNAL, at, length);  // again and again: it may have lost one
    std::this_thread::sleep_for(kPause);                          // there is no event for a name that becomes free
  }
  return {};
}

bool is_asked_to_leave(int door) {
  bool asked = false;
  char word = 0;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
  iovec part{&word, 1};
  while (true) {
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (recvmsg(door, &message, MSG_DONTWAIT) < 0) return asked;
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_CREDENTIALS) continue;
    ucred sender{};
    std::memcpy(&sender, CMSG_DATA(header), sizeof sender);
    asked = asked || (word == kLeave && (sender.uid == geteuid() || sender.uid == 0));
  }
}

}  // namespace mds::agent
