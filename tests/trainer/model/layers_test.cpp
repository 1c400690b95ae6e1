// Every layer's backward against autograd in float64, alone and split over tensor ranks.
#include <functional>
#include <random>

#include "tests/trainer/model/reference.hpp"
#include "trainer/model/decoder_layer.hpp"
#include "trainer/model/language_head.hpp"
// clang-format off: last, because c10 defines CHECK, too
#include "tests/catch.hpp"
// clang-format on

namespace mds::trainer {
namespace {

using namespace testing;

constexpr double kTolerance = 1e-10;

/// One random layer to test: a model's sizes, how it is split, an input and a gradient of the output.
struct LayerCase {
  uint64_t seed = std::random_device{}();
  std::mt19937_64 random{seed};
  at::Generator generator = at::detail::createCPUGenerator(seed);
  ModelConfig model;
  int tensor = 1;
  bool sequence_parallel = false;
  int64_t seq = 8, batch = 1;
  Tensors values;

  explicit LayerCase(Architecture architecture) {
    const auto pick = [&](std::vector<int64_t> of) { return of[random() % of.size()]; };
    tensor = static_cast<int>(pick({1, 2, 4}));
    sequence_parallel = random() % 2;
    seq = pick({4, 8, 20});
    batch = pick({1, 2, 3});
    model.architecture = architecture;
    model.num_layers = 1;
    model.num_attention_heads = pick({4, 12});
    model.num_key_value_heads = architecture == Architecture::llama ? 4 : model.num_attention_heads;
    model.head_dim = pick({2, 6, 10});
    model.hidden_size = pick({16, 22, 30});
    model.intermediate_size = pick({5, 24, 31});
    model.vocab_size = pick({11, 40});
    model.max_position_embeddings = 24;
    model.tie_word_embeddings = true;
    values = random_values(model, seed);
  }
  at::Tensor draw(std::vector<int64_t> shape) { return at::randn(shape, generator, at::kDouble); }
  std::string text() const {
    return std::string(to_string(model.architecture)) + ", seed " + std::to_string(seed) + ", tensor " +
           std::to_string(tensor) + (sequence_parallel ? ", sequence parallel" : "");
  }
};

struct LayerResult {
  at::Tensor y, dx;  ///< whole
  Tensors gradients;
};

/// Given a rank's region and parameters (declared in the call, bound after it), makes the function that runs forward
/// and backward on this rank's x and dy.
using Pass = std::function<std::pair<at::Tensor, at::Tensor>(const at::Tensor& x, const at::Tensor& dy)>;
using MakePass = std::function<Pass(const TensorRegion&, ParameterSet&)>;

LayerResult run_layer(const LayerCase& c, const at::Tensor& x, const at::Tensor& dy, const MakePass& make) {
  auto groups = make_local_group(c.tensor);
  std::vector<std::unique_ptr<ParameterSet>> sets(c.tensor);
  std::vector<at::Tensor> ys(c.tensor), dxs(c.tensor);
  on_ranks(c.tensor, [&](int rank) {
    const TensorRegion region(*groups[rank], c.sequence_parallel);
    sets[rank] = std::make_unique<ParameterSet>(rank, c.tensor, region.sequence_parallel());
    const Pass pass = make(region, *sets[rank]);
    bind(sets[rank]->all(), at::kDouble, at::kDouble);
    load(sets[rank]->all(), c.values);
    const int64_t part = x.size(0) / region.sequence_parts(), begin = region.sequence_parallel() ? part * rank : 0;
    std::tie(ys[rank], dxs[rank]) = pass(x.narrow(0, begin, part), dy.narrow(0, begin, part));
  });
  const bool parts = c.sequence_parallel && c.tensor > 1;
  LayerResult result{parts ? at::cat(ys) : ys[0], parts ? at::cat(dxs) : dxs[0], {}};
  std::vector<std::vector<Parameter*>> parameters;
  for (const auto& set : sets) parameters.push_back(set->all());
  result.gradients = collect_gradients(parameters);
  return result;
}

/// Compares with autograd through `reference`, which maps [batch, seq, hidden] to itself.
void check_layer(LayerCase& c, const MakePass& make,
                 const std::function<at::Tensor(const Reference&, const at::Tensor&)>& reference) {
  INFO(c.text());
  const std::vector<int64_t> shape{c.seq, c.batch, c.model.hidden_size};
  const at::Tensor x = c.draw(shape).requires_grad_(true), dy = c.draw(shape);
  const LayerResult got = run_layer(c, x.detach(), dy, make);
  const Reference oracle(c.model, c.values);
  const at::Tensor y = reference(oracle, x.transpose(0, 1)).transpose(0, 1);
  y.backward(dy);
  CHECK(relative_error(got.y, y.detach()) < kTolerance);
  CHECK(relative_error(got.dx, x.grad()) < kTolerance);
  REQUIRE(!got.gradients.empty());
  for (const auto& [name, gradient] : got.gradients) {
    INFO(name);
    CHECK(relative_error(gradient, oracle.gradient(name)) < kTolerance);
  }
}

constexpr Architecture kArchitectures[] = {Architecture::gpt3, Architecture::llama, Architecture::bloom};

PositionTables tables(const LayerCase& c, const TensorRegion& region) {
  const Range heads = split_range(c.model.num_attention_heads, region.group().rank(), region.group().size());
  return make_position_tables(c.model, c.seq, heads, at::kDouble, at::kCPU);
}

TEST_CASE("layers: attention") {
  for (const Architecture architecture : kArchitectures) {
    LayerCase c(architecture);
    const auto make = [&](const TensorRegion& region, ParameterSet& parameters) -> Pass {
      auto block = std::make_shared<SelfAttention>(c.model, "layers.0", region, parameters);
      return [block, positions = tables(c, region)](const at::Tensor& x, const at::Tensor& dy) {
        SelfAttention::Saved saved;
        const at::Tensor y = block->forward(x, positions, saved);
        return std::pair(y, block->backward(dy, positions, saved));
      };
    };
    check_layer(c, make, [](const Reference& r, const at::Tensor& x) { return r.attention(x, "layers.0.attention."); });
  }
}

TEST_CASE("layers: feed-forward") {
  for (const Architecture architecture : kArchitectures) {
    LayerCase c(architecture);
    const auto make = [&](const TensorRegion& region, ParameterSet& parameters) -> Pass {
      auto block = std::make_shared<FeedForward>(c.model, "layers.0", region, parameters);
      return [block](const at::Tensor& x, const at::Tensor& dy) {
        FeedForward::Saved saved;
        const at::Tensor y = block->forward(x, saved);
        return std::pair(y, block->backward(dy, saved));
      };
    };
    check_layer(c, make, [](const Reference& r, const at::Tensor& x) { return r.feed_forward(x, "layers.0.mlp."); });
  }
}

TEST_CASE("layers: norms") {
  for (const Architecture architecture : kArchitectures) {
    LayerCase c(architecture);
    const auto make = [&](const TensorRegion&, ParameterSet& parameters) -> Pass {
      return [norm = make_norm(c.model, "final_norm", parameters)](const at::Tensor& x, const at::Tensor& dy) {
        const kernels::NormOutput out = norm.forward(x);
        return std::pair(out.y, norm.backward(dy, x, out.statistics, {}));
      };
    };
    check_layer(c, make, [](const Reference& r, const at::Tensor& x) { return r.norm(x, "final_norm"); });
  }
}

TEST_CASE("layers: the decoder layer under every recomputation") {
  for (const Architecture architecture : kArchitectures) {
    for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
      LayerCase c(architecture);
      INFO(to_string(recompute));
      const auto make = [&](const TensorRegion& region, ParameterSet& parameters) -> Pass {
        auto layer = std::make_shared<DecoderLayer>(c.model, 0, recompute, region, parameters);
        return [layer, recompute, positions = tables(c, region)](const at::Tensor& x, const at::Tensor& dy) {
          DecoderLayer::Saved saved;
          const at::Tensor y = layer->forward(x, positions, saved);
          TORCH_CHECK(saved.middle.defined() == (recompute != Recompute::full));
          TORCH_CHECK(saved.feed_forward.activation.defined() == (recompute == Recompute::none));
          return std::pair(y, layer->backward(dy, positions, saved));
        };
      };
      check_layer(c, make, [](const Reference& r, const at::Tensor& x) {
        const at::Tensor middle = x + r.attention(r.norm(x, "layers.0.attention_norm"), "layers.0.attention.");
        return middle + r.feed_forward(r.norm(middle, "layers.0.mlp_norm"), "layers.0.mlp.");
      });
    }
  }
}

TEST_CASE("layers: word and position embedding") {
  LayerCase c(Architecture::gpt3);
  const at::Tensor tokens = at::randint(0, c.model.vocab_size, {c.seq, c.batch}, c.generator, at::kLong);
  const auto make = [&](const TensorRegion& region, ParameterSet& parameters) -> Pass {
    const VocabularyEmbedding word(
        parameters.split_rows("w", {{"embedding.word.weight", c.model.vocab_size, c.model.hidden_size}}), region);
    const PositionEmbedding position(
        parameters.replicated({"embedding.position.weight", c.model.max_position_embeddings, c.model.hidden_size}),
        region);
    return [=](const at::Tensor& x, const at::Tensor& dy) {
      at::Tensor y = word.forward(tokens);
      position.forward(y);
      word.backward_weight(dy, tokens);
      position.backward_weight(dy);
      return std::pair(y.add_(x), dy);  // a residual input, as the check wants an x
    };
  };
  INFO(c.text());
  const std::vector<int64_t> shape{c.seq, c.batch, c.model.hidden_size};
  const at::Tensor x = at::zeros(shape, at::kDouble), dy = c.draw(shape);
  const LayerResult got = run_layer(c, x, dy, make);
  const at::Tensor word = c.values.at("embedding.word.weight").clone().requires_grad_(true);
  const at::Tensor position = c.values.at("embedding.position.weight").clone().requires_grad_(true);
  const at::Tensor y = at::embedding(word, tokens) + position.narrow(0, 0, c.seq).unsqueeze(1);
  y.backward(dy);
  CHECK(relative_error(got.y, y.detach()) < kTolerance);
  CHECK(relative_error(got.gradients.at("embedding.word.weight"), word.grad()) < kTolerance);
  CHECK(relative_error(got.gradients.at("embedding.position.weight"), position.grad()) < kTolerance);
}

TEST_CASE("layers: language head with vocabulary-parallel cross entropy") {
  for (const Architecture architecture : kArchitectures) {
    LayerCase c(architecture);
    INFO(c.text());
    at::Tensor labels = at::randint(0, c.model.vocab_size, {c.seq, c.batch}, c.generator, at::kLong);
    labels[0][0] = -100;
    at::Tensor loss;
    const auto make = [&](const TensorRegion& region, ParameterSet& parameters) -> Pass {
      const Norm norm = make_norm(c.model, "final_norm", parameters);
      const LanguageHead head(
          norm, parameters.split_rows("w", {{"embedding.word.weight", c.model.vocab_size, c.model.hidden_size}}),
          region);
      return [&, head](const at::Tensor& x, const at::Tensor&) {
        LanguageHead::Saved saved;
        const at::Tensor result = head.forward(x, labels, 7.0, saved);
        if (parameters.tensor_rank() == 0) loss = result;
        return std::pair(x, head.backward(0.5 / 7.0, saved));
      };
    };
    const at::Tensor x = c.draw({c.seq, c.batch, c.model.hidden_size}).requires_grad_(true);
    const LayerResult got = run_layer(c, x.detach(), x.detach(), make);

    const Reference oracle(c.model, c.values);
    const at::Tensor word = c.values.at("embedding.word.weight").clone().requires_grad_(true);
    const at::Tensor log_p = at::log_softmax(at::matmul(oracle.norm(x, "final_norm"), word.t()), -1);
    const at::Tensor picked = log_p.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1) * labels.ge(0);
    const at::Tensor want = -picked.sum() / 7.0;
    (want * 0.5).backward();
    CHECK(loss.item<double>() == Approx(want.item<double>()).epsilon(kTolerance));
    CHECK(relative_error(got.dx, x.grad()) < kTolerance);
    CHECK(relative_error(got.gradients.at("embedding.word.weight"), word.grad()) < kTolerance);
    CHECK(relative_error(got.gradients.at("final_norm.weight"), oracle.gradient("final_norm.weight")) < kTolerance);
  }
}

TEST_CASE("ALiBi slopes are those of the paper, also for head counts that are no power of two") {
  CHECK(alibi_slopes(1) == std::vector<double>{std::exp2(-8)});
  CHECK(alibi_slopes(4) == std::vector<double>{0.25, 0.0625, 0.015625, 0.00390625});
  const std::vector<double> twelve = alibi_slopes(12);
  REQUIRE(twelve.size() == 12);
  CHECK(twelve[7] == std::exp2(-8));
  CHECK(twelve[8] == std::exp2(-0.5));
  CHECK(twelve[11] == std::exp2(-3.5));
}

}  // namespace
}  // namespace mds::trainer
