// The commands' side of control: over the Unix socket on the head's own node, else over TLS.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "agent/secure_channel.hpp"
#include "agent/unique_fd.hpp"
#include "launcher/control.hpp"
#include "launcher/event_log.hpp"

namespace mds::launcher {

using agent::UniqueFd;
using nlohmann::json;

namespace {

constexpr int kReplySeconds = 4;
constexpr int kStacksSeconds = 30;  // the head gives up after 20 s

int patience_for(const json& request) {
  return request.is_object() && request.value("command", "") == "stacks" ? kStacksSeconds : kReplySeconds;
}

std::string own_host() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

Result<json> checked(const json& reply) {
  if (!reply.is_object()) return unavailable("the run's head has sent no JSON object");
  if (reply.contains("error")) return bad_input(reply["error"].is_string() ? reply["error"].get<std::string>() : "?");
  return reply;
}

class SocketClient final : public ControlClient {
 public:
  explicit SocketClient(UniqueFd socket) : socket_(std::move(socket)) {}

  Result<json> ask(const json& request) override {
    const std::string line = request.dump() + "\n";
    if (send(socket_.get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
      return system_error("the run's head", errno);
    }
    std::string text;
    for (char chunk[16 << 10]; text.find('\n') == std::string::npos;) {
      pollfd polled{socket_.get(), POLLIN, 0};
      const int ready = poll(&polled, 1, patience_for(request) * 1000);
      if (ready < 0 && errno == EINTR) continue;
      if (ready == 0) return unavailable("the run's head does not answer (is it stopped?)");
      const ssize_t n = read(socket_.get(), chunk, sizeof chunk);
      if (n <= 0) return unavailable("the run has just ended");
      text.append(chunk, static_cast<size_t>(n));
    }
    return checked(json::parse(text, nullptr, /*allow_exceptions=*/false));
  }

  bool wait_for_end(double seconds) override {
    pollfd polled{socket_.get(), POLLIN, 0};
    return poll(&polled, 1, static_cast<int>(seconds * 1000)) > 0;
  }

 private:
  UniqueFd socket_;
};

class ChannelClient final : public ControlClient {
 public:
  Status open(const ControlAddress& address) {
    Status status;
    agent::Channel::connect(io_, address.address, address.port, address.credentials, {},
                            [&](Result<std::shared_ptr<agent::Channel>> channel) {
                              if (channel)
                                channel_ = *std::move(channel);
                              else
                                status = channel.error();
                            });
    io_.run();
    if (!channel_) return status;
    channel_->start([this](agent::Message message) { reply_ = std::move(message.body); },
                    [this](const Status&) { closed_ = true; });
    return {};
  }

  Result<json> ask(const json& request) override {
    reply_.reset();
    if (Status s = channel_->send(agent::MessageType::control, 0, request); !s) return s.error();
    run_until([&] { return reply_ || closed_; }, patience_for(request));
    if (!reply_) return unavailable(closed_ ? "the run has just ended" : "the run's head does not answer");
    return checked(*reply_);
  }

  bool wait_for_end(double seconds) override {
    run_until([&] { return closed_; }, seconds);
    return closed_;
  }

 private:
  template <typename Done>
  void run_until(Done done, double seconds) {
    const auto deadline = std::chrono::steady_clock::now() +
                          std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(seconds));
    io_.restart();
    while (!done() && std::chrono::steady_clock::now() < deadline) io_.run_one_until(deadline);
  }

  boost::asio::io_context io_{1};
  std::shared_ptr<agent::Channel> channel_;
  std::optional<json> reply_;
  bool closed_ = false;
};

/// -1 and errno when nobody listens there.
UniqueFd connect_socket(const std::string& folder) {
  const UniqueFd dir(open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::snprintf(name.sun_path, sizeof name.sun_path, "/proc/self/fd/%d/control.sock", dir.get());
  if (!dir || !fd || connect(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0) return UniqueFd();
  return fd;
}

/// A head turns other users away without a word.
bool is_our_head(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

Result<ControlAddress> read_control_address(const std::string& path) {
  std::ifstream file(path);
  const json object = json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return unavailable("no " + path);
  ControlAddress address;
  try {
    address.host = object.at("host");
    address.address = object.at("address");
    address.port = object.at("port");
    const auto job = agent::job_from_hex(object.at("job").get<std::string>());
    const auto key = agent::JobKey::from_hex(object.at("key").get<std::string>());
    if (!job || !key) return corrupt(path);
    address.credentials = {*job, *key};
  } catch (const json::exception&) {  // nlohmann's typed access has no form without exceptions
    return corrupt(path);
  }
  return address;
}

}  // namespace

Result<std::unique_ptr<ControlClient>> ControlClient::connect(const RunFolder& folder) {
  UniqueFd fd = connect_socket(folder.path());
  const int errnum = errno;
  if ((fd && !is_our_head(fd.get())) || (!fd && (errnum == EACCES || errnum == EPERM))) {
    return Error{ErrorCode::denied, folder.path() + " is another user's run"};
  }
  if (fd) return std::unique_ptr<ControlClient>(std::make_unique<SocketClient>(std::move(fd)));
  const auto address = read_control_address(folder.file("control.json"));
  if (address && address->host != own_host()) {
    auto client = std::make_unique<ChannelClient>();
    if (Status s = client->open(*address); !s) {
      return unavailable("the run's head on " + address->host + " cannot be reached from here: " + s.error().message +
                         "; run this command there");
    }
    return std::unique_ptr<ControlClient>(std::move(client));
  }
  if (is_being_written(folder.file("events.jsonl"))) {
    return unavailable("the run of " + folder.path() +
                       " is in progress, but its head does not listen here: " + std::strerror(errnum));
  }
  return unavailable(folder.path() + " is not in progress");
}

}  // namespace mds::launcher
