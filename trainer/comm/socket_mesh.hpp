// SocketMesh: one connected stream socket to every other rank of a group, driven by poll so that any set of sends and
// receives progresses together and no order of them can deadlock. Nothing spins: a rank that waits leaves its core to
// the ranks that compute.
//
// Every message starts with a 16-byte header (kind, sequence, length). Both sides know what comes next, so the header
// is only checked: ranks that make different calls get an error instead of each other's bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace mds::trainer {

/// Owns a file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release();
  void reset();

 private:
  int fd_ = -1;
};

/// What a message belongs to; the ranks of a group must agree on it.
enum class Traffic : uint32_t { all_reduce = 1, all_gather, reduce_scatter, broadcast, transfer, barrier };
const char* to_string(Traffic kind);

/// One contiguous message to or from a peer. `data` is only read when sending.
struct Message {
  int peer = 0;
  bool send = false;
  void* data = nullptr;
  size_t bytes = 0;
};

class SocketMesh {
 public:
  /// `peers[i]` is connected to rank i of the group; `peers[rank]` is empty.
  SocketMesh(std::string name, int rank, std::vector<Fd> peers);

  const std::string& name() const { return name_; }
  int rank() const { return rank_; }
  int size() const { return static_cast<int>(peers_.size()); }

  /// Completes all messages; those of one peer and direction in the order given. Both sides leave out empty ones.
  /// Throws c10::Error naming the peer when it is gone or makes another call. One thread.
  void exchange(Traffic kind, const std::vector<Message>& messages);

 private:
  struct Header {
    uint32_t kind = 0;
    uint32_t sequence = 0;
    uint64_t bytes = 0;
  };
  /// One direction of one socket: its messages of this exchange and how far the current one is.
  struct Lane {
    int peer = 0;
    bool send = false;
    std::vector<Message> queue;
    size_t current = 0;
    size_t done = 0;           ///< bytes of header and body together
    Header header;
    bool finished() const { return current == queue.size(); }
  };
  struct Peer {
    Fd fd;
    uint32_t sent = 0;         ///< messages so far
    uint32_t received = 0;
  };

  std::vector<Lane> lanes(Traffic kind, const std::vector<Message>& messages);
  void begin_message(Traffic kind, Lane& lane);
  bool advance(Traffic kind, Lane& lane);
  void check_header(Traffic kind, const Lane& lane) const;
  void wait(const std::vector<Lane>& lanes) const;
  [[noreturn]] void fail(const Lane& lane, const std::string& why) const;

  std::string name_;
  int rank_ = 0;
  std::vector<Peer> peers_;
};

}  // namespace mds::trainer
