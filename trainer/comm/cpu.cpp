#include "trainer/comm/cpu.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <c10/util/Exception.h>

namespace mds::trainer {
namespace {

/// Below this size one round of whole tensors beats two rounds of chunks; the sums are the same either way.
constexpr size_t kOneRoundBytesMax = 32 << 10;
/// A rank's socket holds this much ahead of its peer, so that a round mostly costs one wake-up.
constexpr int kSocketBufferBytes = 4 << 20;

void check_flat(const at::Tensor& tensor, const std::string& group) {
  TORCH_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(), "group ", group,
              ": a CPU communicator takes contiguous CPU tensors");
}

Message sending(int peer, const at::Tensor& tensor) { return {peer, true, tensor.data_ptr(), tensor.nbytes()}; }
Message receiving(int peer, at::Tensor& tensor) { return {peer, false, tensor.data_ptr(), tensor.nbytes()}; }

void combine(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, ReduceOp op) {
  if (op == ReduceOp::sum) {
    at::add_out(out, a, b);
  } else {
    at::maximum_out(out, a, b);
  }
}

/// out = parts[0] op parts[1] op ..., in this order; at least two parts. `out` may be one of them, no other input is
/// changed, except that parts[0] is used up when `out` is a part after the second.
void reduce_in_order(at::Tensor& out, std::vector<at::Tensor> parts, ReduceOp op) {
  const auto dtype = out.scalar_type();
  if (op == ReduceOp::sum && (dtype == at::kBFloat16 || dtype == at::kHalf)) {
    at::Tensor sum = parts[0].to(at::kFloat);
    for (size_t i = 1; i < parts.size(); ++i) sum.add_(parts[i]);
    out.copy_(sum);
    return;
  }
  at::Tensor sum = out;
  for (size_t i = 2; i < parts.size(); ++i) {
    if (parts[i].data_ptr() == out.data_ptr()) sum = parts[0];
  }
  combine(sum, parts[0], parts[1], op);
  for (size_t i = 2; i < parts.size(); ++i) combine(sum, sum, parts[i], op);
  if (!sum.is_same(out)) out.copy_(sum);
}

class CpuCommunicator final : public Communicator {
 public:
  CpuCommunicator(const std::string& name, int rank, std::vector<Fd> peers) : mesh_(name, rank, std::move(peers)) {}

  int rank() const override { return mesh_.rank(); }
  int size() const override { return mesh_.size(); }
  const std::string& name() const override { return mesh_.name(); }

  void all_reduce(at::Tensor& tensor, ReduceOp op) override;
  void all_gather(at::Tensor& output, const at::Tensor& input) override;
  void reduce_scatter(at::Tensor& output, const at::Tensor& input) override;
  void broadcast(at::Tensor& tensor, int root) override;
  void transfer(std::vector<PeerTransfer> transfers) override;
  void barrier() override;

 private:
  at::Tensor scratch(int slot, int64_t elements, at::ScalarType dtype);
  void reduce_own_chunk(Traffic kind, const std::vector<at::Tensor>& chunks, at::Tensor& out, ReduceOp op);
  void gather_chunks(Traffic kind, std::vector<at::Tensor>& chunks);
  void all_reduce_one_round(at::Tensor& flat, ReduceOp op);

