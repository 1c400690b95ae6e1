// Collective decisions among the ranks that save or load a checkpoint. `world` is a communicator for CPU tensors; its
// exceptions (a lost peer) pass through.
#pragma once

#include <string>
#include <vector>

#include "topology/result.hpp"
#include "trainer/comm/communicator.hpp"

namespace mds::trainer {

/// The same verdict on every rank: success if all succeeded, else the error of the first rank that failed.
Status agree(Communicator& world, const Status& mine);

/// Every rank's text on rank 0, by rank; empty on the others.
std::vector<std::string> gather_texts(Communicator& world, const std::string& mine);

}  // namespace mds::trainer
