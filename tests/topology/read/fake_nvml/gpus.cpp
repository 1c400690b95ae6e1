// Runs discover_gpus against the stand-in for NVML beside it, which this program's run path finds first.
#include "topology/read/discover.hpp"
#include "topology/read/gpus.hpp"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

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

FoundGpus found_in_mode(const char* mode, Notes& notes) {
  setenv("FAKE_NVML", mode, 1);
  auto found = discover_gpus(/*links=*/true, notes);
  unsetenv("FAKE_NVML");
  return found;
}

GpuLink nvlinks(int from, int to, int count, const char* bus_id) {
  return {LinkKind::nvlink, from, LinkEnd::gpu, to, bus_id, count, 20.6};
}

}  // namespace

TEST_CASE("GPUs are what NVML says") {
  Notes notes;
  const auto found = discover_gpus(/*links=*/true, notes);
  REQUIRE(found.gpus.size() == 3);
  Gpu expected{1, "GPU-000000a1-0000-0000-0000-000000000000", "0000:fb:00.0", "NVIDIA Imaginary 1",
               uint64_t{80} << 30, -1};
  expected.sm = 90;
  CHECK(found.gpus[1] == expected);
  CHECK(found.gpus[2].memory_bytes == 0);
  CHECK(notes.empty());
  CHECK(discover_machine({.gpus = false})->gpus.empty());
}

TEST_CASE("NVLinks are counted by what is at their other end") {
  Notes notes;
  CHECK(discover_gpus(/*links=*/true, notes).links ==
        std::vector<GpuLink>{nvlinks(0, 1, 4, "0000:fb:00.0"), nvlinks(0, 2, 2, "0000:fc:00.0"),
                             nvlinks(1, 0, 4, "0000:fa:00.0"), nvlinks(2, 0, 2, "0000:fa:00.0")});
  CHECK(discover_gpus(/*links=*/false, notes).links.empty());

  const auto found = found_in_mode("switch", notes);
  const GpuLink to_switch{LinkKind::nvlink, 0, LinkEnd::nvswitch, -1, "ffffffff:ff:ff.0", 18, 20.6};
  REQUIRE(found.links.size() == 4);
  CHECK(found.links[0] == to_switch);
  CHECK(found.links[1] == GpuLink{LinkKind::c2c, 0, LinkEnd::cpu, -1, "", 1, 372});
  CHECK(found.gpus[2].nvlink_domain == "00010203-0405-0607-0809-0a0b0c0d0e0f.7");
}

TEST_CASE("the driver tells what /sys hides of a GPU's PCI function") {
  const auto machine = discover_machine();
  REQUIRE(machine);
  REQUIRE(machine->gpus.size() == 3);
  REQUIRE(machine->gpus[0].pci >= 0);
  const PciDevice& device = machine->pci.at(static_cast<size_t>(machine->gpus[0].pci));
  CHECK(device.bus_id == "0000:fa:00.0");
  CHECK(device.vendor == "0x10de");
  CHECK(device.device == "0x2335");
  CHECK(device.subsystem_device == "0x18bf");
  CHECK(device.link == PciLink{2.5, 8});
  CHECK(device.link_max == PciLink{32, 16});
  CHECK(std::count(machine->notes.begin(), machine->notes.end(),
                   "/sys hides the PCI tree and NUMA node of 3 of 3 GPUs (a virtual machine?)") == 1);
  CHECK(*machine_from_json(to_json(*machine)) == *machine);
  CHECK(discover_machine({.links = false})->links.empty());
}

TEST_CASE("a driver that is not there is no problem, one that fails is told of") {
  Notes notes;
  CHECK(found_in_mode("no_driver", notes).gpus.empty());
  CHECK(notes.empty());
  CHECK(found_in_mode("broken", notes).gpus.empty());
  CHECK(notes == Notes{"GPUs are left out: Driver/library version mismatch (NVML)"});
  notes.clear();
  CHECK(indices(found_in_mode("lost_gpu", notes).gpus) == std::vector<int>{0, 2});
  CHECK(notes == Notes{"GPU 1 is left out: GPU is lost (NVML)"});
}

TEST_CASE("CUDA_VISIBLE_DEVICES is heeded as CUDA does") {
  Notes notes;
  const auto all = discover_gpus(/*links=*/true, notes);
  const auto visible = [&](const char* value) { return indices(visible_gpus(all, value, notes).gpus); };
  using Indices = std::vector<int>;
  CHECK(visible("2,0") == Indices{2, 0});
  CHECK(visible("0,7,1") == Indices{0});
  CHECK(visible("").empty());
  CHECK(visible("-1").empty());
  CHECK(visible("NoDevFiles").empty());
  CHECK(visible("GPU-000000a2,GPU-000000a0") == Indices{2, 0});
  CHECK(visible("GPU-").empty());
  notes.clear();
  REQUIRE(all.gpus.size() == 3);
  CHECK(visible("0,1,2").size() == 3);
  CHECK(notes.empty());
  CHECK(visible("MIG-1").empty());
  REQUIRE_FALSE(notes.empty());
  CHECK(notes[0].find("MIG") == 0);

  const auto turned = visible_gpus(all, "2,0", notes);
  CHECK(turned.links == std::vector<GpuLink>{nvlinks(0, 1, 2, "0000:fa:00.0"), nvlinks(1, 0, 2, "0000:fc:00.0")});
  CHECK(turned.functions[0].bus_id == "0000:fc:00.0");

  setenv("CUDA_VISIBLE_DEVICES", "1", 1);
  const auto machine = discover_machine();
  unsetenv("CUDA_VISIBLE_DEVICES");
  CHECK(indices(machine->gpus) == Indices{1});
  REQUIRE_FALSE(machine->notes.empty());
  CHECK(machine->notes.front() == "CUDA_VISIBLE_DEVICES leaves 1 of 3 GPUs");
}
