#include "agent/secure_channel.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <random>

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include "agent/bootstrap.hpp"
#include "agent/frame.hpp"
#include "agent/handshake.hpp"
#include "tests/agent/random_seed.hpp"
#include "tests/catch.hpp"

using namespace mds;
using namespace mds::agent;
using namespace std::chrono_literals;
namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

/// A listener with what it accepted and what came.
struct Server {
  explicit Server(const ListenerOptions& options = {}, const Credentials& c = *make_credentials()) : credentials(c) {
    auto opened = Listener::open(io, options, credentials, [this](std::shared_ptr<Channel> channel) {
      channels.push_back(channel);
      channel->start([this](Message message) { messages.push_back(std::move(message)); },
                     [this](Status status) { ends.push_back(status); });
    });
    REQUIRE(opened.ok());
    listener = *std::move(opened);
  }
  ~Server() {
    for (const auto& channel : channels) channel->abort();
  }

  std::shared_ptr<Channel> connect() {
    std::shared_ptr<Channel> client;
    Channel::connect(io, "127.0.0.1", listener->port(), credentials, {}, [&](Result<std::shared_ptr<Channel>> result) {
      INFO((result ? "" : result.error().message));
      REQUIRE(result.ok());
      client = *result;
    });
    const size_t before = channels.size();
    run_until([&] { return client && channels.size() > before; });
    return client;
  }

  Error connect_error(const Credentials& other) {
    std::optional<Error> error;
    Channel::connect(io, "127.0.0.1", listener->port(), other, {}, [&](Result<std::shared_ptr<Channel>> result) {
      REQUIRE_FALSE(result.ok());
      error = result.error();
    });
    run_until([&] { return error.has_value(); });
    return *error;
  }

  tcp::socket raw_socket() {
    tcp::socket socket(io);
    socket.connect({asio::ip::address_v4::loopback(), listener->port()});
    return socket;
  }

  template <typename Done>
  void run_until(Done done) {
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (!done()) {
      REQUIRE(std::chrono::steady_clock::now() < deadline);
      io.restart();
      io.run_one_for(10ms);
    }
  }

  asio::io_context io;
  Credentials credentials;
  std::unique_ptr<Listener> listener;
  std::vector<std::shared_ptr<Channel>> channels;
  std::vector<Message> messages;
  std::vector<Status> ends;
};

/// Reads until the other side ends the connection.
bool ends_by_peer(Server& server, tcp::socket& socket) {
  bool ended = false;
  std::string sink;
  asio::async_read(socket, asio::dynamic_buffer(sink), [&](boost::system::error_code, size_t) { ended = true; });
  server.run_until([&] { return ended; });
  return ended;
}

}  // namespace

TEST_CASE("messages pass both ways, in order, with job, attempt and sequence", "[channel]") {
  Server server;
  const auto client = server.connect();
  // Listener, both ends: no child of ours may hold them open.
  for (int fd = 3; fd < 64; ++fd) {
    int type = 0;
    socklen_t length = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0) CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
  }
  std::vector<Message> answers;
  bool closed = false;
  client->start([&](Message message) { answers.push_back(std::move(message)); }, [&](Status status) {
    CHECK(status.ok());
    closed = true;
  });
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  size_t bytes = 0;
  for (int i = 0; i < 300; ++i) {
    std::vector<uint8_t> value(random() % 100'000, static_cast<uint8_t>(i));
    bytes += value.size();
    REQUIRE(client->send(MessageType::exchange_put, 9, {{"i", i}, {"value", nlohmann::json::binary(value)}}).ok());
  }
  CHECK(client->queued_bytes() >= bytes);
  REQUIRE(server.channels[0]->send(MessageType::stop_ranks, 2, {{"grace_ms", 5}}).ok());
  client->close();  // all that was queued still arrives
  CHECK_FALSE(client->send(MessageType::output, 9).ok());
  server.run_until([&] { return server.ends.size() == 1 && closed; });
  REQUIRE(server.messages.size() == 300);
  for (int i = 0; i < 300; ++i) {
    CHECK(server.messages[i].body["i"] == i);
    CHECK(server.messages[i].job == server.credentials.job);
    CHECK(server.messages[i].attempt == 9);
    CHECK(server.messages[i].sequence == static_cast<uint64_t>(i + 1));
  }
  CHECK_FALSE(server.ends[0].ok());
  CHECK(answers.empty());  // a closed side hears no more
}

