#include "trainer/checkpoint/checkpoint.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include <filesystem>
#include <random>

#include "tests/catch.hpp"
#include "tests/trainer/checkpoint/rank_threads.hpp"
#include "tests/trainer/scratch_folder.hpp"

using namespace mds::trainer;
using mds::testing::run_ranks;
using mds::testing::ScratchFolder;
namespace fs = std::filesystem;

namespace {

/// A logical tensor of the test: its elements are their row-major numbers, plus `salt`.
struct Logical {
  std::string name;
  std::vector<int64_t> shape;
  at::ScalarType type = at::kFloat;
  int64_t salt = 0;

  at::Tensor whole() const {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    return at::arange(salt, salt + count, at::TensorOptions().dtype(type)).reshape(shape);
  }
};

/// A box of the tensor, or a stretch of its elements.
TensorBlock block_of(const Logical& tensor, std::vector<int64_t> offset, std::vector<int64_t> extent, int64_t begin = 0,
                     int64_t end = -1) {
  at::Tensor box = tensor.whole();
  for (size_t d = 0; d < offset.size(); ++d) box = box.narrow(static_cast<int64_t>(d), offset[d], extent[d]);
  box = box.contiguous();
  if (end >= 0) box = box.flatten().slice(0, begin, end).contiguous();
  return {tensor.name, tensor.shape, std::move(offset), box.clone(), std::move(extent), begin, end};
}

/// Cuts every tensor along a random dimension (as tensor parallelism does) and each part into flat stretches (as ZeRO
/// does), and deals them out to `ranks`.
std::vector<std::vector<TensorBlock>> random_layout(const std::vector<Logical>& tensors, int ranks,
                                                    std::mt19937& random) {
  std::vector<std::vector<TensorBlock>> blocks(static_cast<size_t>(ranks));
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<size_t>(n)); };
  for (const Logical& tensor : tensors) {
    std::vector<int64_t> offset(tensor.shape.size(), 0), extent = tensor.shape;
    const size_t axis =
        tensor.shape.empty() ? 0 : static_cast<size_t>(below(static_cast<int64_t>(tensor.shape.size())));
    const int64_t size = tensor.shape.empty() ? 1 : tensor.shape[axis];
    for (int64_t from = 0; from < size;) {
      const int64_t to = from + 1 + below(size - from);
      if (!tensor.shape.empty()) offset[axis] = from, extent[axis] = to - from;
      from = to;
      int64_t elements = 1;
      for (const int64_t e : extent) elements *= e;
      const bool flat = random() % 2 == 0;
      for (int64_t begin = 0; begin < elements;) {
        const int64_t end = flat ? begin + 1 + below(elements - begin) : elements;
        auto& mine = blocks[static_cast<size_t>(below(ranks))];
        mine.push_back(flat ? block_of(tensor, offset, extent, begin, end) : block_of(tensor, offset, extent));
        begin = end;
      }
    }
  }
  return blocks;
}

const std::vector<Logical> kModel{{"parameter/a", {6, 8}, at::kFloat, 0},
                                  {"parameter/b", {7}, at::kFloat, 100},
                                  {"exp_avg/a", {6, 8}, at::kDouble, 1000},
                                  {"parameter/c", {2, 3, 4}, at::kBFloat16, 0},
                                  {"count", {}, at::kLong, 7}};

CheckpointMeta meta_of(int64_t step) { return {step, step * 16, {{"name", "test"}}, {{"loss_scale", 1.5}}}; }

mds::Status save(const std::string& folder, int64_t step, const std::vector<std::vector<TensorBlock>>& layout,
                 int keep = 0) {
  mds::Status first;
  run_ranks(static_cast<int>(layout.size()), [&](Communicator& world) {
    auto status = save_checkpoint(folder, meta_of(step), layout[static_cast<size_t>(world.rank())], keep, world);
    if (world.rank() == 0) first = status;
  });
  return first;
}

mds::Status save_small(const std::string& folder, int64_t step, int keep = 0, int64_t size = 7) {
  const Logical tensor{"parameter/b", {size}, at::kFloat, step};
  return save(folder, step, {{block_of(tensor, {0}, {size})}}, keep);
}

/// Loads into blocks that are first filled with something else.
mds::Status load(const std::string& checkpoint, std::vector<std::vector<TensorBlock>>& layout) {
  mds::Status first;
  run_ranks(static_cast<int>(layout.size()), [&](Communicator& world) {
    auto& mine = layout[static_cast<size_t>(world.rank())];
    for (TensorBlock& block : mine) block.data.fill_(99);
    auto status = load_checkpoint(checkpoint, mine, world);
    if (world.rank() == 0) first = status;
  });
  return first;
}

