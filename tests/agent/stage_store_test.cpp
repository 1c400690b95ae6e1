// The store of staged files on a node: what may be trusted, what goes with whom, and what dead ones leave.
#include "agent/stage_store.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "container/private_folder.hpp"
#include "container/sha256.hpp"
#include "tests/agent/temporary_folder.hpp"
#include "tests/catch.hpp"

using namespace mds::agent;
namespace fs = std::filesystem;

namespace {

std::string put(StageStore& store, const std::string& content) {
  const std::string sha256 = mds::container::sha256_of(content);
  auto part = store.begin(sha256, content.size());
  REQUIRE(part.ok());
  REQUIRE(mds::container::write_all(part->fd(), content.data(), content.size()));
  REQUIRE(store.keep(*std::move(part), sha256).ok());
  return sha256;
}

StageStore opened(const std::string& folder, const std::string& run, bool keep = false) {
  auto store = StageStore::open(folder, run, keep);
  if (!store) FAIL(store.error().message);
  return *std::move(store);
}

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("a staged file lies below the run's root, and goes with the run", "[agent][stage]") {
  const TemporaryFolder folder;
  const std::string place = folder.path() + "/store";
  StageStore store = opened(place, "run");
  const std::string sha256 = put(store, "hello");
  REQUIRE(store.place_object(sha256, "/home/a b/x.py").ok());
  REQUIRE(store.place_link("x.py", "/home/a b/y.py").ok());
  REQUIRE(store.place_folder("/home/empty").ok());
  REQUIRE(store.place_object(sha256, "/home/a b/x.py").ok());  // an agent that starts again
  CHECK(content_of(store.root() + "/home/a b/y.py") == "hello");
  fs::remove(store.root() + "/home/a b/x.py");  // a rank has put something else there
  std::ofstream(store.root() + "/home/a b/x.py") << "other";
  REQUIRE(store.place_object(sha256, "/home/a b/x.py").ok());
  CHECK(content_of(store.root() + "/home/a b/x.py") == "hello");
  CHECK(std::distance(fs::directory_iterator(store.root() + "/home/a b"), {}) == 2);
  CHECK(fs::is_directory(store.root() + "/home/empty"));
  store.leave();
  CHECK_FALSE(fs::exists(place));
}

TEST_CASE("a run's files stay while one of its agents is there, objects while another run has them", "[agent][stage]") {
  const TemporaryFolder folder;
  const std::string place = folder.path() + "/store";
  StageStore one = opened(place, "run"), two = opened(place, "run"), other = opened(place, "other");
  const std::string sha256 = put(one, "shared");
  REQUIRE(*two.pin(sha256));
  REQUIRE(*other.pin(sha256));
  one.leave();
  CHECK(fs::exists(two.pinned(sha256)));
  two.leave();
  CHECK_FALSE(fs::exists(place + "/runs/run"));
  CHECK(content_of(other.pinned(sha256)) == "shared");
  other.leave();
  CHECK_FALSE(fs::exists(place));
}

TEST_CASE("what is to be kept is there for the next run", "[agent][stage]") {
  const TemporaryFolder folder;
  const std::string place = folder.path() + "/store";
  StageStore store = opened(place, "first", /*keep=*/true);
  const std::string sha256 = put(store, "kept");
  store.leave();
  StageStore next = opened(place, "second");
  CHECK_FALSE(*next.pin(std::string(64, '0')));
  REQUIRE(*next.pin(sha256));
  CHECK(content_of(next.pinned(sha256)) == "kept");
  const UniqueFd damaged(open(next.pinned(sha256).c_str(), O_RDONLY));  // as if it were
  next.discard(sha256, damaged.get());
  CHECK_FALSE(*next.pin(sha256));
  next.leave();
}

TEST_CASE("an image outlives its run, and two runs that stage it at once agree on one", "[agent][stage]") {
  const TemporaryFolder folder;
  const std::string place = folder.path() + "/store", images = StageStore::images_of(place);
  StageStore one = opened(place, "one"), two = opened(place, "two");
  const std::string sha256 = put(one, "image");
  REQUIRE(one.place_image(sha256).ok());
  put(two, "image");  // it was on its way, too: this copy becomes the object
  REQUIRE(two.place_image(sha256).ok());
  REQUIRE(one.place_image(sha256).ok());
  one.leave();
  two.leave();
  CHECK(content_of(images + "/" + sha256) == "image");
  CHECK(fs::hard_link_count(images + "/" + sha256) == 2);  // the object is no copy of it
  CHECK_FALSE(fs::exists(place + "/runs/one"));

  StageStore next = opened(place, "next");
  REQUIRE(*next.pin(sha256));
  const UniqueFd damaged(open(next.pinned(sha256).c_str(), O_RDONLY));  // as if it were
  next.discard(sha256, damaged.get());
  CHECK_FALSE(fs::exists(images + "/" + sha256));
  CHECK_FALSE(*next.pin(sha256));
  put(next, "image");
  fs::remove(place + "/objects/" + sha256);  // another run thought ill of it
  REQUIRE(next.place_image(sha256).ok());
  next.leave();
  CHECK(content_of(images + "/" + sha256) == "image");
}

TEST_CASE("agents that were killed leave nothing to the next one", "[agent][stage]") {
  const TemporaryFolder folder;
  const std::string place = folder.path() + "/store";
  const pid_t child = fork();
  if (child == 0) {  // dies with a run and a part in its hands
    auto store = StageStore::open(place, "dead", false);
    auto part = store->begin(std::string(64, 'a'), 100);
    _exit(part.ok() && store->place_folder("/x").ok() ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(status == 0);
  REQUIRE(fs::exists(place + "/runs/dead"));
  StageStore alive = opened(place, "alive");
  auto part = alive.begin(std::string(64, 'b'), 100);
  StageStore next = opened(place, "next");
  CHECK_FALSE(fs::exists(place + "/runs/dead"));
  CHECK(fs::exists(part->path()));  // somebody writes it
  CHECK(fs::exists(place + "/runs/alive"));
  CHECK(std::distance(fs::directory_iterator(place + "/objects"), {}) == 1);
  leave_stage(place, "next");  // its agent is here still
  CHECK(fs::exists(place + "/runs/next"));
}

TEST_CASE("a guard removes what its agent was writing when it was killed", "[agent][stage]") {
  const TemporaryFolder folder;
  const std::string place = folder.path() + "/store";
  const pid_t child = fork();
  if (child == 0) {
    auto store = StageStore::open(place, "run", false);
    auto part = store->begin(std::string(64, 'a'), 100);
    _exit(part.ok() ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE((status == 0 && fs::exists(place + "/objects")));
  leave_stage(place, "run");
  CHECK_FALSE(fs::exists(place));
}

TEST_CASE("a store that others may enter is refused, and paths that lead elsewhere", "[agent][stage][threats]") {
  const TemporaryFolder folder;
  const std::string place = folder.path() + "/store";
  fs::create_directory(place);
  REQUIRE(chmod(place.c_str(), 0755) == 0);
  CHECK(StageStore::open(place, "run", false).error().code == mds::ErrorCode::denied);
  fs::remove(place);
  fs::create_directory(folder.path() + "/theirs");
  fs::create_directory_symlink(folder.path() + "/theirs", place);
  CHECK(StageStore::open(place, "run", false).error().code == mds::ErrorCode::denied);
  for (const char* path : {"", "/", "a", "/a/../b", "/a/..", "/a//b", "/a/./b", "/a/"}) {
    INFO(path);
    CHECK_FALSE(is_stage_path(path));
  }
  CHECK(is_stage_path("/a/..b/c"));
}

TEST_CASE("a full disk is said with path and size, and leaves no part", "[agent][stage]") {
  const TemporaryFolder folder;
  const std::string place = folder.path() + "/small";
  fs::create_directory(place);
  if (mount("none", place.c_str(), "tmpfs", 0, "size=1m,mode=700") != 0) {
    WARN("not run: mounting a small file system needs root");
    return;
  }
  StageStore store = opened(place, "run");
  const auto part = store.begin(std::string(64, 'c'), 64 << 20);
  const std::string said = part.ok() ? "" : part.error().message;
  const auto left = std::distance(fs::directory_iterator(place + "/objects"), {});
  umount2(place.c_str(), MNT_DETACH);
  CHECK(said.find("67108864 bytes") != std::string::npos);
  CHECK(said.find(place + "/objects/") != std::string::npos);
  CHECK(left == 0);
}