TEST_CASE("a wrong key, a wrong job and a certificate-minded client are refused", "[channel]") {
  Server server;
  Credentials wrong_key = server.credentials;
  wrong_key.key = *JobKey::random();
  const Error key_error = server.connect_error(wrong_key);
  CHECK(key_error.code == ErrorCode::denied);
  Credentials wrong_job = server.credentials;
  ++wrong_job.job;
  const Error job_error = server.connect_error(wrong_job);
  CHECK(job_error.code == ErrorCode::denied);
  server.run_until([&] { return server.listener->refused_count() == 2; });

  asio::ssl::context context(asio::ssl::context::tls_client);
  asio::ssl::stream<tcp::socket> plain_tls(server.raw_socket(), context);
  std::optional<boost::system::error_code> result;
  plain_tls.async_handshake(asio::ssl::stream_base::client, [&](boost::system::error_code e) { result = e; });
  server.run_until([&] { return result.has_value() && server.listener->refused_count() == 3; });
  CHECK(*result);
  CHECK(server.channels.empty());
}

TEST_CASE("a client refuses a server that does not hold the key", "[channel]") {
  Server honest;
  Server impostor({}, {honest.credentials.job, *JobKey::random()});
  CHECK(impostor.connect_error(honest.credentials).code == ErrorCode::denied);
}

TEST_CASE("plain bytes are refused and never reach the decoder", "[channel]") {
  Server server;
  tcp::socket http = server.raw_socket();
  asio::write(http, asio::buffer(std::string("GET / HTTP/1.1\r\n\r\n")));
  CHECK(ends_by_peer(server, http));
  tcp::socket frames = server.raw_socket();  // right job, right frame, but no handshake
  std::string frame;
  REQUIRE(encode_frame({MessageType::hello, server.credentials.job, 0, 1, {{"node", 0}}}, 1000, frame).ok());
  asio::write(frames, asio::buffer(frame));
  CHECK(ends_by_peer(server, frames));
  CHECK(server.listener->refused_count() == 2);
  CHECK(server.channels.empty());
  CHECK(server.messages.empty());
}

TEST_CASE("a silent client is dropped when its time is over", "[channel]") {
  ListenerOptions options;
  options.channel.handshake_timeout = 150ms;
  Server server(options);
  tcp::socket silent = server.raw_socket();
  CHECK(ends_by_peer(server, silent));
  CHECK(server.listener->refused_count() == 1);
}

TEST_CASE("silent strangers are capped and do not keep an agent out", "[channel]") {
  ListenerOptions options;
  options.unauthenticated_max = 8;
  options.crowded_timeout = 100ms;
  Server server(options);
  std::vector<tcp::socket> strangers;
  for (int i = 0; i < 20; ++i) strangers.push_back(server.raw_socket());
  server.run_until([&] { return server.listener->unauthenticated_count() == 8; });
  server.connect();
  CHECK(server.listener->unauthenticated_count() <= 8);
  CHECK(server.listener->refused_count() >= 1);  // far below their handshake limit of 10 s
  CHECK(server.channels.size() == 1);
}

namespace {

/// Passes bytes between a client and the server, remembering what the client sent.
struct Recorder {
  explicit Recorder(Server& s)
      : server(s), acceptor(s.io, {asio::ip::address_v4::loopback(), 0}), client(s.io), upstream(s.raw_socket()) {
    acceptor.async_accept(client, [this](boost::system::error_code error) {
      REQUIRE_FALSE(error);
      pump(client, upstream, to_server, &sent);
      pump(upstream, client, to_client, &answered);
    });
  }

  void pump(tcp::socket& from, tcp::socket& to, std::array<char, 4096>& buffer, std::string* copy) {
    const auto pass = [this, &from, &to, &buffer, copy](boost::system::error_code error, size_t n) {
      if (error) return;
      if (copy) copy->append(buffer.data(), n);
      asio::write(to, asio::buffer(buffer.data(), n));
      pump(from, to, buffer, copy);
    };
    from.async_read_some(asio::buffer(buffer), pass);
  }

  Server& server;
  tcp::acceptor acceptor;
  tcp::socket client, upstream;
  std::array<char, 4096> to_server{}, to_client{};
  std::string sent, answered;
};

/// Bytes of the last TLS record in `bytes`.
std::string last_record(const std::string& bytes) {
  size_t at = 0, last = 0;
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<uint8_t>(bytes[i])); };
  for (; at + 5 <= bytes.size(); at += 5 + (byte(at + 3) << 8 | byte(at + 4))) last = at;
  return bytes.substr(last);
}

}  // namespace

