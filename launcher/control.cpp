#include "launcher/control.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "agent/unique_fd.hpp"

namespace mds::launcher {

namespace asio = boost::asio;
using boost::system::error_code;
using nlohmann::json;
using stream = asio::local::stream_protocol;

namespace {

bool is_our_user(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

/// One peer: a line, its reply, the next line. Keeps itself alive while it is read from or answered.
struct Peer : std::enable_shared_from_this<Peer> {
  Peer(stream::socket s, const ControlHandler& h, std::shared_ptr<int> c)
      : socket(std::move(s)), handler(h), count(std::move(c)) {
    ++*count;
  }
  ~Peer() { --*count; }

  void read() {
    asio::async_read_until(socket, asio::dynamic_buffer(input, ControlServer::kLineBytesMax), '\n',
                           [self = shared_from_this()](error_code error, size_t size) {
                             if (!error) self->answer(size);
                           });
  }

  void answer(size_t size) {
    const json request = json::parse(input.substr(0, size), nullptr, /*allow_exceptions=*/false);
    input.erase(0, size);
    handler(request, [self = shared_from_this(), used = false](const json& reply) mutable {
      if (!std::exchange(used, true)) self->write(reply);
    });
  }

  void write(const json& reply) {
    output = reply.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
    asio::async_write(socket, asio::buffer(output), [self = shared_from_this()](error_code error, size_t) {
      if (!error) self->read();
    });
  }

  stream::socket socket;
  const ControlHandler handler;
  std::shared_ptr<int> count;
  std::string input, output;
};

}  // namespace

struct ControlServer::Impl : std::enable_shared_from_this<ControlServer::Impl> {
  Impl(asio::io_context& io, std::string folder, ControlHandler h)
      : path(std::move(folder) + "/control.sock"), acceptor(io), handler(std::move(h)) {}

  Status open();
  void accept();

  std::string path;
  stream::acceptor acceptor;
  ControlHandler handler;
  std::shared_ptr<int> peers = std::make_shared<int>(0);
  bool closed = false;
};

/// A socket's address holds 107 bytes, which run folders often exceed: the folder is named by its descriptor.
Status ControlServer::Impl::open() {
  const auto cannot = [&](const std::string& why) { return unavailable("cannot listen on " + path + ": " + why); };
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const agent::UniqueFd dir(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return cannot(std::strerror(errno));
  unlink(path.c_str());
  error_code error;
  acceptor.open(stream(), error);
  if (!error) fcntl(acceptor.native_handle(), F_SETFD, FD_CLOEXEC);
  const mode_t before = umask(0177);
  if (!error) acceptor.bind("/proc/self/fd/" + std::to_string(dir.get()) + "/control.sock", error);
  umask(before);
  if (!error) acceptor.listen(kPeersMax, error);
  return error ? cannot(error.message()) : Status{};
}

void ControlServer::Impl::accept() {
  acceptor.async_accept([self = shared_from_this()](error_code error, stream::socket socket) {
    if (self->closed || error == asio::error::operation_aborted) return;
    if (!error) {
      fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
      const bool welcome = is_our_user(socket.native_handle()) && *self->peers < kPeersMax;
      if (welcome) std::make_shared<Peer>(std::move(socket), self->handler, self->peers)->read();
    }
    self->accept();
  });
}

ControlServer::ControlServer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

ControlServer::~ControlServer() {
  impl_->closed = true;
  error_code ignored;
  impl_->acceptor.close(ignored);
  unlink(impl_->path.c_str());
}

Result<std::unique_ptr<ControlServer>> ControlServer::open(asio::io_context& io, const std::string& run_folder,
                                                           ControlHandler handler) {
  auto impl = std::make_shared<Impl>(io, run_folder, std::move(handler));
  if (Status s = impl->open(); !s) return s.error();
  impl->accept();
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(impl)));
}

// --- the address for other nodes ------------------------------------------------------------------------------------

Status write_control_address(const std::string& run_folder, const ControlAddress& address) {
  const json object{{"host", address.host},
                    {"address", address.address},
                    {"port", address.port},
                    {"job", agent::job_to_hex(address.credentials.job)},
                    {"key", address.credentials.key.hex()}};
  return RunFolder::existing(run_folder).write("control.json", object.dump() + "\n");
}

void remove_control_address(const std::string& run_folder) { unlink((run_folder + "/control.json").c_str()); }

}  // namespace mds::launcher
