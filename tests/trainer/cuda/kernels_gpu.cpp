// What runs on GPUs alone against the same on CPUs in float64, on random shapes and data: fused kernels and their ATen
// twins, the kinds of attention, a stage's clock. Needs a GPU: `make gpu`.
#include <array>
#include <cmath>
#include <functional>
#include <random>

#include <ATen/ATen.h>

#include "trainer/cuda/ops_cuda.hpp"
#include "trainer/engine/stage_clock.hpp"
#include "trainer/kernels/attention.hpp"

#include "tests/catch.hpp"      // after LibTorch's headers, which define CHECK, too

namespace {

using namespace mds::trainer;
using kernels::aten_table;

const kernels::KernelTable& fused() {
  static const kernels::KernelTable table = [] {
    kernels::KernelTable t = aten_table();
    cuda::register_kernels(t);
    return t;
  }();
  return table;
}

struct Case {
  at::ScalarType dtype;
  double tolerance;       // relative, norm-wise: fp32 arithmetic, and one rounding to bf16
};
const Case kCases[] = {{at::kFloat, 1e-5}, {at::kBFloat16, 8e-3}};

double relative(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor w = want.to(at::kDouble);
  return (got.to(at::kDouble) - w).norm().item<double>() / (w.norm().item<double>() + 1e-30);
}

/// Random on the GPU; the float64 reference sees exactly the same values.
at::Tensor random(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::randn(shape, at::TensorOptions(at::kCUDA).dtype(at::kFloat)).to(dtype);
}
at::Tensor wide(const at::Tensor& x) { return x.to(at::kDouble); }

/// Sizes with and without 16-byte alignment.
int64_t any(std::initializer_list<int64_t> sizes) {
  static std::mt19937_64 generator(std::random_device{}());
  return *(sizes.begin() + static_cast<int64_t>(generator() % sizes.size()));
}

}  // namespace

TEST_CASE("fused norms equal their twins", "[gpu]") {
  for (const Case& c : kCases) {
    for (int repeat = 0; repeat < 8; ++repeat) {
      const int64_t rows = any({1, 7, 300, 4096}), n = any({8, 33, 128, 2048, 4096, 8200, 16384});
      INFO("rows " << rows << " n " << n << " dtype " << c10::toString(c.dtype));
      const auto x = random({rows, n}, c.dtype), w = random({n}, c.dtype), dy = random({rows, n}, c.dtype);
      const auto add = repeat % 2 ? random({rows, n}, c.dtype) : at::Tensor();
      const auto got = fused().rms_norm(x, w, 1e-5);
      const auto want = aten_table().rms_norm(wide(x).cpu(), wide(w).cpu(), 1e-5);
      CHECK(relative(got.y.cpu(), want.y) < c.tolerance);
      auto grad = at::randn({n}, x.options().dtype(at::kFloat));
      auto grad_want = wide(grad).cpu();
      const auto dx = fused().rms_norm_backward(dy, x, got.statistics, w, add, grad);
      const auto dx_want =
          aten_table().rms_norm_backward(wide(dy).cpu(), wide(x).cpu(), want.statistics, wide(w).cpu(),
                                         add.defined() ? wide(add).cpu() : add, grad_want);
      CHECK(relative(dx.cpu(), dx_want) < c.tolerance);
      CHECK(relative(grad.cpu(), grad_want) < 1e-5);
    }
  }
}

TEST_CASE("fused rotary positions equal their twin and invert themselves", "[gpu]") {
  for (const Case& c : kCases) {
    for (int repeat = 0; repeat < 8; ++repeat) {
      const int64_t seq = any({1, 5, 512}), batch = any({1, 3}), heads = any({1, 4}), dim = any({2, 6, 64, 128});
      INFO("seq " << seq << " batch " << batch << " heads " << heads << " dim " << dim);
      const auto base = random({seq, batch, heads + 2, dim}, c.dtype);
      const auto angle = at::randn({seq, dim / 2}, base.options().dtype(at::kFloat));
      const auto cos = angle.cos(), sin = angle.sin();
      auto got = base.clone();
      auto view = got.narrow(2, 1, heads);                     // a strided part of a fused projection
      fused().rope(view, cos, sin, false);
      auto want = wide(base).narrow(2, 1, heads).contiguous();
      aten_table().rope(want, wide(cos), wide(sin), false);
      CHECK(relative(view, want) < c.tolerance);
      CHECK(at::equal(got.narrow(2, 0, 1), base.narrow(2, 0, 1)));
      fused().rope(view, cos, sin, true);
      CHECK(relative(view, base.narrow(2, 1, heads)) < 2 * c.tolerance);
    }
  }
}

TEST_CASE("fused SwiGLU equals its twin", "[gpu]") {
  for (const Case& c : kCases) {
    for (int repeat = 0; repeat < 6; ++repeat) {
      const int64_t rows = any({1, 33, 2048}), n = any({1, 12, 172, 1024, 7168});
      INFO("rows " << rows << " n " << n);
      const auto gate_up = random({rows, 2 * n}, c.dtype), dy = random({rows, n}, c.dtype);
      CHECK(relative(fused().swiglu(gate_up), aten_table().swiglu(wide(gate_up))) < c.tolerance);
      CHECK(relative(fused().swiglu_backward(dy, gate_up), aten_table().swiglu_backward(wide(dy), wide(gate_up))) <
            c.tolerance);
    }
  }
}