TEST_CASE("recorded bytes are of no use a second time, nor made longer, shorter, changed or sent back", "[channel]") {
  Server server;
  Recorder recorder(server);
  std::shared_ptr<Channel> client;
  Channel::connect(server.io, "127.0.0.1", recorder.acceptor.local_endpoint().port(), server.credentials, {},
                   [&](Result<std::shared_ptr<Channel>> result) {
                     REQUIRE(result.ok());
                     client = *result;
                     REQUIRE(client->send(MessageType::hello, 1, {{"node", 0}}).ok());
                   });
  server.run_until([&] { return server.messages.size() == 1; });

  SECTION("in a connection of their own") {
    tcp::socket replay = server.raw_socket();
    asio::write(replay, asio::buffer(recorder.sent));
    CHECK(ends_by_peer(server, replay));
    CHECK(server.listener->refused_count() == 1);
    CHECK(server.channels.size() == 1);
  }
  SECTION("in the connection that they came from") {
    asio::write(recorder.upstream, asio::buffer(last_record(recorder.sent)));
    server.run_until([&] { return server.ends.size() == 1; });
    CHECK_FALSE(server.ends[0].ok());
  }
  SECTION("changed by one bit, in the connection that they came from") {
    std::string record = last_record(recorder.sent);
    record[record.size() / 2] = static_cast<char>(record[record.size() / 2] ^ 1);
    asio::write(recorder.upstream, asio::buffer(record));
    server.run_until([&] { return server.ends.size() == 1; });
    CHECK_FALSE(server.ends[0].ok());
  }
  SECTION("extended by a frame in plain text") {
    std::string frame;
    REQUIRE(encode_frame({MessageType::hello, server.credentials.job, 1, 2, {{"node", 1}}}, 1000, frame).ok());
    asio::write(recorder.upstream, asio::buffer(frame));
    server.run_until([&] { return server.ends.size() == 1; });
    CHECK_FALSE(server.ends[0].ok());
  }
  SECTION("extended by a record that only claims to be protected") {
    std::string record = {23, 3, 3, 0, 40};
    record.append(40, 'x');
    asio::write(recorder.upstream, asio::buffer(record));
    server.run_until([&] { return server.ends.size() == 1; });
    CHECK_FALSE(server.ends[0].ok());
  }
  SECTION("the server's own bytes, sent back to it: in a connection of their own") {
    REQUIRE(server.channels[0]->send(MessageType::goodbye, 0).ok());
    const size_t before = recorder.answered.size();
    server.run_until([&] { return recorder.answered.size() > before; });
    tcp::socket reflection = server.raw_socket();
    asio::write(reflection, asio::buffer(recorder.answered));
    CHECK(ends_by_peer(server, reflection));
    CHECK(server.channels.size() == 1);
  }
  SECTION("the server's own bytes, sent back to it: in the connection that they came from") {
    REQUIRE(server.channels[0]->send(MessageType::goodbye, 0).ok());
    const size_t before = recorder.answered.size();
    server.run_until([&] { return recorder.answered.size() > before; });
    asio::write(recorder.upstream, asio::buffer(last_record(recorder.answered)));
    server.run_until([&] { return server.ends.size() == 1; });
    CHECK_FALSE(server.ends[0].ok());
  }
  CHECK(server.messages.size() == 1);
  if (client) client->abort();
}

TEST_CASE("a peer with the key that breaks the protocol is cut off", "[channel]") {
  Server server;
  auto tls = make_tls_context(TlsRole::client, server.credentials);
  REQUIRE(tls.ok());
  TlsStream stream(server.raw_socket(), (*tls)->context);
  bool done = false;
  std::string frame;
  REQUIRE(encode_frame({MessageType::hello, server.credentials.job, 0, 1, {{"node", 0}}}, 1000, frame).ok());
  frame += frame;  // the same sequence twice
  stream.async_handshake(asio::ssl::stream_base::client, [&](boost::system::error_code error) {
    REQUIRE_FALSE(error);
    asio::async_write(stream, asio::buffer(frame), [&](boost::system::error_code, size_t) { done = true; });
  });
  server.run_until([&] { return done && server.ends.size() == 1; });
  CHECK(server.ends[0].error().code == ErrorCode::corrupt);
  CHECK(server.messages.size() == 1);
}

