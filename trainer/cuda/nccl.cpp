#include "trainer/cuda/nccl.hpp"

#include <cstring>
#include <utility>

#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <nccl.h>

namespace mds::trainer::cuda {
namespace {

static_assert(sizeof(NcclId) == sizeof(ncclUniqueId), "the blob that ranks exchange is NCCL's id");

void check(ncclResult_t result, const std::string& group, const char* call) {
  TORCH_CHECK(result == ncclSuccess, "group ", group, ": ", call, ": ", ncclGetErrorString(result), " (",
              ncclGetLastError(nullptr), ")");
}

ncclDataType_t data_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return ncclFloat32;
    case at::kDouble: return ncclFloat64;
    case at::kBFloat16: return ncclBfloat16;
    case at::kHalf: return ncclFloat16;
    case at::kLong: return ncclInt64;
    case at::kInt: return ncclInt32;
    case at::kByte: return ncclUint8;
    default: TORCH_CHECK(false, "NCCL cannot carry ", tensor.scalar_type());
  }
}

size_t count(const at::Tensor& tensor) { return static_cast<size_t>(tensor.numel()); }

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::string name, int rank, int size, const ncclUniqueId& id)
      : name_(std::move(name)), rank_(rank), size_(size), device_(c10::kCUDA, c10::cuda::current_device()) {
    check(ncclCommInitRank(&comm_, size, id, rank), name_, "ncclCommInitRank");
  }
  ~NcclCommunicator() override {
    // Abort, not destroy: after a failure the other ranks may never come to a collective end.
    if (comm_) ncclCommAbort(comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& name() const override { return name_; }
  at::Device device() const override { return device_; }

  void all_reduce(at::Tensor& tensor, ReduceOp op) override {
    check_flat(tensor);
    check(ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), count(tensor), data_type(tensor),
                        op == ReduceOp::sum ? ncclSum : ncclMax, comm_, stream()),
          name_, "ncclAllReduce");
  }

  void all_gather(at::Tensor& output, const at::Tensor& input) override {
    check_sizes(output, input, "all_gather");
    check(ncclAllGather(input.data_ptr(), output.data_ptr(), count(input), data_type(input), comm_, stream()), name_,
          "ncclAllGather");
  }

  void reduce_scatter(at::Tensor& output, const at::Tensor& input) override {
    check_sizes(input, output, "reduce_scatter");
    check(ncclReduceScatter(input.data_ptr(), output.data_ptr(), count(output), data_type(input), ncclSum, comm_,
                            stream()),
          name_, "ncclReduceScatter");
  }

  void broadcast(at::Tensor& tensor, int root) override {
    check_flat(tensor);
    check(ncclBroadcast(tensor.data_ptr(), tensor.data_ptr(), count(tensor), data_type(tensor), root, comm_, stream()),
          name_, "ncclBroadcast");
  }

  void transfer(std::vector<PeerTransfer> transfers) override {
    check(ncclGroupStart(), name_, "ncclGroupStart");
    for (PeerTransfer& one : transfers) {
      check_flat(one.tensor);
      void* data = one.tensor.data_ptr();
      const ncclDataType_t type = data_type(one.tensor);
      if (one.kind == PeerTransfer::Kind::send) {
        check(ncclSend(data, count(one.tensor), type, one.peer, comm_, stream()), name_, "ncclSend");
      } else {
        check(ncclRecv(data, count(one.tensor), type, one.peer, comm_, stream()), name_, "ncclRecv");
      }
    }
    check(ncclGroupEnd(), name_, "ncclGroupEnd");
  }

  void barrier() override {
    at::Tensor token = at::zeros({1}, at::TensorOptions(device_).dtype(at::kInt));
    all_reduce(token, ReduceOp::sum);
    c10::cuda::getCurrentCUDAStream().synchronize();
  }

 private:
  static cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

  void check_flat(const at::Tensor& tensor) const {
    TORCH_CHECK(tensor.is_contiguous() && tensor.device() == device_, "group ", name_,
                ": an NCCL communicator takes contiguous tensors on ", device_);
  }
  void check_sizes(const at::Tensor& large, const at::Tensor& small, const char* call) const {
    check_flat(large);
    check_flat(small);
    TORCH_CHECK(large.numel() == small.numel() * size_ && large.scalar_type() == small.scalar_type(), "group ", name_,
                ": ", call, " needs tensors of one dtype, one of them size times the other");
  }

  std::string name_;
  int rank_;
  int size_;
  at::Device device_;
  ncclComm_t comm_ = nullptr;
};

}  // namespace

void make_unique_id(NcclId& id) {
  ncclUniqueId made;
  check(ncclGetUniqueId(&made), "any", "ncclGetUniqueId");
  std::memcpy(id.data(), &made, id.size());
}

std::unique_ptr<Communicator> make_nccl_communicator(const std::string& name, int rank, int size, const NcclId& id) {
  ncclUniqueId given;
  std::memcpy(&given, id.data(), id.size());
  return std::make_unique<NcclCommunicator>(name, rank, size, given);
}

}  // namespace mds::trainer::cuda
