// Replay: what was sent last, for a peer that may have to be told again because its connection was lost on the way.
//
// Both ends of the way between head and agent count the messages of is_counted() that they have sent and received. The
// tree between them keeps their order and loses some only with a connection. So when the agent has a connection again,
// each end says how many it has received, and the other sends the rest once more: every counted message is delivered
// exactly once, or the agent is given up.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/messages.hpp"

namespace mds::agent {

class Replay {
 public:
  struct Sent {
    MessageType type{};
    uint32_t attempt = 0;
    std::shared_ptr<const std::vector<uint8_t>> body;  ///< CBOR; shared where many nodes get the same
  };

  static constexpr size_t kMessagesMax = 256;
  static constexpr size_t kBytesMax = 2u << 20;

  void keep(Sent sent) {
    ++count_;
    bytes_ += sent.body ? sent.body->size() : 0;
    kept_.push_back(std::move(sent));
    while (kept_.size() > kMessagesMax || (bytes_ > kBytesMax && kept_.size() > 1)) {
      bytes_ -= kept_.front().body ? kept_.front().body->size() : 0;
      kept_.pop_front();
    }
  }

  /// Messages sent in all.
  uint64_t count() const { return count_; }

  /// Those after the first `received`; nullopt when they are not kept any more, or were never sent.
  std::optional<std::vector<Sent>> after(uint64_t received) const {
    if (received > count_ || count_ - received > kept_.size()) return std::nullopt;
    return std::vector<Sent>(kept_.end() - static_cast<std::ptrdiff_t>(count_ - received), kept_.end());
  }

 private:
  std::deque<Sent> kept_;
  size_t bytes_ = 0;
  uint64_t count_ = 0;
};

}  // namespace mds::agent
