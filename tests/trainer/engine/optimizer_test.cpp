#include <cmath>
#include <cstring>
#include <memory>
#include <random>

#include <ATen/ATen.h>

#include "tests/trainer/engine/threads.hpp"
#include "trainer/comm/cpu.hpp"
#include "trainer/engine/flat_buffers.hpp"
#include "trainer/engine/optimizer.hpp"
#include "trainer/engine/resume.hpp"

#include "tests/catch.hpp"   // last: c10 defines CHECK, too

namespace mds::trainer {
namespace {

/// Parameters of odd sizes, so that shard boundaries cut them; one without weight decay.
struct ToyParameters {
  std::vector<Parameter> storage;
  std::vector<Parameter*> pointers;

  explicit ToyParameters(uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < 5; ++i) {
      Parameter parameter;
      parameter.name = "p" + std::to_string(i);
      const int64_t rows = 2 + static_cast<int64_t>(random() % 20), columns = 1 + static_cast<int64_t>(random() % 17);
      parameter.shape = {rows, columns};
      parameter.weight_decay = i != 2;
      parameter.slices = {{parameter.name + ".a", {1, columns}, {0, 0}, 0, 1, Init::normal},
                          {parameter.name + ".b", {rows - 1, columns}, {0, 0}, 1, rows - 1, Init::normal}};
      storage.push_back(parameter);
    }
    for (Parameter& parameter : storage) pointers.push_back(&parameter);
  }
};

at::Tensor drawn(const std::vector<int64_t>& shape, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  at::Tensor tensor = at::empty(shape, at::kFloat);
  for (int64_t i = 0; i < tensor.numel(); ++i) tensor.data_ptr<float>()[i] = normal(random);
  return tensor;
}

struct ToyRun {
  at::Tensor values;             ///< of all parameters, flat, after the last step
  std::vector<double> norms;     ///< per step
};

constexpr double kLr = 0.01, kClip = 1.5;
constexpr int kSteps = 4;

OptimizerConfig toy_config() {
  OptimizerConfig config;
  config.beta1 = 0.8;
  config.beta2 = 0.9;
  config.eps = 1e-6;
  config.weight_decay = 0.3;
  return config;
}

/// Trains `ranks` data-parallel ranks on drawn gradients; what rank 0 has in the end (every rank's is checked equal).
ToyRun train_toy(uint64_t seed, int ranks, int zero_stage, at::ScalarType dtype) {
  std::vector<ToyRun> runs(ranks);
  auto data = make_local_group(ranks, "data");
  run_ranks(ranks, [&](int rank) {
    auto group = std::move(data[rank]);
    auto single = make_single_communicator("single");
    ToyParameters parameters(seed);
    FlatBuffers buffers(parameters.pointers, {dtype, at::kCPU, ranks});
    Optimizer optimizer(buffers, toy_config(), zero_stage, {*single, *group, *single, true});
    optimizer.initialize([&] {
      uint64_t i = 0;
      for (Parameter* parameter : parameters.pointers) parameter->value.copy_(drawn(parameter->shape, seed + i++));
    });
    for (int step = 1; step <= kSteps; ++step) {
      uint64_t i = 0;
      for (Parameter* parameter : parameters.pointers) {
        parameter->grad.add_(drawn(parameter->shape, seed + 1000 * step + 100 * rank + i++));
      }
      optimizer.reduce_gradients();
      at::Tensor share = optimizer.squared_norm_share();
      group->all_reduce(share);
      const double norm = std::sqrt(share.item<double>());
      runs[rank].norms.push_back(norm);
      optimizer.update(kLr, norm > kClip ? kClip / norm : 1.0, step);
    }
    runs[rank].values = buffers.values().clone();
  });
  for (const ToyRun& run : runs) {
    if (!run.values.equal(runs[0].values)) throw std::runtime_error("ranks disagree");
  }
  return runs[0];
}

}  // namespace

