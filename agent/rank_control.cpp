#include "agent/rank_control.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>

#include <nlohmann/json.hpp>

#include "agent/frame.hpp"
#include "agent/shared_beat.hpp"
#include "agent/unique_fd.hpp"

namespace mds::agent {
namespace {

using nlohmann::json;

constexpr size_t kExchangeValueBytesMax = 1u << 20;

/// A rank started by hand: alone in its world, nobody listens.
class LoneRank final : public RankControl {
 public:
  void beat(uint64_t) override {}
  Status progress(const json&) override { return {}; }
  RankRequests poll() override { return {}; }

  Result<std::vector<std::string>> exchange(const std::string& name, int index, int count,
                                            const std::string& value) override {
    if (index == 0 && count == 1) return std::vector<std::string>{value};
    return bad_input("exchange '" + name + "' among " + std::to_string(count) +
                     " ranks needs an agent (MDS_CONTROL_FD is not set): start the program with mdslaunch");
  }
};

/// A rank of an agent, over a blocking stream socket.
class AgentRank final : public RankControl {
 public:
  AgentRank(UniqueFd socket, std::optional<SharedBeat> beat)
      : socket_(std::move(socket)), beat_(std::move(beat)), decoder_(0, kRankFrameBytesMax) {}

  void beat(uint64_t step) override {
    if (beat_) beat_->beat(step);
  }

  Status progress(const json& body) override { return send(MessageType::rank_progress, body); }

  Status hello() { return send(MessageType::rank_hello, {{"pid", getpid()}}); }

  Result<std::vector<std::string>> exchange(const std::string& name, int index, int count,
                                            const std::string& value) override {
    if (count < 1 || index < 0 || index >= count) return bad_input("exchange '" + name + "': index out of range");
    if (value.size() > kExchangeValueBytesMax) return bad_input("exchange '" + name + "': value above 1 MiB");
    const json body = {{"name", name},
                       {"index", index},
                       {"count", count},
                       {"value", json::binary({value.begin(), value.end()})}};
    if (Status sent = send(MessageType::rank_exchange, body); !sent) return sent.error();
    auto at = results_.end();
    while ((at = results_.find(name)) == results_.end()) {
      const Status received = receive(/*block=*/true);
      if (!received) return received.error().within("exchange '" + name + "'");
    }
    std::vector<std::string> values = std::move(at->second);
    results_.erase(at);
    if (values.size() != static_cast<size_t>(count)) {
      return corrupt("exchange '" + name + "': " + std::to_string(values.size()) + " values instead of " +
                     std::to_string(count));
    }
    return values;
  }

  RankRequests poll() override {
    // A lost agent needs no word here: the kernel kills the rank with it.
    (void)receive(/*block=*/false);
    return std::exchange(requests_, {});
  }

 private:
  Status send(MessageType type, const json& body) {
    std::string frame;
    if (Status fits = encode_frame({type, 0, 0, sequence_ + 1, body}, kRankFrameBytesMax, frame); !fits) return fits;
    ++sequence_;
    for (size_t sent = 0; sent < frame.size();) {
      const ssize_t n = ::send(socket_.get(), frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return unavailable(std::string("the agent is gone: ") + strerror(errno));
      sent += static_cast<size_t>(n);
    }
    return {};
  }

  // Takes what is there (or, blocking, at least something) and sorts it.
  Status receive(bool block) {
    uint8_t chunk[16 << 10];
    const ssize_t n = recv(socket_.get(), chunk, sizeof chunk, block ? 0 : MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return {};
    if (n < 0) return unavailable(std::string("the agent is gone: ") + strerror(errno));
    if (n == 0) return unavailable("the agent is gone");
    decoder_.feed({chunk, static_cast<size_t>(n)});
    while (true) {
      auto message = decoder_.next();
      if (!message) return message.error();
      if (!*message) return {};
      sort(**message);
    }
  }

  void sort(const Message& message) {
    if (message.type == MessageType::rank_checkpoint_now) requests_.checkpoint_now = true;
    if (message.type == MessageType::rank_stop) requests_.stop = true;
    if (message.type != MessageType::rank_exchange_result) return;
    const auto name = message.body.find("name"), list = message.body.find("values");
    if (name == message.body.end() || !name->is_string() || list == message.body.end() || !list->is_array()) return;
    std::vector<std::string> values;
    for (const json& value : *list) {
      if (!value.is_binary()) return;
      values.emplace_back(value.get_binary().begin(), value.get_binary().end());
    }
    results_[name->get<std::string>()] = std::move(values);
  }

  UniqueFd socket_;
  std::optional<SharedBeat> beat_;
  FrameDecoder decoder_;
  uint64_t sequence_ = 0;
  RankRequests requests_;
  std::map<std::string, std::vector<std::string>> results_;  // by name, not asked for yet
};

/// The descriptor that a variable names; -1 when it is not set. It is made close-on-exec: the rank's own children have
/// no business with it.
Result<int> descriptor_from(const char* variable) {
  const char* text = std::getenv(variable);
  if (!text) return -1;
  int fd = -1;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), fd);
  if (error != std::errc() || *end != '\0' || fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
    return bad_input(std::string(variable) + "='" + text + "' is no open file descriptor");
  }
  return fd;
}

}  // namespace

Result<std::unique_ptr<RankControl>> RankControl::from_environment() {
  const auto control_fd = descriptor_from("MDS_CONTROL_FD");
  if (!control_fd) return control_fd.error();
  const auto beat_fd = descriptor_from("MDS_BEAT_FD");
  if (!beat_fd) return beat_fd.error();
  if (*control_fd < 0) return std::unique_ptr<RankControl>(std::make_unique<LoneRank>());
  std::optional<SharedBeat> beat;
  if (*beat_fd >= 0) {
    auto attached = SharedBeat::attach(*beat_fd);
    if (!attached) return attached.error().within("MDS_BEAT_FD");
    beat = *std::move(attached);
  }
  auto rank = std::make_unique<AgentRank>(UniqueFd(*control_fd), std::move(beat));
  if (Status greeted = rank->hello(); !greeted) return greeted.error();
  return std::unique_ptr<RankControl>(std::move(rank));
}

}  // namespace mds::agent
