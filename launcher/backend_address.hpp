// Addresses: where the head listens, so that the agents reach it and nobody else who need not.
#pragma once

#include <string>
#include <vector>

#include "launcher/job.hpp"
#include "topology/cluster.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

/// Numeric address for the head of `job`: that of job.interface, or else the one from which this machine reaches the
/// first of the job's nodes that is another machine (of the first three and the last); 127.0.0.1 where none is. Asks
/// the name service and, in a Slurm job for names that it does not know, scontrol. Errors: bad_input (no such
/// interface; a host without an address).
Result<std::string> head_address(const Job& job);

/// MASTER_ADDR and MASTER_PORT of one attempt, where rank 0 listens.
struct MasterPlace {
  std::string address;
  int port = 0;
};

/// `free_port` is free on this machine. On another one a port is taken at random from those that systems leave alone
/// (20000-29999), the same for every node as `seed` is: if it is in use the attempt fails and the next takes another.
MasterPlace master_place(const topology::Cluster& cluster, int node_of_rank_0,
                         const std::vector<std::string>& node_names, int free_port, unsigned seed);

}  // namespace mds::launcher
