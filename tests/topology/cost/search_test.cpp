// The layout search: complete, quick, deterministic, and right where a plain enumeration can tell.
#include "topology/cost/search.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>

#include "tests/topology/cost/shapes.hpp"
#include "tests/catch.hpp"
#include "topology/read/synthetic.hpp"

using namespace mds::topology::cost;
using namespace mds::topology::cost::tests;

namespace {

Freedom everything() {
  Freedom all;
  all.tensor = all.sequence_parallel = all.context = all.pipeline = all.data = all.micro_batch = true;
  all.virtual_stages = true;
  return all;
}

Work llama_405b() {
  Work w;
  w.model = llama(16384, 126, 128, 53248);
  w.seq_len = 8192;
  w.global_batch = 2560;
  return w;
}

}  // namespace

TEST_CASE("all layouts of a 405B model on 5,120 GPUs take less than 100 ms", "[cost]") {
  const Machines cluster = machines("H100", 640, 8, 90, 50);
  const auto begin = std::chrono::steady_clock::now();
  const SearchResult found = search_layouts(llama_405b(), cluster, everything(), 5);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("405B on 5,120 GPUs: %zu layouts, %zu fit, %.1f ms\n", found.considered, found.fitting, 1e3 * seconds);
  CHECK(seconds < 0.5);  // 3 ms on an idle machine; a busy or instrumented one may take its time
  CHECK(found.considered > 1000);
  REQUIRE(found.best.size() == 5);
  CHECK(found.best.front().fits);
  CHECK(found.best.front().work.layout.tensor > 1);
  CHECK(found.best.front().work.layout.tensor <= 8);  // stays in the NVLink domain
}

TEST_CASE("the search finds the best of a plain enumeration, twice the same", "[cost]") {
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  for (int round = 0; round < 20; ++round) {
    const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    Work work;
    work.model = llama(2048 * pick(1, 4), 8 * pick(1, 8), 32, 8192);
    work.seq_len = 4096;
    work.global_batch = 16 << pick(0, 4);
    work.recompute = static_cast<Recompute>(pick(0, 2));
    const Machines cluster = machines("H100", 1 << pick(0, 3), 8, 90, 50);
    Freedom freedom = everything();
    freedom.context = freedom.virtual_stages = false;
    const SearchResult found = search_layouts(work, cluster, freedom, 1);
    INFO("seed " << seed << ", round " << round);
    if (found.fitting == 0) continue;

    double best = 1e30;
    const int ranks = cluster.nodes * 8;
    for (int t = 1; t <= 8; ++t) {
      for (int p = 1; p <= ranks; ++p) {
        for (int64_t micro_batch = 1; micro_batch <= 16; ++micro_batch) {
          Work w = work;
          w.layout.tensor = t;
          w.layout.pipeline = p;
          w.layout.sequence_parallel = t > 1;
          if (ranks % (t * p) != 0) continue;
          w.layout.data = ranks / t / p;
          w.micro_batch = micro_batch;
          if (!is_possible(w, cluster)) continue;
          const Candidate candidate = judge(w, cluster);
          if (candidate.fits) best = std::min(best, candidate.seconds());
        }
      }
    }
    REQUIRE(found.best.front().seconds() == Approx(best));
    const SearchResult again = search_layouts(work, cluster, freedom, 1);
    REQUIRE(again.best.front().work.layout == found.best.front().work.layout);
  }
}

TEST_CASE("what is fixed stays, and nothing impossible is proposed", "[cost]") {
  Work work = llama_405b();
  work.layout.tensor = 4;
  work.micro_batch = 2;
  Freedom freedom;
  freedom.pipeline = freedom.data = true;
  const Machines cluster = machines("H100", 64, 8, 90, 50);
  for (const Candidate& one : search_layouts(work, cluster, freedom, 1000).best) {
    CHECK(one.work.layout.tensor == 4);
    CHECK(one.work.micro_batch == 2);
    CHECK(is_possible(one.work, cluster));
  }
}

TEST_CASE("proposed changes make the job fit, and no single one is overlooked", "[cost]") {
  Work work;
  work.model = llama(4096, 32, 32, 14336);
  work.seq_len = 8192;
  work.global_batch = 64;
  work.layout.data = 8;
  const Machines node = machines("H100", 1, 8, 90, 50);
  REQUIRE_FALSE(judge(work, node).fits);
  const auto any = [](const Work&) { return true; };
  const auto remedies = what_would_fit(work, node, any, 100);
  REQUIRE_FALSE(remedies.empty());
  for (const Candidate& remedy : remedies) {
    CHECK(judge(remedy.work, node).fits);
    CHECK(changes(work, remedy.work) == changes(work, remedies.front().work));
  }
  // Selective recomputation alone is not enough, full is, and so is a wider tensor group.
  Work changed = work;
  changed.recompute = Recompute::selective;
  CHECK_FALSE(judge(changed, node).fits);
  changed.recompute = Recompute::full;
  CHECK(judge(changed, node).fits);
  Work wider = work;
  wider.layout.tensor = 8;
  wider.layout.data = 1;
  CHECK(judge(wider, node).fits);
  CHECK(changes(work, remedies.front().work) == 1);
  const auto proposed = [&](const Work& wanted) {
    return std::any_of(remedies.begin(), remedies.end(), [&](const Candidate& remedy) {
      return remedy.work.layout == wanted.layout && remedy.work.recompute == wanted.recompute &&
             remedy.work.zero_stage == wanted.zero_stage && remedy.work.offload_optimizer == wanted.offload_optimizer;
    });
  };
  CHECK(proposed(changed));
  CHECK(proposed(wider));
  const auto none = what_would_fit(work, node, [](const Work&) { return false; }, 10);
  CHECK(none.empty());
}

TEST_CASE("machines are described by their weakest part", "[cost]") {
  const auto cluster = mds::topology::synthetic_cluster("dgx-h100 x4");
  REQUIRE(cluster.ok());
  const Machines machines = describe_machines(*cluster, true, 4, 8, "tp-cp-dp-pp");
  CHECK(machines.device.name == "H100");
  CHECK(machines.domain == 8);
  CHECK(machines.links.inside == Approx(370).epsilon(0.25));
  CHECK(machines.links.network == Approx(50).epsilon(0.1));
  Layout layout;
  layout.tensor = 4;
  layout.data = 4;
  layout.pipeline = 2;
  using mds::topology::Axis;
  CHECK(group_along(Axis::tensor, layout, machines).per_node == 4);
  CHECK(group_along(Axis::data, layout, machines).ranks == 4);
  CHECK(group_along(Axis::data, layout, machines).per_node == 2);
  CHECK(group_along(Axis::pipeline, layout, machines).per_node == 1);

  mds::topology::Gpu unknown;
  unknown.name = "Abacus 9000";
  CHECK_FALSE(device_class(unknown).has_value());
  unknown.sm = 86;
  CHECK(device_class(unknown)->name == "A100");
  CHECK(device_class("NVIDIA H200")->name == "H200");
  CHECK(device_class("NVIDIA H20")->name == "H20");
  CHECK(device_class("NVIDIA GH200 480GB")->name == "GH200");
  CHECK(device_class("NVIDIA A100-SXM4-80GB")->name == "A100");

  const auto host = mds::topology::synthetic_cluster("cpu:cores=8,memory=32GiB");
  const Machines cpu = describe_machines(*host, false, 1, 4, "tp-cp-dp-pp");
  CHECK(cpu.memory_bytes == uint64_t{8} << 30);
  CHECK(cpu.rates_known);
}
