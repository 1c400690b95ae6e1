// The step-time model against published and measured steps, and NCCL's formulas against measured collectives.
#include "topology/cost/step_time.hpp"

#include <cmath>
#include <cstdio>
#include <limits>
#include <random>

#include "tests/topology/cost/shapes.hpp"
#include "tests/catch.hpp"

using namespace mds::topology::cost;
using namespace mds::topology::cost::tests;

TEST_CASE("step times are within 8 % of Megatron's table 5 on average", "[cost]") {
  double sum = 0;
  std::printf("| A100, arXiv 2205.05198 | full: predicted, published | selective: predicted, published |\n");
  for (const MegatronRun& run : kMegatronRuns) {
    const Machines selene = machines("A100", run.pipeline, 8, 80, 25);
    const double full = estimate_step(work_of(run, Recompute::full, false), selene).total();
    const double selective = estimate_step(work_of(run, Recompute::selective, true), selene).total();
    std::printf("| %s | %.2f %.2f (%+.1f %%) | %.2f %.2f (%+.1f %%) |\n", run.name, full, run.full,
                100 * (full / run.full - 1), selective, run.selective, 100 * (selective / run.selective - 1));
    sum += std::abs(full / run.full - 1) + std::abs(selective / run.selective - 1);
    CHECK(std::abs(full / run.full - 1) < 0.12);
    CHECK(std::abs(selective / run.selective - 1) < 0.12);
  }
  std::printf("mean difference %.1f %%\n", 100 * sum / 8);
  CHECK(sum / 8 <= 0.08);
}

TEST_CASE("a layer takes what Megatron's table 4 says", "[cost]") {
  // Milliseconds of the 22B model's layer: forward, backward with recomputation.
  const Machines node = machines("A100", 1, 8, 80, 25);
  const auto check = [&](Recompute recompute, bool sequence_parallel, double forward, double backward) {
    const LayerTime layer = estimate_layer(work_of(kMegatronRuns[0], recompute, sequence_parallel), node);
    INFO(1e3 * layer.forward << " + " << 1e3 * (layer.backward + layer.recompute));
    CHECK(std::abs(1e3 * layer.forward / forward - 1) < 0.08);
    CHECK(std::abs(1e3 * (layer.backward + layer.recompute) / backward - 1) < 0.08);
  };
  check(Recompute::none, false, 7.7, 11.9);
  check(Recompute::none, true, 7.2, 11.8);
  check(Recompute::full, false, 7.7, 19.5);
  check(Recompute::selective, true, 7.2, 13.1);
}

TEST_CASE("throughput is within 8 % of what our trainer measured on H200s", "[cost]") {
  std::printf("| job | predicted tokens/s a GPU | measured | difference |\n|---|---|---|---|\n");
  for (const OwnRun& run : kOwnRuns) {
    const int gpus = run.tensor * run.pipeline * run.data;
    const Machines node = machines("H200", 1, gpus, 90, 370);
    const double rate = static_cast<double>(run.batch) * 8192 / estimate_step(work_of(run), node).total() / gpus;
    std::printf("| %s | %.0f | %.0f | %+.1f %% |\n", run.name, rate, run.tokens_per_second,
                100 * (rate / run.tokens_per_second - 1));
    INFO(run.name);
    CHECK(std::abs(rate / run.tokens_per_second - 1) < 0.08);
  }
}

TEST_CASE("collectives take what they took on four H200s", "[cost]") {
  // Bus bandwidths (GB/s) that NCCL 2.28 reached there without NVLink SHARP, from 16 MiB on.
  const Links links = machines("H200", 1, 4, 90, 0).links;
  const Group four{4, 4};
  const auto bus = [&](Collective what, double mib) {
    const double bytes = mib * (1 << 20), passes = what == Collective::all_reduce ? 1.5 : 0.75;
    return passes * bytes / collective_seconds(what, bytes, four, links) / 1e9;
  };
  const struct {
    Collective what;
    double mib, measured;
  } rows[] = {{Collective::all_reduce, 16, 257},   {Collective::all_reduce, 256, 339},
              {Collective::all_reduce, 1024, 354}, {Collective::all_gather, 16, 188},
              {Collective::all_gather, 256, 306},  {Collective::all_gather, 1024, 326},
              {Collective::reduce_scatter, 16, 211}, {Collective::reduce_scatter, 256, 298},
              {Collective::reduce_scatter, 1024, 322}};
  for (const auto& row : rows) {
    INFO(row.mib << " MiB: " << bus(row.what, row.mib) << " against " << row.measured);
    CHECK(std::abs(bus(row.what, row.mib) / row.measured - 1) < 0.3);  // the tuner's own formulas are no better
  }
}

TEST_CASE("more bytes, more nodes and slower networks never make a collective quicker", "[cost]") {
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  for (int round = 0; round < 500; ++round) {
    const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    Links links{static_cast<LinkHardware>(pick(0, 2)), 20.0 * pick(1, 40), 12.5 * pick(1, 8),
                pick(0, 1) ? 80 : 90, false, pick(0, 1) == 1};
    const auto what = static_cast<Collective>(pick(0, 2));
    const Group group{8 * pick(1, 64), 8};
    const double bytes = std::exp2(pick(8, 32));
    INFO("seed " << seed << ", round " << round);
    const double seconds = collective_seconds(what, bytes, group, links);
    REQUIRE(seconds > 0);
    REQUIRE(seconds < std::numeric_limits<double>::infinity());
    REQUIRE(collective_seconds(what, 4 * bytes, group, links) >= seconds);
    links.network /= 4;
    REQUIRE(collective_seconds(what, bytes, group, links) >= seconds * 0.999);
  }
  CHECK(collective_seconds(Collective::all_reduce, 1e9, {1, 1}, {}) == 0);
}

TEST_CASE("the parts of a step add up, and a pipeline's bubble is its schedule's", "[cost]") {
  Work w = work_of(kMegatronRuns[1], Recompute::none, true);
  const Machines nodes = machines("A100", 8, 8, 80, 25);
  const auto bubble = [&](Schedule schedule, int chunks) {
    w.layout.schedule = schedule;
    w.layout.virtual_stages = chunks;
    const StepTime step = estimate_step(w, nodes);
    CHECK(step.total() > step.bubble);
    return step.bubble;
  };
  const double plain = bubble(Schedule::one_f_one_b, 1);
  CHECK(bubble(Schedule::gpipe, 1) == Approx(plain));
  CHECK(bubble(Schedule::interleaved, 3) < plain * 0.4);
  CHECK(bubble(Schedule::zero_bubble, 1) < plain * 0.7);
  w.layout.pipeline = 1;
  CHECK(bubble(Schedule::one_f_one_b, 1) == Approx(0).margin(1e-9));
}
