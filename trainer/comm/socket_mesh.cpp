#include "trainer/comm/socket_mesh.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <c10/util/Exception.h>

namespace mds::trainer {

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

int Fd::release() { return std::exchange(fd_, -1); }

void Fd::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

const char* to_string(Traffic kind) {
  switch (kind) {
    case Traffic::all_reduce: return "all_reduce";
    case Traffic::all_gather: return "all_gather";
    case Traffic::reduce_scatter: return "reduce_scatter";
    case Traffic::broadcast: return "broadcast";
    case Traffic::transfer: return "transfer";
    case Traffic::barrier: return "barrier";
  }
  return "unknown";
}

SocketMesh::SocketMesh(std::string name, int rank, std::vector<Fd> peers) : name_(std::move(name)), rank_(rank) {
  for (Fd& fd : peers) peers_.push_back(Peer{std::move(fd)});
}

void SocketMesh::exchange(Traffic kind, const std::vector<Message>& messages) {
  std::vector<Lane> lanes = this->lanes(kind, messages);
  for (;;) {
    bool progressed = false, finished = true;
    for (Lane& lane : lanes) {
      if (!lane.finished()) progressed |= advance(kind, lane);
      finished &= lane.finished();
    }
    if (finished) return;
    if (!progressed) wait(lanes);
  }
}

std::vector<SocketMesh::Lane> SocketMesh::lanes(Traffic kind, const std::vector<Message>& messages) {
  std::vector<Lane> lanes;
  for (const Message& message : messages) {
    if (message.bytes == 0) continue;
    TORCH_CHECK(message.peer >= 0 && message.peer < size() && message.peer != rank_, "group ", name_, ": rank ", rank_,
                " cannot exchange with rank ", message.peer);
    Lane* lane = nullptr;
    for (Lane& other : lanes) {
      if (other.peer == message.peer && other.send == message.send) lane = &other;
    }
    if (!lane) lane = &lanes.emplace_back(Lane{message.peer, message.send, {}, 0, 0, {}});
    lane->queue.push_back(message);
  }
  for (Lane& lane : lanes) begin_message(kind, lane);
  return lanes;
}

void SocketMesh::begin_message(Traffic kind, Lane& lane) {
  lane.done = 0;
  if (lane.finished()) return;
  Peer& peer = peers_[lane.peer];
  if (lane.send) lane.header = {static_cast<uint32_t>(kind), ++peer.sent, lane.queue[lane.current].bytes};
}

/// Moves what the socket takes or has now; true if anything moved.
bool SocketMesh::advance(Traffic kind, Lane& lane) {
  Peer& peer = peers_[lane.peer];
  bool progressed = false;
  while (!lane.finished()) {
    const Message& message = lane.queue[lane.current];
    iovec parts[2];
    int count = 0;
    size_t body_done = 0;
    if (lane.done < sizeof(Header)) {
      parts[count++] = {reinterpret_cast<char*>(&lane.header) + lane.done, sizeof(Header) - lane.done};
    } else {
      body_done = lane.done - sizeof(Header);
    }
    parts[count++] = {static_cast<char*>(message.data) + body_done, message.bytes - body_done};
    msghdr io{};
    io.msg_iov = parts;
    io.msg_iovlen = count;
    const ssize_t moved = lane.send ? ::sendmsg(peer.fd.get(), &io, MSG_DONTWAIT | MSG_NOSIGNAL)
                                    : ::recvmsg(peer.fd.get(), &io, MSG_DONTWAIT);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return progressed;
    if (moved < 0) fail(lane, std::strerror(errno));
    if (moved == 0) fail(lane, "it closed the connection");
    progressed = true;
    const bool had_header = lane.done >= sizeof(Header);
    lane.done += static_cast<size_t>(moved);
    if (!lane.send && !had_header && lane.done >= sizeof(Header)) {
      ++peer.received;
      check_header(kind, lane);
    }
    if (lane.done == sizeof(Header) + message.bytes) {
      ++lane.current;
      begin_message(kind, lane);
    }
  }
  return progressed;
}

void SocketMesh::check_header(Traffic kind, const Lane& lane) const {
  const Header& header = lane.header;
  const uint64_t bytes = lane.queue[lane.current].bytes;
  if (header.kind == static_cast<uint32_t>(kind) && header.bytes == bytes &&
      header.sequence == peers_[lane.peer].received) {
    return;
  }
  fail(lane, std::string("it sent ") + to_string(static_cast<Traffic>(header.kind)) + " of " +
                 std::to_string(header.bytes) + " bytes (message " + std::to_string(header.sequence) + ") where " +
                 to_string(kind) + " of " + std::to_string(bytes) + " bytes (message " +
                 std::to_string(peers_[lane.peer].received) + ") was expected");
}

void SocketMesh::wait(const std::vector<Lane>& lanes) const {
  std::vector<pollfd> polled;
  for (const Lane& lane : lanes) {
    if (lane.finished()) continue;
    polled.push_back({peers_[lane.peer].fd.get(), static_cast<short>(lane.send ? POLLOUT : POLLIN), 0});
  }
  if (::poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) {
    TORCH_CHECK(false, "group ", name_, ": poll: ", std::strerror(errno));
  }
}

void SocketMesh::fail(const Lane& lane, const std::string& why) const {
  const char* what = lane.send ? " cannot send to rank " : " cannot receive from rank ";
  TORCH_CHECK(false, "group ", name_, ": rank ", rank_, what, lane.peer, " of the group: ", why);
}

}  // namespace mds::trainer
