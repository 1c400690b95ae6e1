// Loss, logits and every gradient of whole models under every layout, against autograd and against one rank.
#include <random>

#include "tests/trainer/model/reference.hpp"
// clang-format off: last, because c10 defines CHECK, too
#include "tests/catch.hpp"
// clang-format on

namespace mds::trainer {
namespace {

using namespace testing;

uint64_t fresh_seed() { return std::random_device{}(); }

struct Case {
  ModelConfig model;
  std::vector<MicroBatch> batches;
  double denominator = 1;
};

/// A tiny model whose sizes suit tensor sizes 1, 2 and 4; the vocabulary is divisible by none of them.
Case random_case(Architecture architecture, std::mt19937_64& random) {
  const auto pick = [&](std::vector<int64_t> of) { return of[random() % of.size()]; };
  Case c;
  ModelConfig& m = c.model;
  m.architecture = architecture;
  m.num_attention_heads = pick({4, 8, 12});
  m.num_key_value_heads = architecture == Architecture::llama ? 4 : m.num_attention_heads;
  m.head_dim = pick({4, 6, 8});
  m.hidden_size = m.num_attention_heads * m.head_dim;
  m.num_layers = pick({2, 3});
  m.intermediate_size = pick({20, 36, 4 * m.hidden_size});
  m.vocab_size = pick({37, 51, 67});
  m.max_position_embeddings = 32;
  m.tie_word_embeddings = architecture != Architecture::llama || random() % 2;
  const int64_t seq = pick({8, 12, 16}), batch = pick({1, 2, 3});
  at::Generator generator = at::detail::createCPUGenerator(random());
  for (int i = 0; i < 2; ++i) {
    const at::Tensor tokens = at::randint(0, m.vocab_size, {batch, seq + 1}, generator, at::kLong);
    at::Tensor labels = tokens.narrow(1, 1, seq).clone();
    labels[0][random() % seq] = -100;
    c.batches.push_back({tokens.narrow(1, 0, seq).contiguous(), labels});
  }
  c.denominator = static_cast<double>(2 * batch * seq);
  return c;
}

std::string describe(Architecture a, uint64_t seed) {
  return std::string(to_string(a)) + ", seed " + std::to_string(seed);
}

constexpr Architecture kArchitectures[] = {Architecture::gpt3, Architecture::llama, Architecture::bloom};

void check_same(const LayoutResult& got, const LayoutResult& want, double tolerance) {
  CHECK(got.loss == Approx(want.loss).epsilon(tolerance));
  CHECK(got.evaluated == Approx(want.loss).epsilon(tolerance));
  CHECK(relative_error(got.logits, want.logits) < tolerance);
  REQUIRE(got.gradients.size() == want.gradients.size());
  for (const auto& [name, gradient] : want.gradients) {
    INFO(name);
    REQUIRE(got.gradients.at(name).isfinite().all().item<bool>());
    CHECK(relative_error(got.gradients.at(name), gradient) < tolerance);
  }
}

TEST_CASE("whole models: loss, logits and gradients equal autograd's") {
  for (const Architecture architecture : kArchitectures) {
    const uint64_t seed = fresh_seed();
    INFO(describe(architecture, seed));
    std::mt19937_64 random(seed);
    const Case c = random_case(architecture, random);
    const Tensors values = random_values(c.model, seed);
    const LayoutResult got = run_layout(c.model, {}, values, c.batches, c.denominator, /*loss_scale=*/3.0);

    const Reference reference(c.model, values);
    for (const MicroBatch& batch : c.batches) (reference.loss(batch, c.denominator) * 3.0).backward();
    LayoutResult want;
    want.loss = reference.loss(c.batches.back(), c.denominator).item<double>();
    want.logits = reference.logits(c.batches.back().tokens).detach();
    for (const auto& [name, value] : values) want.gradients[name] = reference.gradient(name);
    check_same(got, want, 1e-10);
  }
}

TEST_CASE("whole models: every layout equals one rank") {
  for (const Architecture architecture : kArchitectures) {
    const uint64_t seed = fresh_seed();
    INFO(describe(architecture, seed));
    std::mt19937_64 random(seed);
    Case c = random_case(architecture, random);
    const Tensors values = random_values(c.model, seed);
    const LayoutResult want = run_layout(c.model, {}, values, c.batches, c.denominator);
    for (const int tensor : {1, 2, 4}) {
      for (const int pipeline : {1, 2}) {
        for (const bool sequence_parallel : {false, true}) {
          Layout layout{tensor, pipeline, sequence_parallel};
          layout.recompute = static_cast<Recompute>(random() % 3);
          layout.vocabulary_tile = 1 + static_cast<int64_t>(random() % 16);
          INFO("tensor " << tensor << " pipeline " << pipeline << " sequence_parallel " << sequence_parallel
                         << " recompute " << to_string(layout.recompute) << " vocabulary tile "
                         << layout.vocabulary_tile);
          check_same(run_layout(c.model, layout, values, c.batches, c.denominator), want, 1e-12);
        }
      }
    }
  }
}

TEST_CASE("recomputation changes no bit") {
  const uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const Case c = random_case(kArchitectures[random() % 3], random);
  const Tensors values = random_values(c.model, seed, at::kFloat);
  Layout layout{1, 1, false, Recompute::none, at::kFloat, at::kFloat};
  const LayoutResult want = run_layout(c.model, layout, values, c.batches, c.denominator);
  for (const Recompute recompute : {Recompute::selective, Recompute::full}) {
    layout.recompute = recompute;
    const LayoutResult got = run_layout(c.model, layout, values, c.batches, c.denominator);
    CHECK(got.loss == want.loss);
    for (const auto& [name, gradient] : want.gradients) CHECK(at::equal(got.gradients.at(name), gradient));
  }
}

TEST_CASE("bf16 with fp32 gradients stays near float64") {
  for (const Architecture architecture : kArchitectures) {
    const uint64_t seed = fresh_seed();
    INFO(describe(architecture, seed));
    std::mt19937_64 random(seed);
    const Case c = random_case(architecture, random);
    const Tensors values = random_values(c.model, seed);
    const LayoutResult want = run_layout(c.model, {}, values, c.batches, c.denominator);
    for (const int tensor : {1, 2}) {
      Layout layout{tensor, 1, true, Recompute::selective, at::kBFloat16, at::kFloat};
      const LayoutResult got = run_layout(c.model, layout, values, c.batches, c.denominator);
      CHECK(got.loss == Approx(want.loss).epsilon(0.05));
      for (const auto& [name, gradient] : want.gradients) {
        INFO(name);
        CHECK(got.gradients.at(name).scalar_type() == at::kFloat);
        // The true gradient of key biases is zero (the softmax ignores them): only noise is left to compare.
        if (name.find("key.bias") == std::string::npos) CHECK(relative_error(got.gradients.at(name), gradient) < 0.15);
      }
    }
  }
}

TEST_CASE("initial weights do not depend on the layout") {
  const uint64_t seed = fresh_seed();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const Case c = random_case(kArchitectures[random() % 3], random);
  Tensors whole;
  for (const int size : {1, 2, 4}) {
    auto groups = make_local_group(size);
    for (int rank = 0; rank < size; ++rank) {
      for (int stage = 0; stage < 2; ++stage) {
        ParallelConfig parallel;
        parallel.tensor = size;
        auto model =
            StageModel::make(c.model, parallel, Recompute::none, {at::kFloat, at::kCPU, stage, 2}, *groups[rank]);
        bind(model->parameters(), at::kFloat, at::kFloat);
        initialize(model->parameters(), c.model, seed);
        for (const Parameter* p : model->parameters()) {
          for (const LogicalSlice& s : p->slices) {
            const at::Tensor local = p->value.narrow(0, s.local_begin, s.local_rows);
            if (size == 1) whole[s.name] = local;
            CHECK(at::equal(local, block_of(whole.at(s.name), s, local)));
            if (s.init == Init::normal) CHECK(local.std().item<double>() == Approx(c.model.init_std).epsilon(0.5));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace mds::trainer
