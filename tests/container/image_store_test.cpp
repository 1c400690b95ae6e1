#include "container/image_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <thread>

#include "tests/catch.hpp"

namespace fs = std::filesystem;
using namespace mds::container;

namespace {

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/mds-store-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string output_of(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  char buffer[256] = {};
  std::string text;
  while (std::fgets(buffer, sizeof buffer, pipe)) text += buffer;
  pclose(pipe);
  return text;
}

std::string digest_of(const std::string& path) { return output_of("sha256sum " + path).substr(0, 64); }

/// A SIF's first bytes and random ones behind.
std::string make_image(const std::string& path, size_t bytes) {
  std::mt19937_64 random(std::random_device{}());
  std::string data(bytes, '\0');
  for (char& c : data) c = static_cast<char>(random());
  data.replace(32, 10, std::string("SIF_MAGIC\0", 10));
  std::ofstream(path, std::ios::binary) << data;
  return digest_of(path);
}

Container with(Runtime runtime, const std::string& image, const std::string& digest = "") {
  Container container;
  container.runtime = runtime;
  container.image = image;
  container.sha256 = digest;
  return container;
}

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

size_t files_in(const fs::path& folder, const std::string& part) {
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    count += entry.path().filename().string().find(part) != std::string::npos;
  }
  return count;
}

}  // namespace

TEST_CASE("An image with its digest is staged once, and one flipped byte is refused", "[container][image]") {
  const Folder folder;
  const std::string image = folder / "image.sif", store = folder / "store";
  const std::string digest = make_image(image, 3'000'000);
  const auto first = stage_image(with(Runtime::apptainer, image, digest), store);
  REQUIRE(first.ok());
  CHECK(first->copied);
  CHECK(first->path != image);
  CHECK(content_of(first->path) == content_of(image));
  CHECK_FALSE(stage_image(with(Runtime::apptainer, image, digest), store)->copied);

  std::string data = content_of(image);
  data[2'000'001] = static_cast<char>(data[2'000'001] ^ 1);
  const std::string flipped = folder / "flipped.sif";
  std::ofstream(flipped, std::ios::binary) << data;
  const Folder other;  // a node that has no copy yet
  const auto refused = stage_image(with(Runtime::apptainer, flipped, digest), other / "store");
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == mds::ErrorCode::corrupt);
  CHECK(refused.error().message.find(digest) != std::string::npos);
  CHECK(refused.error().message.find(digest_of(flipped)) != std::string::npos);
  CHECK(files_in(other / "store", ".part") == 0);
  CHECK_FALSE(fs::exists(other / ("store/" + digest)));
}

