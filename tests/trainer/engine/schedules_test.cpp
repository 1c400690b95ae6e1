#include <cmath>
#include <random>

#include "trainer/engine/batches.hpp"
#include "trainer/engine/lr_schedule.hpp"
#include "trainer/engine/pipeline_schedule.hpp"

#include "tests/catch.hpp"   // last: c10 defines CHECK, too

namespace mds::trainer {

TEST_CASE("learning rate: warm-up, decay, end", "[engine]") {
  LrScheduleConfig schedule;
  schedule.warmup_steps = 10;
  schedule.min_lr = 1e-4;
  schedule.decay = "cosine";
  CHECK(learning_rate(1e-2, schedule, 1, 110) == Approx(1e-3));
  CHECK(learning_rate(1e-2, schedule, 10, 110) == Approx(1e-2));
  CHECK(learning_rate(1e-2, schedule, 60, 110) == Approx((1e-2 + 1e-4) / 2));
  CHECK(learning_rate(1e-2, schedule, 35, 110) == Approx(1e-4 + (1e-2 - 1e-4) * (1 + std::sqrt(0.5)) / 2));
  CHECK(learning_rate(1e-2, schedule, 110, 110) == Approx(1e-4));
  schedule.decay = "linear";
  CHECK(learning_rate(1e-2, schedule, 35, 110) == Approx(1e-2 - 0.25 * (1e-2 - 1e-4)));
  CHECK(learning_rate(1e-2, schedule, 110, 110) == Approx(1e-4));
  schedule.decay = "constant";
  CHECK(learning_rate(1e-2, schedule, 5, 110) == Approx(5e-3));
  CHECK(learning_rate(1e-2, schedule, 110, 110) == Approx(1e-2));
  schedule.warmup_steps = 0;
  schedule.decay = "cosine";
  CHECK(learning_rate(1e-2, schedule, 1, 1) == Approx(1e-4));
}

TEST_CASE("1F1B keeps few micro batches in flight, and neighbours agree on the order", "[engine]") {
  using Kind = PipelineOp::Kind;
  CHECK(pipeline_schedule(Schedule::one_f_one_b, 0, 2, 3) ==
        std::vector<PipelineOp>{{Kind::forward, 0}, {Kind::forward, 1}, {Kind::backward, 0}, {Kind::forward, 2},
                                {Kind::backward, 1}, {Kind::backward, 2}});
  CHECK(pipeline_schedule(Schedule::one_f_one_b, 1, 2, 2) ==
        std::vector<PipelineOp>{{Kind::forward, 0}, {Kind::backward, 0}, {Kind::forward, 1}, {Kind::backward, 1}});
  CHECK(pipeline_schedule(Schedule::gpipe, 1, 2, 2) ==
        std::vector<PipelineOp>{{Kind::forward, 0}, {Kind::forward, 1}, {Kind::backward, 0}, {Kind::backward, 1}});
  for (int stages = 1; stages <= 5; ++stages) {
    for (int micro_batches = 0; micro_batches <= 9; ++micro_batches) {
      for (int stage = 0; stage < stages; ++stage) {
        INFO("stage " << stage << " of " << stages << ", " << micro_batches << " micro batches");
        int forward = 0, backward = 0, in_flight = 0, in_flight_max = 0;
        for (const PipelineOp& op : pipeline_schedule(Schedule::one_f_one_b, stage, stages, micro_batches)) {
          // Messages between neighbours are told apart by their order alone.
          CHECK(op.micro_batch == (op.kind == Kind::forward ? forward : backward));
          (op.kind == Kind::forward ? forward : backward)++;
          in_flight += op.kind == Kind::forward ? 1 : -1;
          in_flight_max = std::max(in_flight_max, in_flight);
          CHECK(in_flight >= 0);
        }
        CHECK(forward == micro_batches);
        CHECK(backward == micro_batches);
        CHECK(in_flight_max == std::min(micro_batches, stages - stage));
      }
    }
  }
}

TEST_CASE("every layout trains on the same samples, each once", "[engine]") {
  const uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 50; ++trial) {
    const int64_t micro = 1 + static_cast<int64_t>(random() % 4), count = 1 + static_cast<int64_t>(random() % 5);
    const int size = 1 + static_cast<int>(random() % 4);
    const int64_t first = static_cast<int64_t>(random() % 1000);
    std::vector<int> seen(static_cast<size_t>(micro * count * size));
    for (int rank = 0; rank < size; ++rank) {
      const BatchShape shape{8, micro, count, rank, size};
      CHECK(shape.global_batch_size() == static_cast<int64_t>(seen.size()));
      for (int64_t m = 0; m < count; ++m) {
        for (int64_t i = 0; i < micro; ++i) ++seen.at(static_cast<size_t>(sample_index(shape, first, m, i) - first));
      }
    }
    CHECK(seen == std::vector<int>(seen.size(), 1));
  }
}

}  // namespace mds::trainer
