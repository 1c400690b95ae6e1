// LaunchPlan: what every agent will start, per node and per rank. A pure function of job, cluster and placement.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/rank_spec.hpp"
#include "launcher/job.hpp"
#include "topology/placement.hpp"

namespace mds::launcher {

struct PlannedNode {
  int node = 0;  ///< index into Cluster::nodes; NODE_RANK, in the ranks' env, is their order
  std::string host;
  std::vector<agent::RankSpec> ranks;  ///< env: without base_env and the variables that change per attempt
};

struct LaunchPlan {
  topology::RankGrid grid;
  topology::Placement placement;
  std::vector<PlannedNode> nodes;               ///< by PlannedNode::node; those that have ranks
  container::Container container;               ///< that all ranks of a node share
  bool mpi = false;                             ///< the ranks are MPI programs
  std::map<std::string, std::string> base_env;  ///< under every rank's env; never printed (it may hold secrets)
  std::map<std::string, std::string> files;     ///< to be in the run folder before a rank starts: path there -> content
};

struct StagePlan;

struct PlanInputs {
  std::string run_folder;       ///< absolute
  std::string trainer_program;  ///< absolute path of mdstrain
  std::string run_id;
  std::map<std::string, std::string> base_env;  ///< the user's environment, passed on (see inherited_environment())
  std::string working_dir;                      ///< of every rank; empty: the agent's
  const StagePlan* stage = nullptr;             ///< what is sent to the nodes, if anything is
};

/// "rank-00003.log", in the run folder's logs/.
std::string rank_log_name(int rank);

/// Environment of a rank: torchrun's contract, NCCL_* and MDS_* (docs/reference.md). The user's own OMP_NUM_THREADS
/// and, on several machines, NCCL_* and GLOO_* go before the plan's. Errors: infeasible.
Result<LaunchPlan> make_plan(const Job& job, const topology::Cluster& cluster, const PlanInputs& inputs);

/// The `start` message's content of one node in one attempt: puts base_env under the ranks' variables and adds
/// TORCHELASTIC_RESTART_COUNT, MASTER_ADDR, MASTER_PORT and MDS_ATTEMPT. Requires a node (index into Cluster::nodes)
/// that has ranks; attempts count from 1.
agent::NodeStart node_start(const LaunchPlan& plan, int node, uint32_t attempt, const std::string& master_addr,
                            int master_port);

/// `plan --json` (version 1).
nlohmann::json to_json(const LaunchPlan& plan, const Job& job, const topology::Cluster& cluster);

}  // namespace mds::launcher