TEST_CASE("What replaces the original after the check is never used", "[container][image][threats]") {
  const Folder folder;
  const std::string image = folder / "image.sif", link = folder / "link.sif";
  const std::string digest = make_image(image, 100'000);
  fs::create_symlink(image, link);
  const auto staged = stage_image(with(Runtime::apptainer, link, digest), folder / "store");
  REQUIRE(staged.ok());
  make_image(folder / "evil.sif", 100'000);
  fs::remove(link);
  fs::create_symlink(folder / "evil.sif", link);
  CHECK(digest_of(staged->path) == digest);
  CHECK(stage_image(with(Runtime::apptainer, link, digest), folder / "store")->path == staged->path);
}

TEST_CASE("Jobs that stage one image at once do not disturb each other", "[container][image]") {
  const Folder folder;
  const std::string image = folder / "image.sif";
  const std::string digest = make_image(image, 20'000'000);
  std::vector<std::thread> jobs;
  std::atomic<int> good{0}, copies{0};
  for (int i = 0; i < 6; ++i) {
    jobs.emplace_back([&] {
      const auto staged = stage_image(with(Runtime::apptainer, image, digest), folder / "store");
      good += staged.ok();
      copies += staged.ok() && staged->copied;
    });
  }
  for (auto& job : jobs) job.join();
  CHECK(good == 6);
  CHECK(copies == 1);
  CHECK(files_in(folder / "store", ".part") == 0);
}

TEST_CASE("A full disk is said with path and size, and leaves nothing to trust", "[container][image]") {
  const Folder folder;
  const std::string image = folder / "image.sif", small = folder / "small";
  const std::string digest = make_image(image, 3'000'000);
  fs::create_directory(small);
  if (mount("tmpfs", small.c_str(), "tmpfs", 0, "size=1m") != 0) {
    WARN("not run: mounting a small file system needs root");
    return;
  }
  const auto staged = stage_image(with(Runtime::apptainer, image, digest), small + "/store");
  const size_t left = files_in(small + "/store", digest) - files_in(small + "/store", ".lock");
  umount(small.c_str());
  REQUIRE_FALSE(staged.ok());
  CHECK(staged.error().message.find("3000000 bytes") != std::string::npos);
  CHECK(staged.error().message.find(small) != std::string::npos);
  CHECK(left == 0);
}

TEST_CASE("What was left half made by a killed agent goes when an image is staged again", "[container][image]") {
  const Folder folder;
  const std::string image = folder / "image.sif", store = folder / "store";
  const std::string digest = make_image(image, 1000);
  REQUIRE(stage_image(with(Runtime::apptainer, image, digest), store).ok());
  const std::string one = store + "/" + std::string(64, '0'), other = store + "/" + std::string(64, '1');
  const std::string half = store + "/" + digest + ".part.4711", under_way = one + ".part.1";
  const std::string left = other + ".root.part.1";
  const int lock = open((one + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(flock(lock, LOCK_EX) == 0);
  std::ofstream(half) << "half";
  std::ofstream(under_way) << "of another image, which somebody stages now";
  fs::create_directory(left);
  fs::create_directory(store + "/" + digest + ".root.part.4711");
  REQUIRE(stage_image(with(Runtime::apptainer, image, digest), store).ok());
  CHECK_FALSE(fs::exists(half));
  CHECK_FALSE(fs::exists(store + "/" + digest + ".root.part.4711"));
  CHECK(fs::exists(under_way));
  CHECK_FALSE(fs::exists(left));
  close(lock);
}

TEST_CASE("An archive that cannot be unpacked is no image, whoever reaps the children", "[container][image]") {
  const Folder folder;
  const std::string archive = folder / "image.tar", store = folder / "store";
  std::ofstream(archive, std::ios::binary) << std::string("\x1f\x8b", 2) << "no gzip at all";
  std::atomic<bool> done = false;
  std::thread reaper([&] {  // as an agent does
    while (!done) waitpid(-1, nullptr, WNOHANG);
  });
  bool refused = true;
  for (int n = 0; n < 20; ++n) refused = refused && !stage_image(with(Runtime::podman, archive, ""), store).ok();
  done = true;
  reaper.join();
  CHECK(refused);
  CHECK(files_in(store, ".root") == 0);
}

TEST_CASE("Images are known by content", "[container][image]") {
  const Folder folder;
  make_image(folder / "a.txt", 1000);
  CHECK(*image_kind(folder / "a.txt") == ImageKind::sif);
  std::ofstream(folder / "b") << "hsqs and more";
  CHECK(*image_kind(folder / "b") == ImageKind::squashfs);
  fs::create_directories(folder.path() / "root/bin");
  CHECK_FALSE(image_kind(folder / "root").ok());
  std::ofstream(folder / "root/bin/sh") << "";
  CHECK(*image_kind(folder / "root") == ImageKind::folder);
  output_of("tar -C " + (folder / "root") + " -czf " + (folder / "root.tgz") + " .");
  CHECK(*image_kind(folder / "root.tgz") == ImageKind::tar);
  std::ofstream(folder / "c.sif") << "#!/bin/sh\n";
  const auto none = image_kind(folder / "c.sif");
  REQUIRE_FALSE(none.ok());
  CHECK(none.error().message.find("is no image") != std::string::npos);
  CHECK(image_kind(folder / "absent").error().code == mds::ErrorCode::unavailable);
  CHECK_FALSE(image_kind("/dev/zero").ok());
  CHECK_FALSE(stage_image(with(Runtime::podman, folder / "a.txt"), folder / "store").ok());
  CHECK_FALSE(stage_image(with(Runtime::enroot, folder / "a.txt"), folder / "store").ok());
}

TEST_CASE("An archive is unpacked once, verified, and stays inside its folder", "[container][image]") {
  const Folder folder;
  fs::create_directories(folder.path() / "root/bin");
  std::ofstream(folder / "root/bin/sh") << "shell";
  std::ofstream(folder / "outside") << "precious";
  output_of("tar -C " + (folder / "root") + " -cf " + (folder / "image.tar") + " .");
  const std::string image = folder / "image.tar", store = folder / "store";
  const auto staged = stage_image(with(Runtime::bubblewrap, image, digest_of(image)), store);
  REQUIRE(staged.ok());
  CHECK(content_of(staged->path + "/bin/sh") == "shell");
  CHECK(stage_image(with(Runtime::podman, image, digest_of(image)), store)->path == staged->path);
  const auto unverified = stage_image(with(Runtime::podman, image), store);
  REQUIRE(unverified.ok());
  CHECK(unverified->path != staged->path);

  output_of("tar -P -C " + (folder / "root") + " --transform 's,^bin/sh,../../outside,' -cf " + (folder / "evil.tar") +
            " bin/sh");
  const auto evil = stage_image(with(Runtime::podman, folder / "evil.tar"), store);
  CHECK_FALSE(evil.ok());
  CHECK(content_of(folder / "outside") == "precious");
}

TEST_CASE("A store that others may enter is refused", "[container][image][threats]") {
  const Folder folder;
  const std::string image = folder / "image.sif", store = folder / "store";
  const std::string digest = make_image(image, 1000);
  fs::create_directory(store);
  REQUIRE(chmod(store.c_str(), 0777) == 0);
  CHECK(stage_image(with(Runtime::apptainer, image, digest), store).error().code == mds::ErrorCode::denied);
  fs::remove(store);
  fs::create_directory(folder / "theirs");
  fs::create_symlink(folder / "theirs", store);
  CHECK(stage_image(with(Runtime::apptainer, image, digest), store).error().code == mds::ErrorCode::denied);
}