TEST_CASE("AdamW equals the published formulas in float64", "[engine]") {
  const uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  const int ranks = 3;
  const ToyRun run = train_toy(seed, ranks, 1, at::kFloat);
  const OptimizerConfig config = toy_config();
  ToyParameters parameters(seed);
  const size_t count = parameters.pointers.size();
  std::vector<at::Tensor> value(count), m(count), v(count);
  for (size_t i = 0; i < count; ++i) {
    value[i] = drawn(parameters.pointers[i]->shape, seed + i).to(at::kDouble);
    m[i] = at::zeros_like(value[i]);
    v[i] = at::zeros_like(value[i]);
  }
  for (int step = 1; step <= kSteps; ++step) {
    std::vector<at::Tensor> grad(count);
    double squares = 0;
    for (size_t i = 0; i < count; ++i) {
      grad[i] = at::zeros_like(value[i]);
      for (int rank = 0; rank < ranks; ++rank) {
        grad[i] += drawn(parameters.pointers[i]->shape, seed + 1000 * step + 100 * rank + i);
      }
      squares += grad[i].square().sum().item<double>();
    }
    const double norm = std::sqrt(squares);
    CHECK(run.norms[step - 1] == Approx(norm).epsilon(1e-6));
    for (size_t i = 0; i < count; ++i) {
      const at::Tensor g = norm > kClip ? grad[i] * (kClip / norm) : grad[i];
      m[i] = config.beta1 * m[i] + (1 - config.beta1) * g;
      v[i] = config.beta2 * v[i] + (1 - config.beta2) * g * g;
      const at::Tensor m_hat = m[i] / (1 - std::pow(config.beta1, step));
      const at::Tensor v_hat = v[i] / (1 - std::pow(config.beta2, step));
      const double decay = parameters.pointers[i]->weight_decay ? config.weight_decay : 0;
      value[i] = value[i] - kLr * (m_hat / (v_hat.sqrt() + config.eps) + decay * value[i]);
    }
  }
  FlatBuffers layout(parameters.pointers, {at::kFloat, at::kCPU, ranks});
  for (size_t i = 0; i < count; ++i) {
    const at::Tensor got = FlatBuffers::slice(run.values, layout.parameters()[i].range).view(value[i].sizes());
    CHECK((got - value[i]).abs().max().item<double>() < 1e-5);
  }
}

TEST_CASE("ZeRO-0 and ZeRO-1 have the same bits", "[engine]") {
  const uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  for (auto dtype : {at::kFloat, at::kBFloat16}) {
    for (int ranks : {1, 2, 3, 4}) {
      INFO(dtype << ", " << ranks << " ranks");
      const ToyRun zero0 = train_toy(seed, ranks, 0, dtype), zero1 = train_toy(seed, ranks, 1, dtype);
      CHECK(zero0.values.equal(zero1.values));
      CHECK(zero0.norms == zero1.norms);
    }
  }
}

TEST_CASE("replicated, shared and partial gradients are summed and counted once", "[engine]") {
  // Two tensor ranks: p0 is split (each has its own), p1 replicated, p2 replicated with partial gradients.
  std::vector<double> norms(2), partial(2);
  auto tensor = make_local_group(2, "tensor");
  run_ranks(2, [&](int rank) {
    auto group = std::move(tensor[rank]);
    auto single = make_single_communicator("single");
    std::vector<Parameter> storage(4);
    for (Parameter& parameter : storage) parameter.shape = {1};
    storage[1].tensor_replicated = storage[2].tensor_replicated = true;
    storage[2].sequence_partial = true;
    storage[3].shared_embedding = true;
    FlatBuffers buffers({&storage[0], &storage[1], &storage[2], &storage[3]}, {at::kFloat, at::kCPU, 1});
    Optimizer optimizer(buffers, {}, 1, {*group, *single, *single, /*owns_shared_embedding=*/false});
    storage[0].grad.fill_(rank ? 3 : 4);
    storage[1].grad.fill_(12);
    storage[2].grad.fill_(rank ? 30 : 54);
    storage[3].grad.fill_(1000);
    optimizer.reduce_gradients();
    at::Tensor share = optimizer.squared_norm_share();
    group->all_reduce(share);
    norms[rank] = std::sqrt(share.item<double>());
    partial[rank] = storage[2].grad.item<double>();
  });
  CHECK(partial == std::vector<double>{84, 84});
  CHECK(norms[0] == Approx(std::sqrt(4.0 * 4 + 3 * 3 + 12 * 12 + 84 * 84)));
  CHECK(norms[1] == norms[0]);
}

TEST_CASE("shards' blocks cover every logical tensor exactly once", "[engine]") {
  const uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  for (int ranks : {1, 2, 4}) {
    INFO(ranks << " shards");
    std::map<std::string, std::vector<int>> covered;
    auto data = make_local_group(ranks, "data");
    for (int rank = 0; rank < ranks; ++rank) {
      ToyParameters parameters(seed);
      auto single = make_single_communicator("single");
      FlatBuffers buffers(parameters.pointers, {at::kFloat, at::kCPU, ranks});
      Optimizer optimizer(buffers, {}, 0, {*single, *data[rank], *single, true});
      const OptimizerState state = optimizer.shard_state();
      for (const TensorBlock& block : shard_blocks(optimizer, state, false)) {
        const int64_t elements = block.extent[0] * block.extent[1];
        auto& counts = covered[block.name];
        counts.resize(static_cast<size_t>(elements));
        CHECK(block.data.numel() == block.flat_end - block.flat_begin);
        for (int64_t i = block.flat_begin; i < block.flat_end; ++i) ++counts.at(static_cast<size_t>(i));
      }
    }
    CHECK(covered.size() == 5 * 2 * 3);
    for (const auto& [name, counts] : covered) {
      INFO(name);
      CHECK(counts == std::vector<int>(counts.size(), 1));
    }
  }
}

}  // namespace mds::trainer
