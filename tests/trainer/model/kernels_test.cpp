// Every twin of trainer/kernels against autograd in float64.
#include <array>
#include <random>

#include "tests/trainer/model/harness.hpp"
#include "trainer/kernels/attention.hpp"
#include "trainer/kernels/ops.hpp"
// clang-format off: last, because c10 defines CHECK, too
#include "tests/catch.hpp"
// clang-format on

namespace mds::trainer {
namespace {

using kernels::table_for;
using testing::relative_error;

constexpr double kTolerance = 1e-10;

/// A seed that failures print, and random sizes and tensors drawn from it.
struct Random {
  uint64_t seed = std::random_device{}();
  std::mt19937_64 engine{seed};
  at::Generator generator = at::detail::createCPUGenerator(seed);

  int64_t size(int64_t from, int64_t to) { return from + static_cast<int64_t>(engine() % (to - from + 1)); }
  at::Tensor tensor(std::vector<int64_t> shape) { return at::randn(shape, generator, at::kDouble); }
  at::Tensor leaf(std::vector<int64_t> shape) { return tensor(shape).requires_grad_(true); }
  at::Tensor labels(int64_t rows, int64_t columns) {
    at::Tensor labels = at::randint(0, columns, {rows}, generator, at::kLong);
    labels[size(0, rows - 1)] = -100;
    return labels;
  }
};

TEST_CASE("kernels: RMSNorm") {
  Random random;
  INFO("seed " << random.seed);
  const int64_t n = random.size(1, 70);
  const std::vector<int64_t> shape{random.size(1, 9), random.size(1, 5), n};
  const at::Tensor x = random.leaf(shape), weight = random.leaf({n}), dy = random.tensor(shape),
                   add = random.tensor(shape);
  const at::Tensor y = x * (x.square().mean(-1, true) + 1e-5).rsqrt() * weight;
  y.backward(dy);

  const auto& k = table_for(x);
  const auto got = k.rms_norm(x.detach(), weight.detach(), 1e-5);
  at::Tensor weight_grad = at::ones_like(weight);
  const at::Tensor dx = k.rms_norm_backward(dy, x.detach(), got.statistics, weight.detach(), add, weight_grad);
  CHECK(relative_error(got.y, y.detach()) < kTolerance);
  CHECK(relative_error(dx, x.grad() + add) < kTolerance);
  CHECK(relative_error(weight_grad, weight.grad() + 1) < kTolerance);
}

TEST_CASE("kernels: LayerNorm") {
  Random random;
  INFO("seed " << random.seed);
  const int64_t n = random.size(2, 70);
  const std::vector<int64_t> shape{random.size(1, 9), random.size(1, 5), n};
  const at::Tensor x = random.leaf(shape), weight = random.leaf({n}), bias = random.leaf({n}),
                   dy = random.tensor(shape);
  const at::Tensor add = random.tensor(shape), centred = x - x.mean(-1, true);
  const at::Tensor y = centred * (centred.square().mean(-1, true) + 1e-5).rsqrt() * weight + bias;
  y.backward(dy);

  const auto& k = table_for(x);
  const auto got = k.layer_norm(x.detach(), weight.detach(), bias.detach(), 1e-5);
  at::Tensor weight_grad = at::ones_like(weight), bias_grad = at::ones_like(bias);
  const at::Tensor dx = k.layer_norm_backward(dy, x.detach(), got.statistics, weight.detach(), bias.detach(), add,
                                              weight_grad, bias_grad);
  CHECK(relative_error(got.y, y.detach()) < kTolerance);
  CHECK(relative_error(dx, x.grad() + add) < kTolerance);
  CHECK(relative_error(weight_grad, weight.grad() + 1) < kTolerance);
  CHECK(relative_error(bias_grad, bias.grad() + 1) < kTolerance);
}

TEST_CASE("kernels: rotary embedding turns views in place, and back") {
  Random random;
  INFO("seed " << random.seed);
  const int64_t seq = random.size(1, 20), batch = random.size(1, 3), heads = random.size(1, 4),
                half = random.size(1, 9);
  const at::Tensor buffer = random.tensor({seq, batch, heads + 2, 2 * half}), before = buffer.clone();
  const at::Tensor angle = random.tensor({seq, half});
  at::Tensor view = buffer.narrow(2, 1, heads);
  table_for(view).rope(view, angle.cos(), angle.sin(), false);

  // Each pair (i, i + half) as one complex number times e^(i angle).
  const auto as_complex = [&](const at::Tensor& t) {
    return at::complex(t.narrow(3, 0, half), t.narrow(3, half, half));
  };
  const at::Tensor turn = at::complex(angle.cos(), angle.sin()).view({seq, 1, 1, half});
  CHECK((as_complex(view) - as_complex(before.narrow(2, 1, heads)) * turn).abs().max().item<double>() < kTolerance);
  CHECK(at::equal(buffer.select(2, 0), before.select(2, 0)));
  table_for(view).rope(view, angle.cos(), angle.sin(), true);
  CHECK(relative_error(buffer, before) < kTolerance);
}

TEST_CASE("kernels: SwiGLU and GELU") {
  Random random;
  INFO("seed " << random.seed);
  const int64_t rows = random.size(1, 20), f = random.size(1, 40);
  const at::Tensor gate_up = random.leaf({rows, 2, 2 * f}), x = random.leaf({rows, f});
  const at::Tensor gate = gate_up.narrow(-1, 0, f), up = gate_up.narrow(-1, f, f);
  const at::Tensor y = gate * at::sigmoid(gate) * up;
  const at::Tensor z = 0.5 * x * (1 + at::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x.pow(3))));
  const at::Tensor dy = random.tensor({rows, 2, f}), dz = random.tensor({rows, f});
  y.backward(dy);
  z.backward(dz);

