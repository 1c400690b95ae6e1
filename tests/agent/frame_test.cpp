#include "agent/frame.hpp"

#include <random>

#include "agent/utf8.hpp"
#include "tests/agent/random_seed.hpp"
#include "tests/catch.hpp"

using namespace mds;
using namespace mds::agent;
using nlohmann::json;

namespace {

constexpr uint64_t kJob = 0x0123456789abcdef;
constexpr uint32_t kBytesMax = 1u << 20;

std::span<const uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string frame_of(const json& body, uint64_t sequence = 1, MessageType type = MessageType::progress,
                     uint64_t job = kJob) {
  std::string frame;
  REQUIRE(encode_frame({type, job, 3, sequence, body}, kBytesMax, frame).ok());
  return frame;
}

/// A frame around bytes that no encoder makes.
std::string frame_around(const std::string& body) {
  std::string frame = frame_of(json::object());
  frame.resize(kFrameHeaderBytes);
  for (int i = 0; i < 4; ++i) frame[8 + i] = static_cast<char>(body.size() >> (8 * i));
  return frame + body;
}

std::string error_of(const std::string& stream) {
  FrameDecoder decoder(kJob, kBytesMax);
  decoder.feed(bytes_of(stream));
  while (true) {
    auto message = decoder.next();
    if (!message) return message.error().message;
    if (!*message) return "";
  }
}

json random_value(std::mt19937_64& random, int depth) {
  switch (random() % (depth > 0 ? 9 : 7)) {
    case 0: return nullptr;
    case 1: return random() % 2 == 0;
    case 2: return static_cast<int64_t>(random());
    case 3: return random();
    case 4: return std::uniform_real_distribution<double>(-1e30, 1e30)(random);
    case 5: return std::string(random() % 300, static_cast<char>('a' + random() % 26)) + "\xc3\xa4\xf0\x9f\x8c\x8d";
    case 6: {
      std::vector<uint8_t> value(random() % 300);
      for (uint8_t& byte : value) byte = static_cast<uint8_t>(random());
      return json::binary(value);
    }
    case 7: {
      json list = json::array();
      for (size_t i = random() % 5; i > 0; --i) list.push_back(random_value(random, depth - 1));
      return list;
    }
    default: {
      json object = json::object();
      for (size_t i = random() % 5; i > 0; --i) object[std::to_string(random())] = random_value(random, depth - 1);
      return object;
    }
  }
}

json random_body(std::mt19937_64& random) {
  json body = json::object();
  for (size_t i = random() % 6; i > 0; --i) body["key" + std::to_string(i)] = random_value(random, 4);
  return body;
}

}  // namespace

TEST_CASE("frames come out as they went in, however the stream is cut", "[frame]") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  std::string stream;
  std::vector<Message> sent;
  for (uint64_t i = 1; i <= 200; ++i) {
    Message message{MessageType::exchange_put, kJob, static_cast<uint32_t>(random()), i, random_body(random)};
    REQUIRE(encode_frame(message, kBytesMax, stream).ok());
    sent.push_back(std::move(message));
  }
  FrameDecoder decoder(kJob, kBytesMax);
  size_t received = 0;
  for (size_t at = 0; at < stream.size();) {
    const size_t piece = std::min<size_t>(stream.size() - at, 1 + random() % 700);
    decoder.feed(bytes_of(stream).subspan(at, piece));
    at += piece;
    while (true) {
      auto message = decoder.next();
      REQUIRE(message.ok());
      if (!*message) break;
      REQUIRE(received < sent.size());
      CHECK((*message)->type == sent[received].type);
      CHECK((*message)->attempt == sent[received].attempt);
      CHECK((*message)->body == sent[received].body);
      ++received;
    }
  }
  CHECK(received == sent.size());
  CHECK(decoder.buffered_bytes() == 0);
}

