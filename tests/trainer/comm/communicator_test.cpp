#include <random>

#include <ATen/ATen.h>

#include "tests/trainer/engine/threads.hpp"
#include "trainer/comm/cpu.hpp"

#include "tests/catch.hpp"   // last: c10 defines CHECK, too

namespace mds::trainer {
namespace {

at::Generator generator(uint64_t seed) {
  at::Generator g = at::detail::getDefaultCPUGenerator().clone();
  g.set_current_seed(seed);
  return g;
}

at::Tensor random_tensor(int64_t n, at::ScalarType dtype, at::Generator g) {
  if (dtype == at::kLong) return at::randint(-1000, 1000, {n}, g, at::TensorOptions(dtype));
  return at::randn({n}, g, at::TensorOptions(at::kDouble)).to(dtype);
}

/// ((t0 + t1) + t2) + ..., in the type that the header promises.
at::Tensor naive_sum(const std::vector<at::Tensor>& inputs) {
  const auto dtype = inputs[0].scalar_type();
  const bool narrow = dtype == at::kBFloat16 || dtype == at::kHalf;
  at::Tensor sum = narrow ? inputs[0].to(at::kFloat) : inputs[0].clone();
  for (size_t i = 1; i < inputs.size(); ++i) sum = sum + inputs[i].to(sum.scalar_type());
  return sum.to(dtype);
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() == b.numel() && a.scalar_type() == b.scalar_type() &&
         std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

/// Each rank owns its communicator for the length of the body, so that an exception frees the others.
void run_group(int size, const std::function<void(Communicator&)>& body) {
  auto group = make_local_group(size);
  run_ranks(size, [&](int rank) {
    auto own = std::move(group[rank]);
    body(*own);
  });
}

}  // namespace

TEST_CASE("reductions add in rank order, with the same bits on every rank", "[comm]") {
  const uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (auto dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kLong}) {
    for (int trial = 0; trial < 6; ++trial) {
      const int size = 2 + static_cast<int>(random() % 4);
      const int64_t small = static_cast<int64_t>(random() % 40), large = 9000 + static_cast<int64_t>(random() % 90000);
      const int64_t n = trial == 0 ? 0 : trial % 2 ? small : large;
      INFO("dtype " << dtype << ", " << size << " ranks, " << n << " elements");
      std::vector<at::Tensor> inputs, wide;
      for (int r = 0; r < size; ++r) inputs.push_back(random_tensor(n, dtype, generator(random())));
      for (int r = 0; r < size; ++r) wide.push_back(random_tensor(n * size, dtype, generator(random())));
      const at::Tensor sum = naive_sum(inputs), wide_sum = naive_sum(wide);
      std::vector<at::Tensor> reduced(size), scattered(size), gathered(size), maxima(size), in_place(size);
      run_group(size, [&](Communicator& comm) {
        const int r = comm.rank();
        reduced[r] = inputs[r].clone();
        comm.all_reduce(reduced[r]);
        maxima[r] = inputs[r].clone();
        comm.all_reduce(maxima[r], ReduceOp::max);
        const at::Tensor input = wide[r].clone();
        scattered[r] = at::empty({n}, dtype);
        comm.reduce_scatter(scattered[r], input);
        if (!same_bits(input, wide[r])) throw std::runtime_error("reduce_scatter changed its input");
        gathered[r] = at::empty({n * size}, dtype);
        comm.all_gather(gathered[r], scattered[r]);
        // The engine scatters into and gathers from a shard of the buffer itself.
        in_place[r] = wide[r].clone();
        at::Tensor shard = in_place[r].narrow(0, r * n, n);
        comm.reduce_scatter(shard, in_place[r]);
        comm.all_gather(in_place[r], shard);
      });
      at::Tensor maximum = inputs[0];
      for (const at::Tensor& input : inputs) maximum = at::maximum(maximum, input);
      for (int r = 0; r < size; ++r) {
        INFO("rank " << r);
        CHECK(same_bits(reduced[r], sum));
        CHECK(same_bits(maxima[r], maximum));
        CHECK(same_bits(scattered[r], wide_sum.narrow(0, r * n, n).contiguous()));
        CHECK(same_bits(gathered[r], wide_sum));
        CHECK(same_bits(in_place[r], wide_sum));
      }
    }
  }
}

TEST_CASE("broadcast and transfers deliver, whatever their order and size", "[comm]") {
  const uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const int size = 4;
  // Larger than any socket's buffer: a ring of blocking sends would deadlock.
  const int64_t n = (6 << 20) + static_cast<int64_t>(random() % 1000);
  const int root = static_cast<int>(random() % size);
  std::vector<at::Tensor> got(size), second(size), announced(size);
  run_group(size, [&](Communicator& comm) {
    const int r = comm.rank(), next = (r + 1) % size, before = (r + size - 1) % size;
    announced[r] = at::full({17}, r, at::kLong);
    comm.broadcast(announced[r], root);
    got[r] = at::empty({n}, at::kFloat);
    second[r] = at::empty({3}, at::kDouble);
    comm.transfer({{PeerTransfer::Kind::send, at::full({n}, r, at::kFloat), next},
                   {PeerTransfer::Kind::send, at::full({3}, r + 0.5, at::kDouble), next},
                   {PeerTransfer::Kind::receive, got[r], before},
                   {PeerTransfer::Kind::receive, second[r], before}});
    comm.transfer({});
    comm.barrier();
  });
  for (int r = 0; r < size; ++r) {
    const int before = (r + size - 1) % size;
    CHECK(announced[r].eq(root).all().item<bool>());
    CHECK(got[r].eq(before).all().item<bool>());
    CHECK(second[r].eq(before + 0.5).all().item<bool>());
  }
}

TEST_CASE("a lost peer is an error that names it", "[comm]") {
  std::string lost;
  run_group(3, [&](Communicator& comm) {
    if (comm.rank() != 0) return;
    try {
      at::Tensor token = at::empty({1}, at::kByte);
      comm.transfer({{PeerTransfer::Kind::receive, token, 2}});
    } catch (const c10::Error& error) {
      lost = error.what_without_backtrace();
    }
  });
  INFO(lost);
  CHECK(lost.find("from rank 2") != std::string::npos);
  CHECK(lost.find("closed") != std::string::npos);
}

TEST_CASE("ranks that make different calls get an error, not each other's bytes", "[comm]") {
  std::string different;
  run_group(2, [&](Communicator& comm) {
    at::Tensor token = at::zeros({8}, at::kByte);
    if (comm.rank() == 0) {
      comm.transfer({{PeerTransfer::Kind::send, token, 1}});
      // Stays until rank 1 has seen it, or the error could be that the peer is gone.
      comm.transfer({{PeerTransfer::Kind::receive, token, 1}});
      return;
    }
    at::Tensor sum = at::zeros({2}, at::kFloat);
    try {
      comm.broadcast(sum, 0);
    } catch (const c10::Error& error) {
      different = error.what_without_backtrace();
    }
    comm.transfer({{PeerTransfer::Kind::send, token, 0}});
  });
  INFO(different);
  CHECK(different.find("rank 0") != std::string::npos);
  CHECK(different.find("transfer of 8 bytes") != std::string::npos);
  CHECK(different.find("broadcast of 8 bytes") != std::string::npos);
}

}  // namespace mds::trainer
