// Saving to a disk that fills: a small tmpfs, mounted for one thread only, in a mount namespace of its own.
#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <thread>

#include "tests/catch.hpp"
#include "tests/trainer/checkpoint/rank_threads.hpp"
#include "tests/trainer/scratch_folder.hpp"
#include "trainer/checkpoint/checkpoint.hpp"

using namespace mds::trainer;
using mds::testing::run_ranks;
using mds::testing::ScratchFolder;
namespace fs = std::filesystem;

namespace {

constexpr int64_t kPage = 4096;
constexpr int kRanks = 2;

/// "": `folder` is now a disk of `bytes` for this thread and those that it starts; else why not.
std::string become_small_disk(const std::string& folder, int64_t bytes) {
  const auto failed = [](const char* call) { return call + (": " + std::generic_category().message(errno)); };
  if (::unshare(CLONE_NEWNS) != 0) return failed("unshare");
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return failed("mount / private");
  const std::string options = "size=" + std::to_string(bytes);
  if (::mount("small", folder.c_str(), "tmpfs", 0, options.c_str()) != 0) return failed("mount tmpfs");
  return "";
}

mds::Status save(const std::string& folder, int64_t step, int64_t elements) {
  mds::Status first;
  run_ranks(kRanks, [&](Communicator& world) {
    const at::Tensor data = at::empty({elements}, at::kFloat).fill_(static_cast<double>(step));
    const TensorBlock block{"t", {kRanks * elements}, {world.rank() * elements}, data, {}, 0, -1};
    auto status = save_checkpoint(folder, {step, 0, nullptr, nullptr}, {block}, 1, world);
    if (world.rank() == 0) first = status;
  });
  return first;
}

bool loads(const std::string& checkpoint, double value, int64_t elements) {
  bool good = false;
  run_ranks(1, [&](Communicator& world) {
    std::vector<TensorBlock> blocks{
        {"t", {kRanks * elements}, {0}, at::empty({kRanks * elements}, at::kFloat), {}, 0, -1}};
    good = load_checkpoint(checkpoint, blocks, world).ok() && blocks[0].data.eq(value).all().item<bool>();
  });
  return good;
}

struct Outcome {
  bool succeeded = false;
  mds::Error error;
  size_t entries = 0;  // in the folder, afterwards
  bool old_one_is_good = false;
};

/// What a second save does with `free_pages` left on the disk.
Outcome save_with_space(const std::string& disk, int64_t free_pages) {
  constexpr int64_t kElements = 3 * kPage;  // 12 pages a rank
  const std::string folder = disk + "/checkpoints", ballast = disk + "/ballast";
  fs::remove_all(folder);
  fs::remove(ballast);
  Outcome outcome;
  if (!save(folder, 1, kElements)) return outcome;
  const int fd = ::open(ballast.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  const auto space = static_cast<int64_t>(fs::space(disk).available) - free_pages * kPage;
  const bool filled = ::fallocate(fd, 0, 0, space) == 0;
  ::close(fd);
  if (!filled) return outcome;
  const mds::Status status = save(folder, 2, kElements);
  outcome.succeeded = status.ok();
  if (!status) outcome.error = status.error();
  outcome.entries = static_cast<size_t>(std::distance(fs::directory_iterator(folder), {}));
  outcome.old_one_is_good = loads(folder + "/step-00000001", 1, kElements);
  return outcome;
}

}  // namespace

TEST_CASE("a disk that fills at any point leaves the old checkpoint and no partial one") {
  constexpr int64_t kPagesMax = 32;
  ScratchFolder folder;
  std::string obstacle;
  std::vector<Outcome> outcomes;
  std::thread([&] {
    obstacle = become_small_disk(folder.path(), 100 * kPage);
    for (int64_t pages = 0; obstacle.empty() && pages <= kPagesMax; ++pages) {
      outcomes.push_back(save_with_space(folder.path(), pages));
    }
  }).join();
  if (!obstacle.empty()) {
    WARN("SKIPPED, this needs the right to mount: " << obstacle);
    return;
  }
  int full = 0;
  for (size_t pages = 0; pages < outcomes.size(); ++pages) {
    const Outcome& outcome = outcomes[pages];
    INFO(pages << " pages were free: " << outcome.error.message);
    CHECK(outcome.entries == 1);
    if (outcome.succeeded) continue;
    ++full;
    CHECK(outcome.old_one_is_good);
    CHECK(outcome.error.code == mds::ErrorCode::unavailable);
    CHECK(outcome.error.message.find(folder.path()) != std::string::npos);
    CHECK(outcome.error.message.find("bytes") != std::string::npos);
  }
  CHECK(full > 20);
  CHECK(outcomes.back().succeeded);
}