TEST_CASE("every breach of the header ends the stream with its reason", "[frame]") {
  const json body = {{"step", 7}};
  CHECK(error_of(frame_of(body)) == "");
  CHECK(error_of("GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n").find("bad magic") != std::string::npos);
  CHECK(error_of(frame_of(body, 1, MessageType::progress, kJob + 1)).find("another job") != std::string::npos);
  CHECK(error_of(frame_of(body, 2)).find("sequence 2") != std::string::npos);
  CHECK(error_of(frame_of(body, 1) + frame_of(body, 1)).find("frame 2: sequence 1") != std::string::npos);
  CHECK(error_of(frame_of(body, 1) + frame_of(body, 3)).find("frame 2: sequence 3") != std::string::npos);
  CHECK(error_of(frame_of(body, 1, static_cast<MessageType>(999))).find("unknown type 999") != std::string::npos);
  std::string version = frame_of(body);
  version[4] = 9;
  CHECK(error_of(version).find("protocol version 9") != std::string::npos);
  std::string huge = frame_of(body);
  huge[11] = '\x7f';
  CHECK(error_of(huge.substr(0, kFrameHeaderBytes)).find("beyond the limit") != std::string::npos);
}

TEST_CASE("an error is final", "[frame]") {
  FrameDecoder decoder(kJob, kBytesMax);
  decoder.feed(bytes_of(frame_of(json::object(), 5)));
  REQUIRE_FALSE(decoder.next().ok());
  decoder.feed(bytes_of(frame_of(json::object(), 1)));
  CHECK_FALSE(decoder.next().ok());
  CHECK(decoder.buffered_bytes() == 0);
}