TEST_CASE("fused cross entropy equals its twin", "[gpu]") {
  for (const Case& c : kCases) {
    for (int repeat = 0; repeat < 6; ++repeat) {
      const int64_t rows = any({1, 33, 512}), columns = any({3, 256, 1001, 32000, 64128});
      const int64_t first = any({0, 5, 1000});
      INFO("rows " << rows << " columns " << columns << " first " << first);
      const auto logits = random({rows, columns}, c.dtype).mul_(3);
      auto labels = at::randint(-2, first + columns + 10, {rows}, logits.options().dtype(at::kLong));
      labels.masked_fill_(labels.lt(0), -100);
      const auto got = fused().cross_entropy_statistics(logits, labels, first);
      const auto want = aten_table().cross_entropy_statistics(wide(logits), labels, first);
      CHECK(at::equal(got[0].to(at::kDouble), want[0]));
      CHECK(relative(got[1], want[1]) < 1e-5);
      CHECK(at::equal(got[2].to(at::kDouble), want[2]));
      const auto lse = want[1].log().add_(want[0]);
      auto grad = logits.clone(), grad_want = wide(logits);
      fused().cross_entropy_backward(grad, labels, lse.to(at::kFloat), first, 0.37);
      aten_table().cross_entropy_backward(grad_want, labels, lse, first, 0.37);
      CHECK(relative(grad, grad_want) < c.tolerance);
      CHECK(grad.masked_select(labels.lt(0).unsqueeze(1)).abs().sum().item<double>() == 0.0);
    }
  }
}

TEST_CASE("fused AdamW equals its twin", "[gpu]") {
  for (const Case& c : kCases) {
    for (int64_t n : {1, 7, 1000, 1 << 20}) {
      INFO("n " << n);
      auto master = random({n}, at::kFloat), m = random({n}, at::kFloat), v = random({n}, at::kFloat).square_();
      const auto grad = random({n}, at::kFloat);
      auto value = at::full({n}, NAN, grad.options().dtype(c.dtype)), none = at::Tensor();
      auto master_want = wide(master), m_want = wide(m), v_want = wide(v);
      const kernels::AdamWStep step{1e-2, 0.9, 0.95, 1e-8, 0.1, 0.5, 3};
      fused().adamw(master, m, v, grad, value, step);
      aten_table().adamw(master_want, m_want, v_want, wide(grad), none, step);
      CHECK(relative(master, master_want) < 1e-6);
      CHECK(relative(m, m_want) < 1e-6);
      CHECK(relative(v, v_want) < 1e-6);
      CHECK(relative(value, master_want) < c.tolerance);
    }
  }
}

TEST_CASE("attention on GPUs equals that of CPUs, grouped and with a bias", "[gpu]") {
  for (int repeat = 0; repeat < 12; ++repeat) {
    const bool biased = repeat % 2 == 1, deterministic = repeat % 3 == 2;
    at::globalContext().setDeterministicAlgorithms(deterministic, /*warn_only=*/true);
    const int64_t batch = any({1, 3}), key_heads = any({2, 4}), group = biased ? 1 : any({1, 2});
    const int64_t heads = key_heads * group, seq = any({32, 64, 136, 512}), d = any({16, 64, 128});
    INFO("batch " << batch << " heads " << heads << "/" << key_heads << " seq " << seq << " head size " << d << " bias "
                  << biased << " deterministic " << deterministic);
    const auto by_head = random({seq, batch, heads + 2 * key_heads, d}, at::kBFloat16).permute({1, 2, 0, 3});
    const auto grad = random({seq, batch, heads, d}, at::kBFloat16).permute({1, 2, 0, 3});
    const auto bias = biased ? random({heads, seq, seq}, at::kBFloat16) : at::Tensor();
    const double scale = 1 / std::sqrt(static_cast<double>(d));
    const auto run = [&](const std::function<at::Tensor(const at::Tensor&)>& as) {
      const auto x = as(by_head);
      const kernels::AttentionInput input{x.narrow(1, 0, heads), x.narrow(1, heads, key_heads),
                                          x.narrow(1, heads + key_heads, key_heads), biased ? as(bias) : bias, scale};
      kernels::AttentionSaved saved;
      const auto out = kernels::causal_attention(input, saved);
      const auto in = kernels::causal_attention_backward(as(grad), input, out, saved);
      return std::array<at::Tensor, 4>{out, in.query, in.key, in.value};
    };
    const auto got = run([](const at::Tensor& x) { return x; });
    const auto want = run([](const at::Tensor& x) { return x.to(at::kCPU, at::kDouble); });
    for (size_t i = 0; i < got.size(); ++i) CHECK(relative(got[i].cpu(), want[i]) < 1.5e-2);
  }
  at::globalContext().setDeterministicAlgorithms(false, false);
}

TEST_CASE("a stage's clock knows busy from idle time on a GPU", "[gpu]") {
  const auto x = random({4096, 4096}, at::kBFloat16);
  const auto work = [&](int products) {
    for (int i = 0; i < products; ++i) at::mm(x, x);
  };
  work(20);
  StageClock clock(x.device());
  clock.start();
  for (int pass = 0; pass < 3; ++pass) {
    work(20);              // as an exchange with a neighbour: between the passes
    clock.pass_begins();
    work(20);
    clock.pass_ends();
  }
  clock.stop();
  at::mm(x, x).cpu();      // the device has come to the end
  const StageTime time = clock.read();
  INFO("busy " << time.busy << " s of " << time.span << " s");
  CHECK(time.busy > 0.4 * time.span);
  CHECK(time.busy < 0.6 * time.span);
}
