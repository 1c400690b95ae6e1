// Programs that a back end starts: their input, their end, what is left of them.
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "launcher/backend_child.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;

namespace {

struct LogFile {
  std::string path = (std::filesystem::temp_directory_path() / ("mds-child-" + std::to_string(getpid()))).string();
  LogFile() { std::filesystem::remove(path); }
  ~LogFile() { std::filesystem::remove(path); }
  std::string text() const {
    std::stringstream out;
    out << std::ifstream(path).rdbuf();
    return out.str();
  }
};

struct Started {
  boost::asio::io_context io;
  LogFile log;
  std::unique_ptr<Child> child;
  std::string how;

  explicit Started(const std::string& script, const std::string& input = "", bool keep_open = false) {
    auto made = Child::start(io,
                             {.argv = {"/bin/sh", "-c", script},
                              .environment = {"PATH=/usr/bin:/bin", "MARK=here"},
                              .input = input,
                              .keep_input_open = keep_open,
                              .log_path = log.path},
                             [this](const std::string& text) { how = text; });
    REQUIRE(made.ok());
    child = std::move(*made);
  }
};

}  // namespace

TEST_CASE("a child reads its text, has its own environment, and its end is an event") {
  Started started("cat; env; exit 3", "hello\n");
  started.io.run();
  CHECK(started.how == "exited with code 3");
  CHECK(started.log.text().find("hello\n") == 0);
  CHECK(started.log.text().find("MARK=here") != std::string::npos);
  CHECK(started.log.text().find("HOME=") == std::string::npos);
}

TEST_CASE("a kept input ends when it is let go") {
  Started started("read line; echo $line; cat; echo over", "first\n", true);
  started.child->end_input();
  started.io.run();
  CHECK(started.how == "exited with code 0");
  CHECK(started.log.text() == "first\nover\n");
}

TEST_CASE("kill_tree takes the grandchildren along") {
  Started started("sleep 1000 & echo $!; wait");
  while (started.log.text().empty()) usleep(1000);
  const pid_t grandchild = std::stoi(started.log.text());
  CHECK(kill(grandchild, 0) == 0);
  started.child->kill_tree();
  started.io.run();
  CHECK(started.how.find("SIGKILL") != std::string::npos);
  for (int n = 0; n < 5000 && std::filesystem::exists("/proc/" + std::to_string(grandchild) + "/exe"); ++n)
    usleep(1000);
  std::error_code gone;
  CHECK_FALSE(std::filesystem::exists("/proc/" + std::to_string(grandchild) + "/exe", gone));
}

TEST_CASE("an abandoned child does not stay") {
  pid_t pid = 0;
  {
    Started started("sleep 1000");
    pid = started.child->pid();
  }
  CHECK(kill(pid, 0) != 0);
}

TEST_CASE("what cannot be started says why") {
  boost::asio::io_context io;
  const auto child = Child::start(io, {.argv = {"/no/such/program"}, .log_path = "/dev/null"}, [](auto&) {});
  REQUIRE(!child.ok());
  CHECK(child.error().message.find("No such file") != std::string::npos);
}

TEST_CASE("the output of a short program") {
  CHECK(*output_of({"/bin/sh", "-c", "echo one; echo two >&2"}) == "one\n");
  const auto failed = output_of({"/bin/sh", "-c", "echo because >&2; exit 1"});
  REQUIRE(!failed.ok());
  CHECK(failed.error().message.find("because") != std::string::npos);
  CHECK_FALSE(output_of({"/bin/sh", "-c", "head -c 3000000 /dev/zero"}).ok());
}