TEST_CASE("a body that no encoder makes is refused before it is built", "[frame]") {
  using namespace std::string_literals;
  const auto refused = [](const std::string& body) {
    return !is_well_formed_body(bytes_of(body)) && error_of(frame_around(body)).find("malformed") != std::string::npos;
  };
  CHECK(refused(""));
  CHECK(refused("\x01"));                                            // no map
  CHECK(refused("\xa1"));                                            // a map without its entry
  CHECK(refused("\xa1\x61k"));                                       // a key without its value
  CHECK(refused("\xa1\x01\x01"));                                    // a key that is no text
  CHECK(refused("\xa0\xa0"));                                        // something behind the map
  CHECK(refused("\xbf\xff"));                                        // indefinite length
  CHECK(refused("\xa1\x61k\x5f\x41x\xff"));                          // bytes in chunks
  CHECK(refused("\xa1\x61k\xc1\x01"));                               // a tag
  CHECK(refused("\xa1\x61k\xf7"));                                   // undefined
  CHECK(refused("\xa1\x61k\x62\xc3\x28"));                           // text that is not UTF-8
  CHECK(refused("\xa1\x61k\x63\xed\xa0\x80"));                       // a surrogate
  CHECK(refused("\xa1\x61k\x9b\xff\xff\xff\xff\xff\xff\xff\xff"));   // an array of 2^64-1
  CHECK(refused("\xbb\x80\x00\x00\x00\x00\x00\x00\x00"s));           // a map of 2^63
  CHECK(refused("\xa1\x61k\x5b\x7f\xff\xff\xff\xff\xff\xff\xff"));   // a byte string of 2^63-1
  CHECK(refused("\xa1\x61k\x3b\xff\xff\xff\xff\xff\xff\xff\xff"));   // -2^64
  CHECK(refused("\xa1\x61k" + std::string(100'000, '\x81') + "\x01"));  // nested beyond any stack
}

TEST_CASE("nesting is allowed to its limit, in sending as in receiving", "[frame]") {
  json value = 1;
  for (int depth = 1; depth < kFrameDepthMax; ++depth) value = json::array({value});
  CHECK(error_of(frame_of({{"k", value}})) == "");
  std::string frame;
  const Message deeper{MessageType::progress, kJob, 0, 1, {{"k", json::array({value})}}};
  CHECK_FALSE(encode_frame(deeper, kBytesMax, frame).ok());
  CHECK(frame.empty());
  const Message longer{MessageType::progress, kJob, 0, 1, {{"k", std::string(2000, 'x')}}};
  CHECK_FALSE(encode_frame(longer, 1000, frame).ok());
  const Message invalid{MessageType::progress, kJob, 0, 1, {{"k", "\xff"}}};
  CHECK_FALSE(encode_frame(invalid, kBytesMax, frame).ok());
}

TEST_CASE("hostile bytes give messages or one error, never more", "[frame]") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 3000; ++round) {
    std::string stream;
    for (uint64_t i = 1; i <= 3; ++i) stream += frame_of(random_body(random), i);
    // Flip, cut, repeat, or replace all of it.
    for (size_t i = random() % 8; i > 0 && !stream.empty(); --i) {
      const size_t at = random() % stream.size();
      switch (random() % 4) {
        case 0: stream[at] = static_cast<char>(random()); break;
        case 1: stream.erase(at, random() % 40); break;
        case 2: stream.insert(at, stream.substr(random() % stream.size(), random() % 40)); break;
        default: stream.resize(at); break;
      }
    }
    if (round % 10 == 0) {
      for (char& byte : stream) byte = static_cast<char>(random());
    }
    FrameDecoder decoder(kJob, kBytesMax);
    decoder.feed(bytes_of(stream));
    for (int i = 0; i < 4; ++i) {
      auto message = decoder.next();
      if (!message || !*message) break;
      REQUIRE_FALSE((*message)->body.dump().empty());  // dump() throws on text that is not UTF-8
    }
    is_well_formed_body(bytes_of(stream).subspan(std::min<size_t>(stream.size(), kFrameHeaderBytes)));
  }
}

TEST_CASE("a start message survives its journey, and a wrong one is told by its field", "[frame]") {
  NodeStart start;
  start.attempt = 4;
  start.tail_lines = 7;
  start.heartbeat_ms = 250;
  start.forward_output = false;
  RankSpec spec{3, 1, {"prog", "-x", ""}, {{"A", "1"}, {"EMPTY", ""}}, "/tmp", {0, 5}, {1}, "/tmp/log"};
  start.ranks.push_back(spec);
  const json object = to_json(start);
  const auto back = node_start_from_json(json::from_cbor(json::to_cbor(object)));
  REQUIRE(back.ok());
  CHECK(to_json(*back) == object);

  start.env = {{"A", "0"}, {"B", "2"}};
  start.ranks.push_back({4, 2, {"prog"}, {{"C", "3"}, {"EMPTY", ""}}, "/tmp", {}, {}, ""});
  const auto both = node_start_from_json(to_json(start));
  REQUIRE(both.ok());
  CHECK(both->ranks[0].env == std::map<std::string, std::string>{{"A", "1"}, {"B", "2"}, {"EMPTY", ""}});
  CHECK(both->ranks[1].env == std::map<std::string, std::string>{{"A", "0"}, {"B", "2"}, {"C", "3"}, {"EMPTY", ""}});

  const auto fault = [&](const json::json_pointer& where, const json& value) {
    json broken = object;
    broken[where] = value;
    const auto result = node_start_from_json(broken);
    return result ? std::string() : result.error().message;
  };
  using pointer = json::json_pointer;
  CHECK(fault(pointer("/ranks/0/argv"), json::array()).find("ranks[0]: argv") != std::string::npos);
  CHECK(fault(pointer("/ranks/0/argv"), json::array({std::string("a\0b", 3)})).find("argv") != std::string::npos);
  CHECK(fault(pointer("/ranks/0/env"), {{"A=B", "1"}}).find("env") != std::string::npos);
  CHECK(fault(pointer("/ranks/0/env"), {{"A", 1}}).find("env") != std::string::npos);
  CHECK(fault(pointer("/ranks/0/cpus"), json::array({-1})).find("cpus") != std::string::npos);
  CHECK(fault(pointer("/ranks/0/rank"), 1e300).find("rank") != std::string::npos);
  CHECK(fault(pointer("/ranks/0/rank"), uint64_t(1) << 63).find("rank") != std::string::npos);
  CHECK(fault(pointer("/ranks/1"), object["ranks"][0]).find("twice") != std::string::npos);
  CHECK(fault(pointer("/attempt"), -1).find("attempt") != std::string::npos);
  CHECK(fault(pointer("/heartbeat_ms"), 0).find("heartbeat_ms") != std::string::npos);
  CHECK(fault(pointer("/ranks"), nullptr).find("ranks") != std::string::npos);
  CHECK_FALSE(node_start_from_json(json::array()).ok());
}
