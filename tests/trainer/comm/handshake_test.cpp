#include <sys/socket.h>

#include <cstring>
#include <string>
#include <utility>

#include "trainer/comm/handshake.hpp"

#include "tests/catch.hpp"   // last: c10 defines CHECK, too

namespace mds::trainer {
namespace {

using State = Handshake::State;

std::pair<Fd, Fd> connected() {
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  return {Fd(pair[0]), Fd(pair[1])};
}

void send_bytes(const Fd& fd, const void* data, size_t bytes) {
  REQUIRE(::send(fd.get(), data, bytes, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes));
}

}  // namespace

TEST_CASE("both ends prove that they know the secret", "[comm]") {
  const Secret secret = random_bytes();
  auto [a, b] = connected();
  Handshake caller = Handshake::connecting(std::move(a), secret, sha256("tensor:0,1"), 1, 0);
  Handshake called = Handshake::accepting(std::move(b), secret);
  CHECK(called.advance() == State::in_progress);
  CHECK(caller.advance() == State::done);
  CHECK(called.advance() == State::done);
  CHECK(called.hello().from == 1);
  CHECK(called.hello().to == 0);
  CHECK(called.hello().group == sha256("tensor:0,1"));
}

TEST_CASE("an acceptor refuses a wrong proof, a replayed one and another protocol", "[comm]") {
  const Secret secret = random_bytes();
  SECTION("wrong proof") {
    auto [stranger, b] = connected();
    Handshake called = Handshake::accepting(std::move(b), secret);
    const Hello hello;
    send_bytes(stranger, &hello, sizeof hello);
    CHECK(called.advance() == State::in_progress);
    const Digest proof = random_bytes();
    send_bytes(stranger, proof.data(), proof.size());
    CHECK(called.advance() == State::refused);
  }
  SECTION("what a rank once sent, sent again") {
    auto [a, listener] = connected();
    Handshake caller = Handshake::connecting(std::move(a), secret, sha256("world"), 1, 0);
    char recorded[sizeof(Hello) + sizeof(Digest)];
    REQUIRE(::recv(listener.get(), recorded, sizeof(Hello), MSG_WAITALL) == sizeof(Hello));
    auto [relay, b] = connected();
    Handshake called = Handshake::accepting(std::move(b), secret);
    send_bytes(relay, recorded, sizeof(Hello));
    CHECK(called.advance() == State::in_progress);
    char reply[64];
    REQUIRE(::recv(relay.get(), reply, sizeof reply, MSG_WAITALL) == sizeof reply);
    send_bytes(listener, reply, sizeof reply);
    CHECK(caller.advance() == State::done);
    REQUIRE(::recv(listener.get(), recorded + sizeof(Hello), sizeof(Digest), MSG_WAITALL) == sizeof(Digest));
    auto [replay, c] = connected();
    Handshake fresh = Handshake::accepting(std::move(c), secret);
    send_bytes(replay, recorded, sizeof recorded);
    CHECK(fresh.advance() == State::refused);
  }
  SECTION("another protocol, and one that leaves") {
    auto [stranger, b] = connected();
    Handshake called = Handshake::accepting(std::move(b), secret);
    const std::string request = "GET / HTTP/1.1\r\nHost: " + std::string(100, 'x');
    send_bytes(stranger, request.data(), request.size());
    CHECK(called.advance() == State::refused);
    auto [leaver, c] = connected();
    Handshake left = Handshake::accepting(std::move(c), secret);
    send_bytes(leaver, "MDSPEER1", 8);
    CHECK(left.advance() == State::in_progress);
    leaver.reset();
    CHECK(left.advance() == State::lost);
  }
}

TEST_CASE("a connector refuses an acceptor that does not know the secret", "[comm]") {
  auto [a, b] = connected();
  Handshake caller = Handshake::connecting(std::move(a), random_bytes(), sha256("world"), 1, 0);
  Handshake called = Handshake::accepting(std::move(b), random_bytes());
  CHECK(called.advance() == State::in_progress);
  CHECK(caller.advance() == State::refused);
}

}  // namespace mds::trainer
