// Mutual authentication of one connection between two ranks (the exchange is described in trainer/comm/connect.hpp).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "trainer/comm/socket_mesh.hpp"

namespace mds::trainer {

using Digest = std::array<unsigned char, 32>;
using Secret = std::array<unsigned char, 32>;

Digest sha256(const std::string& text);
/// From the operating system's generator. Throws c10::Error if it has none to give.
std::array<unsigned char, 32> random_bytes();

struct Hello {
  std::array<char, 8> magic{'M', 'D', 'S', 'P', 'E', 'E', 'R', '1'};
  Digest group{};
  uint32_t from = 0;       ///< ranks within the group
  uint32_t to = 0;
  std::array<unsigned char, 32> nonce{};
};
static_assert(sizeof(Hello) == 80, "the hello has no padding: it is sent and authenticated as it lies in memory");

/// One connection until it is authenticated; driven by the caller whenever its socket is readable.
class Handshake {
 public:
  enum class State { in_progress, done, refused, lost };

  /// The connecting side: sends its hello at once.
  static Handshake connecting(Fd socket, const Secret& secret, const Digest& group, int from, int to);
  /// The accepting side.
  static Handshake accepting(Fd socket, const Secret& secret);

  /// Reads what is there and answers. Never blocks.
  State advance();

  State state() const { return state_; }
  int fd() const { return socket_.get(); }
  bool is_connector() const { return connector_; }
  const Hello& hello() const { return hello_; }       ///< who the other side says it is; proven once done
  Fd take_socket() { return std::move(socket_); }     ///< requires State::done

 private:
  enum class Expect { hello, reply, proof };
  struct Reply {
    std::array<unsigned char, 32> nonce{};
    Digest mac{};
  };

  Handshake(Fd socket, const Secret& secret, bool connector);
  State take_hello();
  State take_reply();
  State take_proof();
  Digest mac(const char* label, const std::array<unsigned char, 32>& nonce) const;
  bool send_all(const void* data, size_t bytes);

  Fd socket_;
  Secret secret_{};
  bool connector_ = false;
  Expect expect_ = Expect::hello;
  State state_ = State::in_progress;
  Hello hello_;
  Reply reply_;
  std::array<unsigned char, sizeof(Hello)> buffer_{};
  size_t received_ = 0;
};

}  // namespace mds::trainer