std::string load_small(const std::string& checkpoint, int64_t step) {
  const Logical tensor{"parameter/b", {7}, at::kFloat, step};
  std::vector<std::vector<TensorBlock>> layout{{block_of(tensor, {0}, {7})}};
  const mds::Status status = load(checkpoint, layout);
  if (!status) return status.error().message;
  return at::equal(layout[0][0].data, tensor.whole()) ? "" : "other values";
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("any layout loads any other's checkpoint") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 25; ++round) {
    ScratchFolder folder;
    const auto written = random_layout(kModel, 1 + static_cast<int>(random() % 4), random);
    const mds::Status saved = save(folder / "checkpoints", 5, written);
    INFO((saved ? "" : saved.error().message));
    REQUIRE(saved);
    const auto expected = random_layout(kModel, 1 + static_cast<int>(random() % 4), random);
    auto wanted = random_layout(kModel, 1, random);
    wanted.assign(expected.size(), {});
    for (size_t rank = 0; rank < expected.size(); ++rank) {
      for (TensorBlock block : expected[rank]) {
        block.data = block.data.clone();
        wanted[rank].push_back(std::move(block));
      }
    }
    const mds::Status loaded = load(folder / "checkpoints/step-00000005", wanted);
    INFO((loaded ? "" : loaded.error().message));
    REQUIRE(loaded);
    for (size_t rank = 0; rank < expected.size(); ++rank) {
      for (size_t i = 0; i < expected[rank].size(); ++i) {
        INFO(expected[rank][i].name);
        REQUIRE(at::equal(wanted[rank][i].data, expected[rank][i].data));
      }
    }
  }
}

TEST_CASE("several ranks may want the same, in another type, and write the same") {
  ScratchFolder folder;
  const Logical tensor{"t", {4, 4}, at::kFloat, 0};
  const TensorBlock whole = block_of(tensor, {0, 0}, {4, 4});
  REQUIRE(save(folder.path(), 1, {{whole}, {whole}}));
  auto wanted = std::vector<std::vector<TensorBlock>>{{whole}, {whole}};
  wanted[0][0].data = whole.data.clone();
  wanted[1][0].data = whole.data.to(at::kDouble).t();  // neither the type nor the order of the stored one
  wanted[1][0].data = wanted[1][0].data.t().contiguous().t().t();
  REQUIRE(load(folder / "step-00000001", wanted));
  CHECK(at::equal(wanted[0][0].data, tensor.whole()));
  CHECK(at::equal(wanted[1][0].data, tensor.whole().to(at::kDouble)));
}

TEST_CASE("the meta data come back") {
  ScratchFolder folder;
  REQUIRE(save_small(folder.path(), 12));
  const auto meta = read_checkpoint_meta(folder / "step-00000012");
  REQUIRE(meta);
  CHECK(meta->step == 12);
  CHECK(meta->consumed_samples == 192);
  CHECK(meta->config["name"] == "test");
  CHECK(meta->extra["loss_scale"] == 1.5);
  const auto none = read_checkpoint_meta(folder / "step-00000013");
  REQUIRE(!none);
  CHECK(none.error().code == mds::ErrorCode::bad_input);
}

TEST_CASE("only committed checkpoints are listed, the newest first") {
  ScratchFolder folder;
  CHECK(list_checkpoints(folder / "none").empty());
  for (const int64_t step : {100, 9, 100000000}) REQUIRE(save_small(folder.path(), step));
  fs::create_directory(folder / "step-00000500");  // no manifest
  fs::create_directory(folder / "step-00000600.partial");
  fs::create_directory(folder / "step-x");
  fs::create_directory(folder / "step-");
  mds::testing::write_file(folder / "step-00000700", "a file");
  fs::copy(folder / "step-00000100", folder / "step-00000800");
  fs::resize_file(folder / "step-00000800/manifest.json", 50);  // damaged
  fs::copy(folder / "step-00000100", folder / "step-99999999999999999999");
  const std::vector<std::string> expected{folder / "step-100000000", folder / "step-00000100",
                                          folder / "step-00000009"};
  CHECK(list_checkpoints(folder.path()) == expected);
}

TEST_CASE("the newest are kept and what interrupted saves left is cleared") {
  ScratchFolder folder;
  fs::create_directory(folder / "step-00000001.partial");
  fs::create_directory(folder / "step-00000002.removing");
  fs::create_directory(folder / "notes");
  for (int64_t step = 1; step <= 5; ++step) REQUIRE(save_small(folder.path(), step, 2));
  CHECK(names_in(folder.path()) == std::vector<std::string>{"notes", "step-00000004", "step-00000005"});
  // One that has just been written stays, even if others are ahead of it.
  REQUIRE(save_small(folder.path(), 2, 1));
  CHECK(names_in(folder.path()) == std::vector<std::string>{"notes", "step-00000002", "step-00000005"});
  REQUIRE(save_small(folder.path(), 6, 0));
  CHECK(names_in(folder.path()).size() == 4);
}

