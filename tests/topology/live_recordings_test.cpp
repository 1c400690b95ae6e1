// What discovery found on real machines beside what NCCL wrote of the same machine in the same minute
// (NCCL_TOPO_DUMP_FILE): tests/topology/recordings/live-*/{topo.json, nccl_dump.xml}.
#include <algorithm>
#include <filesystem>
#include <set>
#include <string>

#include "tests/topology/recordings.hpp"
#include "topology/paths.hpp"
#include "topology/read/open_topology.hpp"
#include "tests/catch.hpp"

namespace fs = std::filesystem;
using namespace mds::topology;
using namespace mds::topology::tests;

namespace {

Machine one_machine(const fs::path& file) {
  const auto cluster = open_topology(file.string());
  INFO(file);
  REQUIRE(cluster.ok());
  REQUIRE(cluster->nodes.size() == 1);
  return cluster->nodes.front();
}

}  // namespace

TEST_CASE("discovery and NCCL see the same machine", "[recordings]") {
  const fs::path folder = fs::path(__FILE__).parent_path() / "recordings";
  size_t machines = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.path().filename().string().starts_with("live-")) continue;
    INFO(entry.path());
    const Machine ours = one_machine(entry.path() / "topo.json");
    const Machine nccl = one_machine(entry.path() / "nccl_dump.xml");
    REQUIRE(ours.gpus.size() == nccl.gpus.size());
    for (size_t i = 0; i < ours.gpus.size(); ++i) {
      CHECK(ours.gpus[i].bus_id == nccl.gpus[i].bus_id);
      CHECK(ours.gpus[i].sm == nccl.gpus[i].sm);
      CHECK(ours.gpus[i].numa == nccl.gpus[i].numa);
    }
    CHECK(ours.links.size() == nccl.links.size());
    for (const Nic& theirs : nccl.nics) {  // we also list NICs that NCCL leaves out, such as ones that are down
      CHECK(std::any_of(ours.nics.begin(), ours.nics.end(), [&](const Nic& nic) { return nic.name == theirs.name; }));
    }
    const Paths here = find_paths(ours), there = find_paths(nccl);
    REQUIRE(here.gpu_gpu.size() == there.gpu_gpu.size());
    for (size_t i = 0; i < here.gpu_gpu.size(); ++i) CHECK(here.gpu_gpu[i].kind == there.gpu_gpu[i].kind);
    ++machines;
  }
  CHECK(machines >= 1);
}