  SocketMesh mesh_;
  std::vector<at::Tensor> scratch_;   ///< byte buffers, one per peer, grown as needed and kept
};

at::Tensor CpuCommunicator::scratch(int slot, int64_t elements, at::ScalarType dtype) {
  scratch_.resize(size());
  const int64_t bytes = std::max<int64_t>(elements, 1) * static_cast<int64_t>(c10::elementSize(dtype));
  at::Tensor& buffer = scratch_[slot];
  if (!buffer.defined() || buffer.numel() < bytes) buffer = at::empty({(bytes + 4095) / 4096 * 4096}, at::kByte);
  return buffer.narrow(0, 0, bytes).view(dtype).narrow(0, 0, elements);
}

/// Sends chunks[i] to rank i, receives this rank's chunk from everyone and reduces it into `out`.
void CpuCommunicator::reduce_own_chunk(Traffic kind, const std::vector<at::Tensor>& chunks, at::Tensor& out,
                                       ReduceOp op) {
  const at::Tensor& own = chunks[rank()];
  std::vector<at::Tensor> parts(size());
  std::vector<Message> messages;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) {
      parts[peer] = own;
      continue;
    }
    parts[peer] = scratch(peer, own.numel(), own.scalar_type());
    messages.push_back(sending(peer, chunks[peer]));
    messages.push_back(receiving(peer, parts[peer]));
  }
  mesh_.exchange(kind, messages);
  if (own.numel() > 0) reduce_in_order(out, parts, op);
}

/// Sends this rank's chunk to everyone and receives the others'.
void CpuCommunicator::gather_chunks(Traffic kind, std::vector<at::Tensor>& chunks) {
  std::vector<Message> messages;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    messages.push_back(sending(peer, chunks[rank()]));
    messages.push_back(receiving(peer, chunks[peer]));
  }
  mesh_.exchange(kind, messages);
}

void CpuCommunicator::all_reduce_one_round(at::Tensor& flat, ReduceOp op) {
  std::vector<at::Tensor> parts(size());
  std::vector<Message> messages;
  for (int peer = 0; peer < size(); ++peer) {
    parts[peer] = peer == rank() ? flat : scratch(peer, flat.numel(), flat.scalar_type());
    if (peer == rank()) continue;
    messages.push_back(sending(peer, flat));
    messages.push_back(receiving(peer, parts[peer]));
  }
  mesh_.exchange(Traffic::all_reduce, messages);
  reduce_in_order(flat, parts, op);
}

void CpuCommunicator::all_reduce(at::Tensor& tensor, ReduceOp op) {
  check_flat(tensor, name());
  at::Tensor flat = tensor.view(-1);
  if (flat.numel() == 0) return;
  if (flat.nbytes() <= kOneRoundBytesMax) return all_reduce_one_round(flat, op);
  const int64_t chunk = (flat.numel() + size() - 1) / size();
  std::vector<at::Tensor> chunks;
  for (int64_t i = 0; i < size(); ++i) {
    const int64_t begin = std::min(i * chunk, flat.numel());
    chunks.push_back(flat.narrow(0, begin, std::min(chunk, flat.numel() - begin)));
  }
  reduce_own_chunk(Traffic::all_reduce, chunks, chunks[rank()], op);
  gather_chunks(Traffic::all_reduce, chunks);
}

void CpuCommunicator::all_gather(at::Tensor& output, const at::Tensor& input) {
  check_flat(output, name());
  check_flat(input, name());
  TORCH_CHECK(output.numel() == input.numel() * size() && output.scalar_type() == input.scalar_type(), "group ", name(),
              ": all_gather needs an output of size x input");
  std::vector<at::Tensor> chunks;
  for (int64_t i = 0; i < size(); ++i) chunks.push_back(output.view(-1).narrow(0, i * input.numel(), input.numel()));
  if (chunks[rank()].data_ptr() != input.data_ptr()) chunks[rank()].copy_(input.view(-1));
  gather_chunks(Traffic::all_gather, chunks);
}

void CpuCommunicator::reduce_scatter(at::Tensor& output, const at::Tensor& input) {
  check_flat(output, name());
  check_flat(input, name());
  TORCH_CHECK(input.numel() == output.numel() * size() && output.scalar_type() == input.scalar_type(), "group ", name(),
              ": reduce_scatter needs an input of size x output");
  std::vector<at::Tensor> chunks;
  for (int64_t i = 0; i < size(); ++i) chunks.push_back(input.view(-1).narrow(0, i * output.numel(), output.numel()));
  at::Tensor flat = output.view(-1);
  reduce_own_chunk(Traffic::reduce_scatter, chunks, flat, ReduceOp::sum);
}

