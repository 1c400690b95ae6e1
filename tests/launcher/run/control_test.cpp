#include "launcher/control.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/agent/temporary_folder.hpp"
#include "tests/catch.hpp"

using namespace mds;
using namespace mds::launcher;
using nlohmann::json;

namespace {

/// A head that answers with what it was asked, on a thread of its own.
class Echo {
 public:
  explicit Echo(const std::string& folder) {
    auto opened = ControlServer::open(io_, folder, [](const json& request, const ControlReply& reply) {
      if (!request.is_object()) return reply({{"error", "no object"}});
      reply({{"echo", request}});
    });
    REQUIRE(opened.ok());
    server_ = std::move(*opened);
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Echo() {
    io_.stop();
    thread_.join();
  }

 private:
  boost::asio::io_context io_{1};
  std::unique_ptr<ControlServer> server_;
  std::thread thread_;
};

mode_t mode_of(const std::string& path) {
  struct stat info {};
  REQUIRE(lstat(path.c_str(), &info) == 0);
  return info.st_mode & 07777;
}

}  // namespace

TEST_CASE("requests and replies pass over the run's socket, whatever the length of its path", "[control]") {
  TemporaryFolder folder;
  std::string path = folder.path();
  SECTION("short") {}
  SECTION("long") {
    path += "/" + std::string(120, 'l') + "/" + std::string(120, 'm');
    std::filesystem::create_directories(path);
  }
  {
    Echo head(path);
    CHECK(mode_of(path + "/control.sock") == 0600);
    auto client = ControlClient::connect(RunFolder::existing(path));
    REQUIRE(client.ok());
    for (int i = 0; i < 3; ++i) {
      const auto reply = (*client)->ask({{"command", "status"}, {"number", i}});
      REQUIRE(reply.ok());
      CHECK((*reply)["echo"]["number"] == i);
    }
    const auto refused = (*client)->ask("not an object");
    REQUIRE(!refused.ok());
    CHECK(refused.error().message == "no object");
    CHECK(!(*client)->wait_for_end(0.01));
  }
  CHECK(!std::filesystem::exists(path + "/control.sock"));
  const auto gone = ControlClient::connect(RunFolder::existing(path));
  REQUIRE(!gone.ok());
  CHECK(gone.error().message.find("is not in progress") != std::string::npos);
}

TEST_CASE("a line without end and a crowd of peers cost the head nothing", "[control]") {
  TemporaryFolder folder;
  Echo head(folder.path());
  const auto connected = [&] {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    folder.path().copy(name.sun_path, sizeof name.sun_path - 14);
    strcat(name.sun_path, "/control.sock");
    REQUIRE(connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
    return fd;
  };
  const int endless = connected();
  const std::string text(ControlServer::kLineBytesMax + 1, 'x');
  send(endless, text.data(), text.size(), MSG_NOSIGNAL);
  char byte = 0;
  CHECK(read(endless, &byte, 1) <= 0);  // turned away
  close(endless);
  std::vector<int> crowd;
  for (int i = 0; i < ControlServer::kPeersMax; ++i) crowd.push_back(connected());
  for (const int fd : crowd) {
    send(fd, "{}\n", 3, MSG_NOSIGNAL);
    REQUIRE(read(fd, &byte, 1) == 1);
  }
  const int one_too_many = connected();
  CHECK(read(one_too_many, &byte, 1) <= 0);
  close(one_too_many);
  for (const int fd : crowd) close(fd);
}
