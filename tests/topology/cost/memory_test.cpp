// The memory model against what was published and what our trainer measured.
#include "topology/cost/memory.hpp"

#include <cmath>
#include <cstdio>
#include <random>

#include "tests/topology/cost/shapes.hpp"
#include "tests/catch.hpp"

using namespace mds::topology::cost;
using namespace mds::topology::cost::tests;

namespace {

void check_within(double predicted, double published, double share) {
  INFO("predicted " << predicted << ", published " << published);
  CHECK(std::abs(predicted / published - 1) <= share);
}

Work random_work(std::mt19937_64& random) {
  const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  Work w;
  w.model = llama(1024 * pick(1, 8), pick(8, 64), 16, 2048 * pick(1, 8));
  w.layout.tensor = 1 << pick(0, 3);
  w.layout.pipeline = pick(1, 8);
  w.layout.data = pick(1, 16);
  w.layout.sequence_parallel = w.layout.tensor > 1 && pick(0, 1) == 1;
  w.seq_len = 512 << pick(0, 4);
  w.micro_batch = pick(1, 4);
  w.global_batch = w.layout.data * w.micro_batch * pick(1, 32);
  w.zero_stage = pick(0, 3);
  w.recompute = static_cast<Recompute>(pick(0, 2));
  w.layout.schedule = static_cast<Schedule>(pick(0, 1));
  return w;
}

}  // namespace

TEST_CASE("memory is within 5 % of Megatron's published figures", "[cost]") {
  for (const MegatronRun& run : kMegatronRuns) {
    INFO(run.name);
    const Work none = work_of(run, Recompute::none, false), selective = work_of(run, Recompute::selective, true);
    // The paper counts the layers' parameters: a stage between the ends has no others. 22B has one stage only.
    check_within(gib(estimate_memory(none, run.pipeline > 1 ? 1 : 0).state()), run.state, 0.05);
    check_within(gib(estimate_memory(none, 0).activations), run.activations, 0.01);
    check_within(gib(estimate_memory(selective, 0).activations), run.activations_selective, 0.01);
  }
}

TEST_CASE("activations shrink as in Megatron's figure 7", "[cost]") {
  // Shares of no recomputation without sequence parallelism: sequence parallel, selective, both.
  const double published[4][3] = {
      {.6684, .4942, .1618}, {.6204, .5653, .1849}, {.5831, .6204, .2027}, {.5831, .6204, .2027}};
  for (int i = 0; i < 4; ++i) {
    const auto kept = [&](Recompute recompute, bool sequence_parallel) {
      return static_cast<double>(layer_activations(work_of(kMegatronRuns[i], recompute, sequence_parallel), recompute));
    };
    INFO(kMegatronRuns[i].name);
    const double all = kept(Recompute::none, false);
    check_within(kept(Recompute::none, true) / all, published[i][0], 0.01);
    check_within(kept(Recompute::selective, false) / all, published[i][1], 0.01);
    check_within(kept(Recompute::selective, true) / all, published[i][2], 0.01);
  }
}

TEST_CASE("memory is within 5 % of what our trainer measured on H200s", "[cost]") {
  std::printf("| job | predicted GiB | measured GiB | difference |\n|---|---|---|---|\n");
  for (const OwnRun& run : kOwnRuns) {
    INFO(run.name);
    const double predicted = gib(fullest_stage(work_of(run)).memory.tensors());
    std::printf("| %s | %.1f | %.1f | %+.1f %% |\n", run.name, predicted, run.gib, 100 * (predicted / run.gib - 1));
    check_within(predicted, run.gib, 0.05);
  }
}

TEST_CASE("the fullest stage is the fullest of all", "[cost]") {
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  for (int round = 0; round < 500; ++round) {
    const Work work = random_work(random);
    INFO("seed " << seed << ", round " << round);
    int64_t most = 0;
    for (int stage = 0; stage < work.layout.pipeline; ++stage) {
      most = std::max(most, estimate_memory(work, stage).total());
    }
    REQUIRE(fullest_stage(work).memory.total() == most);
  }
}

TEST_CASE("whatever saves memory saves it", "[cost]") {
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  for (int round = 0; round < 300; ++round) {
    Work work = random_work(random);
    INFO("seed " << seed << ", round " << round);
    const Memory before = estimate_memory(work, 0);
    Work changed = work;
    changed.recompute = Recompute::full;
    REQUIRE(estimate_memory(changed, 0).activations <= before.activations);
    changed = work;
    changed.layout.tensor *= 2;
    REQUIRE(estimate_memory(changed, 0).total() <= before.total() + 200'000'000);  // one communicator more
    changed = work;
    changed.offload_optimizer = Offload::cpu;
    REQUIRE(estimate_memory(changed, 0).optimizer == 0);
    REQUIRE(estimate_memory(changed, 0).host >= before.optimizer);
    int64_t state = INT64_MAX;
    for (work.zero_stage = 0; work.zero_stage <= 3; ++work.zero_stage) {
      REQUIRE(estimate_memory(work, 0).state() <= state);
      state = estimate_memory(work, 0).state();
    }
  }
}

TEST_CASE("schedules keep as many micro batches as their papers say", "[cost]") {
  Work w = work_of(kMegatronRuns[1], Recompute::none, false);  // 175B: 12 layers a stage, 8 stages
  w.layout.virtual_stages = 1;
  w.layout.schedule = Schedule::one_f_one_b;
  CHECK(layers_in_flight(w, 0) == 96);
  CHECK(layers_in_flight(w, 7) == 12);
  w.layout.schedule = Schedule::gpipe;
  CHECK(layers_in_flight(w, 7) == 12 * 64);
  w.layout.schedule = Schedule::zero_bubble;
  CHECK(layers_in_flight(w, 7) == 96);
  w.layout.schedule = Schedule::interleaved;
  w.layout.virtual_stages = 3;
  CHECK(layers_in_flight(w, 0) == Approx(96 * (1 + 7.0 / (8 * 3))));
  w.global_batch = 2;  // fewer micro batches than stages
  w.layout.schedule = Schedule::one_f_one_b;
  w.layout.virtual_stages = 1;
  CHECK(layers_in_flight(w, 0) == 24);
}