void CpuCommunicator::broadcast(at::Tensor& tensor, int root) {
  check_flat(tensor, name());
  TORCH_CHECK(root >= 0 && root < size(), "group ", name(), ": no rank ", root, " to broadcast from");
  std::vector<Message> messages;
  if (rank() != root) messages.push_back(receiving(root, tensor));
  for (int peer = 0; rank() == root && peer < size(); ++peer) {
    if (peer != root) messages.push_back(sending(peer, tensor));
  }
  mesh_.exchange(Traffic::broadcast, messages);
}

void CpuCommunicator::transfer(std::vector<PeerTransfer> transfers) {
  std::vector<Message> messages;
  for (PeerTransfer& one : transfers) {
    check_flat(one.tensor, name());
    const bool send = one.kind == PeerTransfer::Kind::send;
    messages.push_back(send ? sending(one.peer, one.tensor) : receiving(one.peer, one.tensor));
  }
  mesh_.exchange(Traffic::transfer, messages);
}

void CpuCommunicator::barrier() {
  std::vector<char> theirs(size());
  char mine = 1;
  std::vector<Message> messages;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    messages.push_back({peer, true, &mine, 1});
    messages.push_back({peer, false, &theirs[peer], 1});
  }
  mesh_.exchange(Traffic::barrier, messages);
}

class SingleCommunicator final : public Communicator {
 public:
  explicit SingleCommunicator(const std::string& name) : name_(name) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  const std::string& name() const override { return name_; }
  void all_reduce(at::Tensor&, ReduceOp) override {}
  void all_gather(at::Tensor& output, const at::Tensor& input) override { copy(output, input); }
  void reduce_scatter(at::Tensor& output, const at::Tensor& input) override { copy(output, input); }
  void broadcast(at::Tensor&, int) override {}
  void transfer(std::vector<PeerTransfer> transfers) override {
    TORCH_CHECK(transfers.empty(), "group ", name_, " has one rank and nobody to exchange with");
  }
  void barrier() override {}

 private:
  static void copy(at::Tensor& output, const at::Tensor& input) {
    if (output.data_ptr() != input.data_ptr()) output.view(-1).copy_(input.view(-1));
  }
  std::string name_;
};

/// Raises both buffers to kSocketBufferBytes, or to what the system allows.
void enlarge_buffers(int fd) {
  const int bytes = kSocketBufferBytes;
  for (const auto& [forced, allowed] : {std::pair{SO_SNDBUFFORCE, SO_SNDBUF}, std::pair{SO_RCVBUFFORCE, SO_RCVBUF}}) {
    if (::setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes) != 0) {
      (void)::setsockopt(fd, SOL_SOCKET, allowed, &bytes, sizeof bytes);
    }
  }
}

}  // namespace

std::unique_ptr<Communicator> make_single_communicator(const std::string& name) {
  return std::make_unique<SingleCommunicator>(name);
}

std::unique_ptr<Communicator> make_cpu_communicator(const std::string& name, int rank, std::vector<Fd> peers) {
  if (peers.size() == 1) return make_single_communicator(name);
  return std::make_unique<CpuCommunicator>(name, rank, std::move(peers));
}

std::vector<std::unique_ptr<Communicator>> make_local_group(int size, const std::string& name) {
  std::vector<std::vector<Fd>> sockets(size);
  for (auto& row : sockets) row.resize(size);
  for (int a = 0; a < size; ++a) {
    for (int b = a + 1; b < size; ++b) {
      int pair[2];
      TORCH_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair: ",
                  std::strerror(errno));
      sockets[a][b] = Fd(pair[0]);
      sockets[b][a] = Fd(pair[1]);
      enlarge_buffers(pair[0]);
      enlarge_buffers(pair[1]);
    }
  }
  std::vector<std::unique_ptr<Communicator>> group;
  for (int rank = 0; rank < size; ++rank) group.push_back(make_cpu_communicator(name, rank, std::move(sockets[rank])));
  return group;
}

}  // namespace mds::trainer
