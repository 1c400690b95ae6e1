#include <arpa/inet.h>
#include <sys/socket.h>

#include <atomic>

#include <ATen/ATen.h>

#include "tests/trainer/engine/local_control.hpp"
#include "tests/trainer/engine/threads.hpp"
#include "trainer/comm/connect.hpp"
#include "trainer/comm/cpu.hpp"

#include "tests/catch.hpp"   // last: c10 defines CHECK, too

namespace mds::trainer {
namespace {

std::vector<GroupMembers> groups_of(int rank) {
  return {{"world", {0, 1, 2, 3}},
          rank % 2 ? GroupMembers{"odd", {1, 3}} : GroupMembers{"even", {2, 0}}};   // any order of ranks will do
}

int connect_loopback(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
  return fd;
}

}  // namespace

TEST_CASE("groups connect over TCP, past strangers, and work", "[comm]") {
  LocalExchange exchange;
  std::vector<Fd> strangers(3);
  std::vector<int64_t> sums(4), pairs(4);
  run_ranks(4, [&](int rank) {
    LocalControl control(exchange);
    if (rank == 3) {
      // A scanner that says nothing, one that says nonsense and one that leaves, before rank 3 calls.
      control.tamper = [&](const std::string&, std::vector<std::string>& values) {
        const int port = nlohmann::json::parse(values[0])["port"];
        for (Fd& stranger : strangers) stranger = Fd(connect_loopback(port));
        const std::string nonsense(4096, 'x');
        (void)::send(strangers[1].get(), nonsense.data(), nonsense.size(), MSG_NOSIGNAL);
        strangers[2].reset();
      };
    }
    auto sockets = connect_groups(groups_of(rank), rank, 4, control, {});
    if (!sockets) throw std::runtime_error(sockets.error().message);
    const auto groups = groups_of(rank);
    auto world = make_cpu_communicator("world", rank, std::move((*sockets)[0]));
    const int own = groups[1].ranks[0] == rank ? 0 : 1;
    auto pair = make_cpu_communicator(groups[1].name, own, std::move((*sockets)[1]));
    at::Tensor value = at::full({100'000}, rank + 1, at::kLong), other = value.clone();
    world->all_reduce(value);
    pair->all_reduce(other);
    sums[rank] = value[99'999].item<int64_t>();
    pairs[rank] = other[5].item<int64_t>();
  });
  for (int rank = 0; rank < 4; ++rank) {
    CHECK(sums[rank] == 10);
    CHECK(pairs[rank] == (rank % 2 ? 6 : 4));
  }
}

TEST_CASE("a peer with another secret is refused", "[comm]") {
  LocalExchange exchange;
  std::vector<Error> errors(2);
  run_ranks(2, [&](int rank) {
    LocalControl control(exchange);
    if (rank == 1) {
      control.tamper = [](const std::string&, std::vector<std::string>& values) {
        auto first = nlohmann::json::parse(values[0]);
        std::string secret = first["secret"];
        secret[7] = secret[7] == 'a' ? 'b' : 'a';
        first["secret"] = secret;
        values[0] = first.dump();
      };
    }
    auto sockets = connect_groups({{"world", {0, 1}}}, rank, 2, control, {"127.0.0.1", std::chrono::milliseconds(500)});
    if (sockets) throw std::runtime_error("connected with different secrets");
    errors[rank] = sockets.error();
  });
  CHECK(errors[1].code == ErrorCode::denied);
  CHECK(errors[1].message.find("rank 0") != std::string::npos);
  CHECK(errors[0].code == ErrorCode::unavailable);
  CHECK(errors[0].message.find("rank 1") != std::string::npos);
}

TEST_CASE("an address that is not ours is bad input", "[comm]") {
  LocalExchange exchange;
  LocalControl control(exchange);
  const auto sockets = connect_groups({{"world", {0}}}, 0, 1, control, {"192.0.2.1"});
  REQUIRE(!sockets);
  CHECK(sockets.error().code == ErrorCode::bad_input);
  CHECK(sockets.error().message.find("MDS_HOST_ADDRESS") != std::string::npos);
}

}  // namespace mds::trainer