  const auto& k = table_for(x);
  CHECK(relative_error(k.swiglu(gate_up.detach()), y.detach()) < kTolerance);
  CHECK(relative_error(k.swiglu_backward(dy, gate_up.detach()), gate_up.grad()) < kTolerance);
  CHECK(relative_error(k.gelu(x.detach()), z.detach()) < kTolerance);
  CHECK(relative_error(k.gelu_backward(dz, x.detach()), x.grad()) < kTolerance);
}

TEST_CASE("kernels: cross entropy of a part of the columns") {
  Random random;
  INFO("seed " << random.seed);
  const int64_t rows = random.size(1, 30), columns = random.size(2, 50), cut = random.size(1, columns - 1);
  const at::Tensor logits = random.leaf({rows, columns}), labels = random.labels(rows, columns);
  const at::Tensor log_p = at::log_softmax(logits, 1);
  ((log_p.gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1) * labels.ge(0)).sum() * -0.25).backward();

  const at::Tensor log_sum_exp = at::logsumexp(logits.detach(), 1);
  for (const auto& [first, count] : {std::pair{int64_t{0}, cut}, {cut, columns - cut}}) {
    at::Tensor part = logits.detach().narrow(1, first, count).clone();
    const at::Tensor statistics = table_for(part).cross_entropy_statistics(part, labels, first);
    CHECK(at::equal(statistics[0], part.amax(1)));
    CHECK(relative_error(statistics[1].log() + statistics[0], at::logsumexp(part, 1)) < kTolerance);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t column = labels[row].item<int64_t>() - first;
      const bool mine = column >= 0 && column < count;
      CHECK(statistics[2][row].item<double>() == (mine ? part[row][column].item<double>() : 0.0));
    }
    table_for(part).cross_entropy_backward(part, labels, log_sum_exp, first, 0.25);
    CHECK(relative_error(part, logits.grad().narrow(1, first, count)) < kTolerance);
  }
}

TEST_CASE("kernels: cross entropy of narrow logits works in chunks") {
  Random random;
  INFO("seed " << random.seed);
  const int64_t rows = 3, columns = 9 << 20;  // one row per chunk
  const at::Tensor wide = at::randn({rows, columns}, random.generator, at::kFloat);
  at::Tensor logits = wide.to(at::kBFloat16);
  const at::Tensor exact = logits.to(at::kFloat), labels = random.labels(rows, columns);
  const at::Tensor statistics = table_for(logits).cross_entropy_statistics(logits, labels, 0);
  const at::Tensor log_sum_exp = statistics[1].log() + statistics[0];
  CHECK(relative_error(log_sum_exp, at::logsumexp(exact, 1)) < 1e-5);
  table_for(logits).cross_entropy_backward(logits, labels, log_sum_exp, 0, 1e6);
  at::Tensor want = at::softmax(exact, 1).scatter_add_(1, labels.clamp_min(0).unsqueeze(1), at::full({rows, 1}, -1.f));
  want.mul_(labels.ge(0).unsqueeze(1)).mul_(1e6);
  CHECK(relative_error(logits, want) < 4e-3);
}

