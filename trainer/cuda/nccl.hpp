// NCCL communicators: every call is enqueued on the current CUDA stream.
#pragma once

#include <memory>
#include <string>

#include "trainer/comm/communicator.hpp"
#include "trainer/device.hpp"

namespace mds::trainer::cuda {

void make_unique_id(NcclId& id);

/// Collective over the group; on the current device. Throws c10::Error with NCCL's message.
std::unique_ptr<Communicator> make_nccl_communicator(const std::string& name, int rank, int size, const NcclId& id);

}  // namespace mds::trainer::cuda
