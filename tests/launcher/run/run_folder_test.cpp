#include "launcher/run_folder.hpp"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "launcher/event_log.hpp"
#include "tests/agent/temporary_folder.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;
namespace fs = std::filesystem;

namespace {

std::string content(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("run folder: private, never overwritten, and the newest is linked") {
  TemporaryFolder temporary;
  const std::string runs = temporary.path() + "/a/runs/";
  const RunFolder first = RunFolder::named(runs, "my job/..", 1'000'000'000, "0001");
  CHECK(fs::path(first.path()).parent_path() == temporary.path() + "/a/runs");
  CHECK(first.id().find('/') == std::string::npos);
  CHECK(!fs::exists(first.path()));
  REQUIRE(first.make().ok());
  struct stat info{};
  REQUIRE(stat(first.path().c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0700);
  CHECK(fs::is_directory(first.file("logs")));
  const auto again = first.make();
  REQUIRE(!again.ok());
  CHECK(again.error().message.find(first.path()) != std::string::npos);

  REQUIRE(first.link_latest().ok());
  const RunFolder second = RunFolder::named(runs, "job", 1'000'000'001, "0002");
  REQUIRE(second.make().ok());
  REQUIRE(second.link_latest().ok());
  CHECK(fs::read_symlink(runs + "latest") == second.id());

  REQUIRE(second.write("job.toml", "one").ok());
  REQUIRE(second.write("job.toml", "two").ok());
  CHECK(content(second.file("job.toml")) == "two");
  REQUIRE(stat(second.file("job.toml").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  CHECK(std::distance(fs::directory_iterator(second.path()), {}) == 5);  // job.toml and four folders
}

TEST_CASE("run folder: a place that cannot be used is an error that names it") {
  TemporaryFolder temporary;
  std::ofstream(temporary.path() + "/file") << "x";
  const RunFolder folder = RunFolder::named(temporary.path() + "/file/runs", "job", 0, "1");
  const auto made = folder.make();
  REQUIRE(!made.ok());
  CHECK(made.error().message.find("/file/runs") != std::string::npos);
}

TEST_CASE("event log: a torn last line is left out, a broken one is an error with its line") {
  TemporaryFolder temporary;
  const std::string path = temporary.path() + "/events.jsonl";
  SupervisorConfig config;
  config.node_of_rank = {0};
  {
    auto log = EventLog::create(path, config);
    REQUIRE(log.ok());
    CHECK(!EventLog::create(path, config).ok());  // never overwritten
    REQUIRE((*log)->append({.kind = EventKind::begin}, TimePoint{5}, {}, {}).ok());
  }
  std::ofstream(path, std::ios::app) << "{\"event\":\"agent_jo";
  const auto torn = read_event_log(path);
  REQUIRE(torn.ok());
  CHECK(torn->events.size() == 1);
  for (const char* broken : {"\n", "{\"event\":\"nonsense\",\"t_us\":1}\n", "{\"event\":\"begin\"}\n",
                             "{\"event\":\"begin\",\"t_us\":1,\"node\":\"a\"}\n", "[]\n",
                             "{\"event\":7,\"t_us\":1}\n"}) {
    const std::string other = temporary.path() + "/other.jsonl";
    const std::string whole = content(path);
    std::ofstream(other) << whole.substr(0, whole.rfind('\n') + 1) << broken;
    const auto read = read_event_log(other);
    INFO(broken);
    REQUIRE(!read.ok());
    CHECK(read.error().message.find(":3: ") != std::string::npos);
  }
  CHECK(!read_event_log(temporary.path() + "/missing").ok());
}