TEST_CASE("kernels: attention with grouped queries, with and without bias") {
  for (const bool biased : {false, true}) {
    Random random;
    INFO("seed " << random.seed << " biased " << biased);
    const int64_t batch = random.size(1, 3), key_heads = random.size(1, 3), group = random.size(1, 3);
    const int64_t heads = key_heads * group, seq = random.size(1, 90), d = random.size(1, 40);
    // Views of one fused tensor, sequence first, as the model has them.
    const at::Tensor fused = random.leaf({seq, batch, heads + 2 * key_heads, d});
    const at::Tensor by_head = fused.permute({1, 2, 0, 3});
    const at::Tensor q = by_head.narrow(1, 0, heads), k = by_head.narrow(1, heads, key_heads);
    const at::Tensor v = by_head.narrow(1, heads + key_heads, key_heads);
    const at::Tensor bias = biased ? random.tensor({heads, seq, seq}) : at::Tensor();

    at::Tensor scores = at::matmul(q, k.repeat_interleave(group, 1).transpose(2, 3)) * 0.3;
    if (biased) scores = scores + bias;
    const at::Tensor future = at::ones({seq, seq}, at::kBool).triu(1);
    const at::Tensor p = at::softmax(scores.masked_fill(future, -INFINITY), -1);
    const at::Tensor want = at::matmul(p, v.repeat_interleave(group, 1));
    const at::Tensor grad = random.tensor({seq, batch, heads, d}).permute({1, 2, 0, 3});
    want.backward(grad);

    const kernels::AttentionInput input{q.detach(), k.detach(), v.detach(), bias, 0.3};
    kernels::AttentionSaved saved;
    const at::Tensor got = kernels::causal_attention(input, saved);
    // The model keeps the output sequence first, too.
    const at::Tensor kept = got.permute({2, 0, 1, 3}).contiguous().permute({1, 2, 0, 3});
    const kernels::AttentionGradient d_in = kernels::causal_attention_backward(grad, input, kept, saved);
    const at::Tensor d_fused = fused.grad().permute({1, 2, 0, 3});
    CHECK(relative_error(got, want.detach()) < kTolerance);
    CHECK(relative_error(d_in.query, d_fused.narrow(1, 0, heads)) < kTolerance);
    CHECK(relative_error(d_in.key, d_fused.narrow(1, heads, key_heads)) < kTolerance);
    CHECK(relative_error(d_in.value, d_fused.narrow(1, heads + key_heads, key_heads)) < kTolerance);
  }
}

TEST_CASE("kernels: AdamW") {
  Random random;
  INFO("seed " << random.seed);
  const int64_t n = random.size(1, 50);
  at::Tensor master = random.tensor({n}), m = random.tensor({n}), v = random.tensor({n}).square(),
             value = at::empty({n});
  const at::Tensor grad = random.tensor({n});
  const kernels::AdamWStep s{0.01, 0.9, 0.95, 1e-8, 0.1, 0.5, 3};
  std::vector<double> want;
  for (int64_t i = 0; i < n; ++i) {
    const double g = 0.5 * grad[i].item<double>(), p = master[i].item<double>();
    const double mi = 0.9 * m[i].item<double>() + 0.1 * g, vi = 0.95 * v[i].item<double>() + 0.05 * g * g;
    const double m_hat = mi / (1 - std::pow(0.9, 3)), v_hat = vi / (1 - std::pow(0.95, 3));
    want.push_back(p - 0.01 * 0.1 * p - 0.01 * m_hat / (std::sqrt(v_hat) + 1e-8));
  }
  table_for(master).adamw(master, m, v, grad, value, s);
  CHECK(relative_error(master, at::tensor(want, at::kDouble)) < kTolerance);
  CHECK(at::equal(value, master.to(at::kFloat)));
}

}  // namespace
}  // namespace mds::trainer
