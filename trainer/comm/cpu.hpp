// CPU communicators: fixed-order reductions over a SocketMesh.
//
// An element of a reduction is always ((rank 0 + rank 1) + rank 2) + ..., whichever rank computes it, so all_reduce and
// reduce_scatter give the same bits on every rank, in every run, and all_reduce equals reduce_scatter + all_gather.
// bfloat16 and half are added in fp32 and rounded once.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "trainer/comm/communicator.hpp"
#include "trainer/comm/socket_mesh.hpp"

namespace mds::trainer {

/// A group of one: reductions and gathers copy.
std::unique_ptr<Communicator> make_single_communicator(const std::string& name);

/// `peers[i]` is a connected stream socket to rank i; `peers[rank]` is empty.
std::unique_ptr<Communicator> make_cpu_communicator(const std::string& name, int rank, std::vector<Fd> peers);

/// One communicator per rank, connected by socket pairs, for threads of one process (tests).
std::vector<std::unique_ptr<Communicator>> make_local_group(int size, const std::string& name = "local");

}  // namespace mds::trainer
