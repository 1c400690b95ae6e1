#include "trainer/comm/connect.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <memory>
#include <optional>

#include <nlohmann/json.hpp>

#include "trainer/comm/handshake.hpp"

namespace mds::trainer {
namespace {

using Clock = std::chrono::steady_clock;

/// Connections that have not proven themselves; a flood of strangers pushes out the oldest.
constexpr size_t kStrangersMax = 256;

struct Address {
  std::string host;
  int port = 0;
};

std::string to_string(const Address& address) { return address.host + ":" + std::to_string(address.port); }

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Result<AddressList> resolve(const Address& address, bool passive) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (error != 0) return bad_input("address '" + address.host + "': " + ::gai_strerror(error));
  return AddressList(found, &::freeaddrinfo);
}

struct Listener {
  Fd fd;
  Address address;
};

Result<Listener> listen_on(const std::string& host) {
  auto addresses = resolve({host, 0}, true);
  if (!addresses) return addresses.error();
  Fd fd(::socket((*addresses)->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return system_error("socket", errno);
  if (::bind(fd.get(), (*addresses)->ai_addr, (*addresses)->ai_addrlen) != 0) {
    return bad_input("cannot listen on " + host + ": " + std::strerror(errno) +
                     "; MDS_HOST_ADDRESS must be an address of this host");
  }
  if (::listen(fd.get(), SOMAXCONN) != 0) return system_error("listen", errno);
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
    return system_error("getsockname", errno);
  }
  const int port = bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                               : reinterpret_cast<sockaddr_in&>(bound).sin_port;
  return Listener{std::move(fd), {host, ntohs(static_cast<uint16_t>(port))}};
}

/// Small messages leave at once, and a host that vanished without a word is noticed.
void tune(int fd) {
  const auto set = [fd](int level, int option, int value) {
    (void)::setsockopt(fd, level, option, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 30'000);
}

Result<Fd> connect_to(const Address& address, std::chrono::milliseconds timeout) {
  auto addresses = resolve(address, false);
  if (!addresses) return addresses.error();
  Fd fd(::socket((*addresses)->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return system_error("socket", errno);
  timeval limit{};
  limit.tv_sec = timeout.count() / 1000;
  limit.tv_usec = timeout.count() % 1000 * 1000;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  while (::connect(fd.get(), (*addresses)->ai_addr, (*addresses)->ai_addrlen) != 0) {
    if (errno != EINTR) return unavailable("cannot connect to " + to_string(address) + ": " + std::strerror(errno));
  }
  tune(fd.get());
  return fd;
}

std::string to_hex(const Secret& secret) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (unsigned char byte : secret) text += {digits[byte >> 4], digits[byte & 15]};
  return text;
}

std::optional<Secret> from_hex(const std::string& text) {
  Secret secret;
  if (text.size() != 2 * secret.size() || text.find_first_not_of("0123456789abcdef") != std::string::npos) return {};
  for (size_t i = 0; i < secret.size(); ++i) {
    secret[i] = static_cast<unsigned char>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
  }
  return secret;
}

/// What every rank learns from the exchange.
struct Directory {
  std::vector<Address> addresses;   ///< by world rank
  Secret secret{};
};

Result<Directory> exchange_addresses(const Address& own, int rank, int world_size, agent::RankControl& control) {
  nlohmann::json mine = {{"host", own.host}, {"port", own.port}};
  if (rank == 0) mine["secret"] = to_hex(random_bytes());
  auto values = control.exchange("peer-addresses", rank, world_size, mine.dump());
  if (!values) return values.error().within("exchange of addresses");
  Directory directory;
  for (const std::string& value : *values) {
    const auto json = nlohmann::json::parse(value, nullptr, false);
    if (!json.is_object() || !json.contains("host") || !json["host"].is_string() || !json.contains("port") ||
        !json["port"].is_number_integer()) {
      return internal("exchange of addresses: malformed address of rank " + std::to_string(directory.addresses.size()));
    }
    if (directory.addresses.empty()) {
      const auto secret = from_hex(json.value("secret", ""));
      if (!secret) return internal("exchange of addresses: rank 0 sent no secret");
      directory.secret = *secret;
    }
    directory.addresses.push_back({json["host"], json["port"]});
  }
  return directory;
}

/// Brings all connections of one rank up together.
class Connector {
 public:
  Connector(const std::vector<GroupMembers>& groups, int rank, const Directory& directory)
      : groups_(groups), directory_(directory) {
    for (const GroupMembers& group : groups) {
      const auto own = std::find(group.ranks.begin(), group.ranks.end(), rank);
      own_.push_back(static_cast<int>(own - group.ranks.begin()));
      digests_.push_back(sha256(group.name));
      sockets_.emplace_back(group.ranks.size());
      missing_ += group.ranks.size() - 1;
    }
  }

  Result<std::vector<std::vector<Fd>>> run(const Fd& listener, std::chrono::milliseconds timeout) {
    const auto deadline = Clock::now() + timeout;
    if (Status status = call_lower_ranks(timeout); !status) return status.error();
    while (missing_ > 0) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
      if (left.count() <= 0) return unavailable("no connection " + first_missing() + " within " +
                                                std::to_string(timeout.count() / 1000) + " s");
      if (Status status = wait(listener, static_cast<int>(left.count())); !status) return status.error();
    }
    return std::move(sockets_);
  }

 private:
  Status call_lower_ranks(std::chrono::milliseconds timeout) {
    for (size_t g = 0; g < groups_.size(); ++g) {
      for (int peer = 0; peer < own_[g]; ++peer) {
        auto socket = connect_to(directory_.addresses[groups_[g].ranks[peer]], timeout);
        if (!socket) return socket.error().within(who(g, peer));
        open_.push_back(Handshake::connecting(std::move(*socket), directory_.secret, digests_[g], own_[g], peer));
      }
    }
    return {};
  }

  Status wait(const Fd& listener, int timeout_ms) {
    std::vector<pollfd> polled{{listener.get(), POLLIN, 0}};
    for (const Handshake& handshake : open_) polled.push_back({handshake.fd(), POLLIN, 0});
    if (::poll(polled.data(), polled.size(), timeout_ms) < 0 && errno != EINTR) return system_error("poll", errno);
    size_t i = 1;
    for (auto it = open_.begin(); it != open_.end(); ++i) {
      if (polled[i].revents == 0 || it->advance() == Handshake::State::in_progress) {
        ++it;
        continue;
      }
      if (Status status = settle(*it); !status) return status;
      it = open_.erase(it);
    }
    if (polled[0].revents != 0) accept_all(listener);
    return {};
  }

  void accept_all(const Fd& listener) {
    for (;;) {
      Fd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!socket.valid()) return;
      tune(socket.get());
      open_.push_back(Handshake::accepting(std::move(socket), directory_.secret));
      const auto stranger = [](const Handshake& handshake) { return !handshake.is_connector(); };
      const auto strangers = std::count_if(open_.begin(), open_.end(), stranger);
      if (static_cast<size_t>(strangers) > kStrangersMax + missing_) {
        open_.erase(std::find_if(open_.begin(), open_.end(), stranger));
      }
    }
  }

  /// A finished handshake: keeps a proven connection, drops a stranger, reports a peer that refused us.
  Status settle(Handshake& handshake) {
    const Hello& hello = handshake.hello();
    const bool calling = handshake.is_connector();
    const size_t g = std::find(digests_.begin(), digests_.end(), hello.group) - digests_.begin();
    const int peer = static_cast<int>(calling ? hello.to : hello.from);
    if (handshake.state() != Handshake::State::done) {
      if (!calling) return {};
      if (handshake.state() == Handshake::State::refused) {
        return Error{ErrorCode::denied, who(g, peer) + " does not know this attempt's secret"};
      }
      return unavailable(who(g, peer) + " closed the connection before it was authenticated");
    }
    const bool expected = g < groups_.size() && (calling || static_cast<int>(hello.to) == own_[g]) &&
                          peer >= 0 && peer < static_cast<int>(groups_[g].ranks.size()) && peer != own_[g] &&
                          !sockets_[g][peer].valid();
    if (!expected) return {};
    sockets_[g][peer] = handshake.take_socket();
    --missing_;
    return {};
  }

  std::string who(size_t g, int peer) const {
    const int world_rank = groups_[g].ranks[peer];
    return "group " + groups_[g].name + ", rank " + std::to_string(world_rank) + " at " +
           to_string(directory_.addresses[world_rank]);
  }

  std::string first_missing() const {
    for (size_t g = 0; g < groups_.size(); ++g) {
      for (int peer = 0; peer < static_cast<int>(groups_[g].ranks.size()); ++peer) {
        if (peer != own_[g] && !sockets_[g][peer].valid()) return (peer < own_[g] ? "to " : "from ") + who(g, peer);
      }
    }
    return "missing";
  }

  const std::vector<GroupMembers>& groups_;
  const Directory& directory_;
  std::vector<int> own_;                     ///< this rank's place in each group
  std::vector<Digest> digests_;
  std::vector<std::vector<Fd>> sockets_;
  size_t missing_ = 0;
  std::list<Handshake> open_;
};

}  // namespace

Result<std::vector<std::vector<Fd>>> connect_groups(const std::vector<GroupMembers>& groups, int rank, int world_size,
                                                    agent::RankControl& control, const ConnectOptions& options) {
  auto listener = listen_on(options.host);
  if (!listener) return listener.error();
  auto directory = exchange_addresses(listener->address, rank, world_size, control);
  if (!directory) return directory.error();
  return Connector(groups, rank, *directory).run(listener->fd, options.timeout);
}

}  // namespace mds::trainer
