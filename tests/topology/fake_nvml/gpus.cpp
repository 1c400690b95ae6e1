// Runs discover_gpus against the stand-in for NVML beside it, which this program's run path finds first.
#include "topology/gpus.hpp"

#include <cstdlib>

#include "tests/catch.hpp"
#include "topology/cluster.hpp"

using namespace mds;
using namespace mds::topology;
using Notes = std::vector<std::string>;

namespace {

std::vector<int> indices(const std::vector<Gpu>& gpus) {
  std::vector<int> found;
  for (const Gpu& gpu : gpus) found.push_back(gpu.index);
  return found;
}

std::vector<Gpu> gpus_in_mode(const char* mode, Notes& notes) {
  setenv("FAKE_NVML", mode, 1);
  const auto gpus = discover_gpus(notes);
  unsetenv("FAKE_NVML");
  return gpus;
}

}  // namespace

TEST_CASE("GPUs are what NVML says") {
  Notes notes;
  const auto gpus = discover_gpus(notes);
  REQUIRE(gpus.size() == 3);
  CHECK(gpus[1] == Gpu{1, "GPU-000000a1-0000-0000-0000-000000000000", "0000:fb:00.0", "NVIDIA Imaginary 1",
                       uint64_t{80} << 30, -1});
  CHECK(gpus[2].memory_bytes == 0);
  CHECK(notes.empty());
  CHECK(discover_machine()->gpus == gpus);
  CHECK(discover_machine({.gpus = false})->gpus.empty());
}

TEST_CASE("a driver that is not there is no problem, one that fails is told of") {
  Notes notes;
  CHECK(gpus_in_mode("no_driver", notes).empty());
  CHECK(notes.empty());
  CHECK(gpus_in_mode("broken", notes).empty());
  CHECK(notes == Notes{"GPUs are left out: Driver/library version mismatch (NVML)"});
  notes.clear();
  CHECK(indices(gpus_in_mode("lost_gpu", notes)) == std::vector<int>{0, 2});
  CHECK(notes == Notes{"GPU 1 is left out: GPU is lost (NVML)"});
}

TEST_CASE("CUDA_VISIBLE_DEVICES is heeded as CUDA does") {
  Notes notes;
  const auto all = discover_gpus(notes);
  const auto visible = [&](const char* value) { return indices(visible_gpus(all, value, notes)); };
  using Indices = std::vector<int>;
  CHECK(visible("2,0") == Indices{2, 0});
  CHECK(visible("0,7,1") == Indices{0});
  CHECK(visible("").empty());
  CHECK(visible("-1").empty());
  CHECK(visible("NoDevFiles").empty());
  CHECK(visible("GPU-000000a2,GPU-000000a0") == Indices{2, 0});
  CHECK(visible("GPU-").empty());
  notes.clear();
  REQUIRE(all.size() == 3);
  CHECK(visible("0,1,2").size() == 3);
  CHECK(notes.empty());
  CHECK(visible("MIG-1").empty());
  REQUIRE_FALSE(notes.empty());
  CHECK(notes[0].find("MIG") == 0);

  setenv("CUDA_VISIBLE_DEVICES", "1", 1);
  const auto machine = discover_machine();
  unsetenv("CUDA_VISIBLE_DEVICES");
  CHECK(indices(machine->gpus) == Indices{1});
  REQUIRE_FALSE(machine->notes.empty());
  CHECK(machine->notes.front() == "CUDA_VISIBLE_DEVICES leaves 1 of 3 GPUs");
}