TEST_CASE("a step saved again replaces the first") {
  ScratchFolder folder;
  REQUIRE(save_small(folder.path(), 3));
  const Logical other{"parameter/b", {7}, at::kFloat, 50};
  REQUIRE(save(folder.path(), 3, {{block_of(other, {0}, {3})}, {block_of(other, {3}, {4})}}));
  CHECK(names_in(folder.path()) == std::vector<std::string>{"step-00000003"});
  CHECK(load_small(folder / "step-00000003", 50) == "");
}

TEST_CASE("damage is found and the file named") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  ScratchFolder folder;
  REQUIRE(save_small(folder.path(), 1));
  const std::string data = folder / "step-00000001/rank-00000.safetensors",
                    manifest = folder / "step-00000001/manifest.json";
  for (const std::string& path : {data, manifest}) {
    const std::string good = mds::testing::read_file(path);
    for (int round = 0; round < 200; ++round) {
      const std::string bad = mds::testing::mutated(good, random);
      if (bad == good) continue;
      mds::testing::write_file(path, bad);
      const std::string message = load_small(folder / "step-00000001", 1);
      // White space in the manifest apart, every change must be seen.
      if (path == manifest && message == "") continue;
      INFO(message);
      REQUIRE(message != "");
      CHECK(message.find(path) == 0);
      CHECK(message.find('\n') == std::string::npos);
    }
    mds::testing::write_file(path, good);
    REQUIRE(load_small(folder / "step-00000001", 1) == "");
  }
  fs::remove(data);
  CHECK(load_small(folder / "step-00000001", 1).find(data) != std::string::npos);
}

TEST_CASE("a model that the checkpoint does not hold is refused by name") {
  ScratchFolder folder;
  REQUIRE(save_small(folder.path(), 1));
  const std::string checkpoint = folder / "step-00000001";
  std::vector<std::vector<TensorBlock>> missing{{block_of({"parameter/z", {7}}, {0}, {7})}};
  mds::Status status = load(checkpoint, missing);
  REQUIRE(!status);
  CHECK(status.error().code == mds::ErrorCode::bad_input);
  CHECK(status.error().message.find("parameter/z") != std::string::npos);
  std::vector<std::vector<TensorBlock>> reshaped{{block_of({"parameter/b", {8}}, {0}, {8})}};
  status = load(checkpoint, reshaped);
  REQUIRE(!status);
  CHECK(status.error().message.find("[7] there and [8]") != std::string::npos);
}

TEST_CASE("what one rank cannot load, none has loaded") {
  ScratchFolder folder;
  const Logical tensor{"t", {4}, at::kFloat, 0};
  REQUIRE(save(folder.path(), 1, {{block_of(tensor, {0}, {2})}, {block_of(tensor, {2}, {2})}}));
  fs::resize_file(folder / "step-00000001/rank-00001.safetensors", 20);
  std::vector<int> failed(2);
  std::vector<std::string> messages(2);
  run_ranks(2, [&](Communicator& world) {
    const auto rank = static_cast<size_t>(world.rank());
    std::vector<TensorBlock> mine{block_of(tensor, {world.rank() * 2}, {2})};
    const mds::Status status = load_checkpoint(folder / "step-00000001", mine, world);
    failed[rank] = !status;
    if (!status) messages[rank] = status.error().message;
  });
  CHECK(failed == std::vector<int>{1, 1});
  CHECK(messages[0] == messages[1]);
  CHECK(messages[0].find("rank 1: ") == 0);
  CHECK(messages[0].find("rank-00001.safetensors has 20 bytes") != std::string::npos);
}

TEST_CASE("a save that one rank fails leaves nothing behind, on any rank") {
  ScratchFolder folder;
  REQUIRE(save_small(folder.path(), 1));
  const Logical tensor{"t", {4}, at::kFloat, 0};
  // Rank 1's block lies outside of its tensor; then the ranks together leave a hole; then they disagree about the
  // shape.
  TensorBlock outside = block_of(tensor, {2}, {2});
  outside.offset = {3};
  const TensorBlock left = block_of(tensor, {0}, {2}), middle = block_of(tensor, {2}, {1});
  const TensorBlock other = block_of({"t", {5}}, {0}, {5});
  for (const TensorBlock& bad : {outside, middle, other}) {
    CHECK(!save(folder.path(), 2, {{left}, {bad}}));
    CHECK(names_in(folder.path()) == std::vector<std::string>{"step-00000001"});
  }
  CHECK(load_small(folder / "step-00000001", 1) == "");
}

TEST_CASE("a folder that cannot be made is named") {
  ScratchFolder folder;
  mds::testing::write_file(folder / "file", "");
  const mds::Status status = save_small(folder / "file/checkpoints", 1);
  REQUIRE(!status);
  CHECK(status.error().message.find(folder / "file/checkpoints") != std::string::npos);
}