TEST_CASE("C5: a heartbeat overtakes megabytes of logs that the peer is slow to read", "[channel]") {
  Server server;
  std::shared_ptr<Channel> client;
  Channel::connect(server.io, "127.0.0.1", server.listener->port(), server.credentials, {},
                   [&](Result<std::shared_ptr<Channel>> result) { client = *result; });
  server.run_until([&] { return client != nullptr && server.channels.size() == 1; });
  client->start([](Message) {}, [](Status) {});
  const std::string line(64u << 10, 'x');
  constexpr int kLines = 1024;  // 64 MiB
  for (int i = 0; i < kLines; ++i) REQUIRE(client->send(MessageType::output, 1, {{"line", line}, {"i", i}}).ok());
  // Logs are on their way: what was sent before the heartbeat has filled the sockets' buffers.
  server.run_until([&] { return !server.messages.empty(); });
  const size_t before = server.messages.size();
  REQUIRE(client->send(MessageType::heartbeat, 1, nlohmann::json::object(), Priority::urgent).ok());
  const auto is_heartbeat = [](const Message& m) { return m.type == MessageType::heartbeat; };
  server.run_until([&] { return server.messages.size() == kLines + 1; });
  const auto at = std::find_if(server.messages.begin(), server.messages.end(), is_heartbeat);
  REQUIRE(at != server.messages.end());
  const auto overtaken_by = static_cast<size_t>(at - server.messages.begin()) - before;
  INFO("log messages that came before it although it was sent first: " << overtaken_by);
  CHECK(overtaken_by * line.size() < 8u << 20);  // of 64 MiB: one turn, and what the kernel holds
  server.messages.erase(at);
  for (size_t i = 0; i < server.messages.size(); ++i) {
    if (server.messages[i].body["i"] != i) FAIL("line " << i << " is out of order");
  }
}

TEST_CASE("a peer that does not read is given up when the queue is full", "[channel]") {
  Server server;
  ChannelOptions options;
  options.send_queue_bytes_max = 4u << 20;
  std::shared_ptr<Channel> client;
  Channel::connect(server.io, "127.0.0.1", server.listener->port(), server.credentials, options,
                   [&](Result<std::shared_ptr<Channel>> result) { client = *result; });
  server.run_until([&] { return client != nullptr; });
  std::optional<Status> end;
  client->start([](Message) {}, [&](Status status) { end = status; });
  const nlohmann::json body = {{"value", std::string(1u << 20, 'x')}};
  int sent = 0;
  while (client->send(MessageType::progress, 1, body).ok()) ++sent;  // the event loop does not run meanwhile
  CHECK(sent == 3);
  CHECK_FALSE(client->is_open());
  CHECK_FALSE(end.has_value());  // never from within a call
  server.run_until([&] { return end.has_value(); });
  CHECK(end->error().message.find("does not read") != std::string::npos);
}

TEST_CASE("nobody listens; a handler may drop its channel", "[channel]") {
  asio::io_context io;
  std::optional<Error> error;
  uint16_t free_port = 0;
  {
    tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    free_port = acceptor.local_endpoint().port();
  }
  Channel::connect(io, "127.0.0.1", free_port, *make_credentials(), {},
                   [&](Result<std::shared_ptr<Channel>> result) { error = result.error(); });
  CHECK_FALSE(error.has_value());
  io.run();
  REQUIRE(error.has_value());
  CHECK(error->code == ErrorCode::denied);  // to try again is useless

  Server server;
  auto client = server.connect();
  client->start([&](Message) { client.reset(); }, [](Status) {});
  REQUIRE(server.channels[0]->send(MessageType::goodbye, 0).ok());
  server.run_until([&] { return !client; });
}

TEST_CASE("bootstrap lines and credentials survive their journey; faults are told without the secret", "[channel]") {
  const Bootstrap bootstrap{"::1", 4711, *make_credentials(), 12, "/run/folder", true};
  const std::string line = to_line(bootstrap);
  const auto back = bootstrap_from_line(line);
  REQUIRE(back.ok());
  CHECK(to_line(*back) == line);
  CHECK(back->credentials.key.bytes() == bootstrap.credentials.key.bytes());
  CHECK(std::count(line.begin(), line.end(), '\n') == 1);
  CHECK_FALSE(job_from_hex("0123").ok());
  CHECK(*job_from_hex(job_to_hex(0xfedcba9876543210)) == 0xfedcba9876543210);
  nlohmann::json object = nlohmann::json::parse(line);
  for (const auto& [name, value] : object.items()) {
    if (name == "discover") continue;
    nlohmann::json broken = object;
    broken[name] = name == "key" ? nlohmann::json("00ff-secret") : nlohmann::json(-1);
    const auto result = bootstrap_from_line(broken.dump());
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().message.find(name) != std::string::npos);
    CHECK(result.error().message.find("secret") == std::string::npos);
  }
}
