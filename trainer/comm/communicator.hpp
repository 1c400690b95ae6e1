// Communicator: one process group. Two implementations: NCCL on GPUs (trainer/cuda/nccl.cpp, in the CUDA plug-in) and
// a TCP one on CPUs with fixed-order reductions (trainer/comm/cpu.cpp), so that sums do not depend on timing: rank 0's
// value comes first, then rank 1's, ..., for all_reduce and reduce_scatter alike.
//
// All tensors are contiguous and on this rank's device. On GPUs calls are enqueued on the current CUDA stream and
// return at once; on CPUs they return when done. Calls on one communicator must be made in the same order by every
// rank, from one thread. A failed peer ends the process (exception c10::Error from the call), never a silent hang.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace mds::trainer {

enum class ReduceOp { sum, max };

/// One half of a point-to-point exchange.
struct PeerTransfer {
  enum class Kind { send, receive } kind = Kind::send;
  at::Tensor tensor;      ///< read (send) or overwritten (receive)
  int peer = 0;           ///< rank within the group
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;     ///< within the group
  virtual int size() const = 0;
  virtual const std::string& name() const = 0;
  virtual at::Device device() const { return at::kCPU; }   ///< where tensors must be

  virtual void all_reduce(at::Tensor& tensor, ReduceOp op = ReduceOp::sum) = 0;     ///< in place
  /// output = size x input, flat. `input` may be this rank's part of `output`.
  virtual void all_gather(at::Tensor& output, const at::Tensor& input) = 0;
  /// input = size x output, flat; sums. `output` may be this rank's part of `input`, which is otherwise unchanged.
  virtual void reduce_scatter(at::Tensor& output, const at::Tensor& input) = 0;
  virtual void broadcast(at::Tensor& tensor, int root) = 0;
  /// All transfers progress together, so a ring or a pipeline exchange cannot deadlock by order.
  virtual void transfer(std::vector<PeerTransfer> transfers) = 0;
  virtual void barrier() = 0;
};

/// The groups that one rank belongs to. A group of size 1 is a communicator that does nothing.
struct ProcessGroups {
  std::unique_ptr<Communicator> world;
  std::unique_ptr<Communicator> tensor;
  std::unique_ptr<Communicator> pipeline;
  std::unique_ptr<Communicator> data;
  std::unique_ptr<Communicator> embedding;   ///< first and last stage (tied embeddings); size 1 on other ranks
  std::unique_ptr<Communicator> host;        ///< every rank, for CPU tensors; null where `world` is one itself

  Communicator& host_world() { return host ? *host : *world; }
};

}  // namespace mds::trainer
