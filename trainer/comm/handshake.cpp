#include "trainer/comm/handshake.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <c10/util/Exception.h>

namespace mds::trainer {

Digest sha256(const std::string& text) {
  Digest digest;
  unsigned int length = 0;
  TORCH_CHECK(EVP_Digest(text.data(), text.size(), digest.data(), &length, EVP_sha256(), nullptr) == 1 &&
                  length == digest.size(),
              "SHA-256 is not available");
  return digest;
}

std::array<unsigned char, 32> random_bytes() {
  std::array<unsigned char, 32> bytes;
  TORCH_CHECK(RAND_bytes(bytes.data(), bytes.size()) == 1, "the random number generator is not available");
  return bytes;
}

Handshake::Handshake(Fd socket, const Secret& secret, bool connector)
    : socket_(std::move(socket)), secret_(secret), connector_(connector) {}

Handshake Handshake::connecting(Fd socket, const Secret& secret, const Digest& group, int from, int to) {
  Handshake handshake(std::move(socket), secret, true);
  handshake.expect_ = Expect::reply;
  handshake.hello_.group = group;
  handshake.hello_.from = static_cast<uint32_t>(from);
  handshake.hello_.to = static_cast<uint32_t>(to);
  handshake.hello_.nonce = random_bytes();
  if (!handshake.send_all(&handshake.hello_, sizeof(Hello))) handshake.state_ = State::lost;
  return handshake;
}

Handshake Handshake::accepting(Fd socket, const Secret& secret) { return Handshake(std::move(socket), secret, false); }

Handshake::State Handshake::advance() {
  while (state_ == State::in_progress) {
    const size_t wanted = expect_ == Expect::hello ? sizeof(Hello) : expect_ == Expect::reply ? sizeof(Reply)
                                                                                              : sizeof(Digest);
    const ssize_t got = ::recv(socket_.get(), buffer_.data() + received_, wanted - received_, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    // An acceptor that refuses us closes the connection.
    if (got <= 0) return state_ = State::lost;
    received_ += static_cast<size_t>(got);
    if (received_ < wanted) continue;
    received_ = 0;
    switch (expect_) {
      case Expect::hello: state_ = take_hello(); break;
      case Expect::reply: state_ = take_reply(); break;
      case Expect::proof: state_ = take_proof(); break;
    }
  }
  return state_;
}

Handshake::State Handshake::take_hello() {
  const Hello expected;
  std::memcpy(&hello_, buffer_.data(), sizeof(Hello));
  if (hello_.magic != expected.magic) return State::refused;
  reply_.nonce = random_bytes();
  reply_.mac = mac("accept", reply_.nonce);
  expect_ = Expect::proof;
  return send_all(&reply_, sizeof(Reply)) ? State::in_progress : State::lost;
}

Handshake::State Handshake::take_reply() {
  std::memcpy(&reply_, buffer_.data(), sizeof(Reply));
  const Digest expected = mac("accept", reply_.nonce);
  if (CRYPTO_memcmp(expected.data(), reply_.mac.data(), expected.size()) != 0) return State::refused;
  const Digest proof = mac("connect", reply_.nonce);
  return send_all(proof.data(), proof.size()) ? State::done : State::lost;
}

Handshake::State Handshake::take_proof() {
  const Digest expected = mac("connect", reply_.nonce);
  return CRYPTO_memcmp(expected.data(), buffer_.data(), expected.size()) == 0 ? State::done : State::refused;
}

Digest Handshake::mac(const char* label, const std::array<unsigned char, 32>& nonce) const {
  std::string text = label;
  text.append(reinterpret_cast<const char*>(&hello_), sizeof(Hello));
  text.append(reinterpret_cast<const char*>(nonce.data()), nonce.size());
  Digest digest;
  unsigned int length = 0;
  TORCH_CHECK(HMAC(EVP_sha256(), secret_.data(), secret_.size(), reinterpret_cast<const unsigned char*>(text.data()),
                   text.size(), digest.data(), &length) != nullptr,
              "HMAC-SHA256 is not available");
  return digest;
}

/// The few bytes of a handshake always fit into a fresh socket's buffer, so a partial send means a broken peer.
bool Handshake::send_all(const void* data, size_t bytes) {
  const ssize_t sent = ::send(socket_.get(), data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent == static_cast<ssize_t>(bytes);
}

}  // namespace mds::trainer
