#include "agent/rank_output.hpp"

#include <unistd.h>

#include <fstream>
#include <random>
#include <sstream>

#include <boost/asio/io_context.hpp>

#include "agent/utf8.hpp"
#include "tests/agent/random_seed.hpp"
#include "tests/agent/temporary_folder.hpp"
#include "tests/catch.hpp"

using namespace mds::agent;

namespace {

struct Pipe {
  Pipe() {
    int fds[2];
    REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    read = UniqueFd(fds[0]);
    write = UniqueFd(fds[1]);
  }
  void say(const std::string& text) const {
    REQUIRE(::write(write.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  UniqueFd read, write;
};

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream out;
  out << file.rdbuf();
  return out.str();
}

}  // namespace

TEST_CASE("lines are the same however the stream is cut", "[output]") {
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const size_t lengths[] = {0, 1, 80, kLineBytesMax - 1, kLineBytesMax, kLineBytesMax + 1, 3 * kLineBytesMax + 5};
  std::string stream;
  std::vector<std::string> expected, got;
  for (int i = 0; i < 40; ++i) {
    const std::string line(lengths[random() % std::size(lengths)], static_cast<char>('a' + i % 26));
    stream += line + (i % 3 ? "\n" : "\r\n");
    for (size_t at = 0; at == 0 || at < line.size(); at += kLineBytesMax) {
      expected.push_back(line.substr(at, kLineBytesMax));
    }
    // The '\r' of a line that is cut right before it stands alone and vanishes with its own end.
    if (i % 3 == 0 && !line.empty() && line.size() % kLineBytesMax == 0) expected.push_back("");
  }
  stream += "no end";
  expected.push_back("no end");
  LineSplitter splitter;
  const auto take = [&](std::string_view line) { got.emplace_back(line); };
  for (size_t at = 0; at < stream.size();) {
    const size_t piece = std::min<size_t>(stream.size() - at, 1 + random() % 100'000);
    splitter.feed(std::string_view(stream).substr(at, piece), take);
    at += piece;
  }
  splitter.flush(take);
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) REQUIRE(got[i] == expected[i]);
}

TEST_CASE("bytes that are no UTF-8 become replacement characters", "[output]") {
  CHECK(to_utf8("plain \xc3\xa4") == "plain \xc3\xa4");
  CHECK(to_utf8("\xff\x41\xc3") == "\xef\xbf\xbd\x41\xef\xbf\xbd");
  const uint64_t seed = fresh_seed();
  INFO("MDS_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 200; ++i) {
    std::string text(random() % 100, ' ');
    for (char& byte : text) byte = static_cast<char>(random());
    REQUIRE(is_utf8(to_utf8(text)));
  }
}

TEST_CASE("both streams reach log, tail and head; partial lines are ended by drain", "[output]") {
  boost::asio::io_context io;
  TemporaryFolder folder;
  Pipe out, err;
  int pending = 0;
  RankOutput output(io.get_executor(), std::move(out.read), std::move(err.read),
                    {.log_path = folder.path() + "/log", .tail_lines = 2, .forward = true}, [&] { ++pending; },
                    [](const std::string& fault) { FAIL(fault); });
  out.say("one\ntwo\nhal");
  io.run_one();
  CHECK(pending == 1);
  CHECK(output.take(1000).lines == std::vector<std::string>{"one", "two"});
  err.say("trouble \xff\n");
  out.say("f");
  output.drain();  // both writers are still open
  CHECK(output.take(1000).lines == std::vector<std::string>{"half", "trouble \xef\xbf\xbd"});
  CHECK(output.tail() == std::vector<std::string>{"half", "trouble \xef\xbf\xbd"});
  CHECK(content_of(folder.path() + "/log") == "one\ntwo\nhalf\ntrouble \xff\n");
}

TEST_CASE("what the head does not take is dropped and counted, and is in the log all the same", "[output]") {
  boost::asio::io_context io;
  TemporaryFolder folder;
  Pipe out, err;
  RankOutput output(io.get_executor(), std::move(out.read), std::move(err.read),
                    {.log_path = folder.path() + "/log", .tail_lines = 1, .forward = true}, [] {},
                    [](const std::string& fault) { FAIL(fault); });
  const std::string line(1000, 'x');
  const size_t lines = 3 * kPendingOutputBytesMax / 1000;
  for (size_t i = 0; i < lines; ++i) {
    out.say(line + "\n");
    if (i % 50 == 0) output.drain();
  }
  output.drain();
  size_t kept = 0;
  uint64_t dropped = 0;
  while (output.has_pending()) {
    const auto batch = output.take(100'000);
    kept += batch.lines.size();
    dropped += batch.dropped;
  }
  CHECK(kept + dropped == lines);
  CHECK(kept <= kPendingOutputBytesMax / 1000);
  CHECK(dropped > 0);
  CHECK(content_of(folder.path() + "/log").size() == lines * 1001);
}

TEST_CASE("a log file that cannot be written is told once and stops nothing", "[output]") {
  boost::asio::io_context io;
  Pipe out, err;
  int faults = 0;
  RankOutput output(io.get_executor(), std::move(out.read), std::move(err.read),
                    {.log_path = "/dev/full", .tail_lines = 5, .forward = true}, [] {},
                    [&](const std::string&) { ++faults; });
  for (int i = 0; i < 3; ++i) {
    out.say("line\n");
    output.drain();
  }
  CHECK(faults == 1);
  CHECK(output.take(1000).lines.size() == 3);
}
