#include "launcher/plan_environment.hpp"

#include <unistd.h>

#include <algorithm>

#include "launcher/surroundings.hpp"

namespace mds::launcher {

const std::vector<RankVariable>& rank_variables() {
  static const std::vector<RankVariable> variables{
      {"RANK", "This rank, 0-based."},
      {"LOCAL_RANK", "This rank on its node, 0-based; also the index of its GPU in CUDA_VISIBLE_DEVICES."},
      {"WORLD_SIZE", "Ranks in all."},
      {"LOCAL_WORLD_SIZE", "Ranks on this node."},
      {"GROUP_RANK", "This node, 0-based."},
      {"GROUP_WORLD_SIZE", "Nodes in all."},
      {"NODE_RANK", "As GROUP_RANK."},
      {"ROLE_NAME", "\"default\"."},
      {"ROLE_RANK", "As RANK."},
      {"ROLE_WORLD_SIZE", "As WORLD_SIZE."},
      {"MASTER_ADDR", "Address on which rank 0 may listen for the others."},
      {"MASTER_PORT", "A port for it that was free when the attempt began; another one in each attempt."},
      {"TORCHELASTIC_RESTART_COUNT", "Restarts so far: 0 in the first attempt."},
      {"TORCHELASTIC_MAX_RESTARTS", "restart.max_restarts."},
      {"TORCHELASTIC_RUN_ID", "Name of the run."},
      {"TORCHELASTIC_USE_AGENT_STORE", "\"False\": rank 0 itself serves MASTER_PORT."},
      {"MDS_RUN_FOLDER", "The run folder."},
      {"MDS_RUN_ID", "As TORCHELASTIC_RUN_ID."},
      {"MDS_ATTEMPT", "1 in the first attempt."},
      {"MDS_TP_RANK", "Coordinate on the tensor axis."},
      {"MDS_PP_RANK", "Coordinate on the pipeline axis."},
      {"MDS_DP_RANK", "Coordinate on the data axis."},
      {"MDS_CP_RANK", "Coordinate on the context axis."},
      {"MDS_STAGED", "With [stage]: the folder below which this node has its copies, each at its own absolute path; in "
                     "a container /tmp/mds-staged."},
      {"MDS_HOST_ADDRESS", "Address of this node for connections between ranks."},
      {"MDS_CONTROL_FD", "Connected socket to the agent (trainer and programs that link our rank library)."},
      {"MDS_BEAT_FD", "Shared page for the heartbeat."},
      {"OMP_NUM_THREADS", "Your own number, or else the cores that the rank is bound to.", false},
      {"CUDA_VISIBLE_DEVICES",
       "All GPUs of this node's ranks, by LOCAL_RANK: UUIDs, or indices where not all are known; empty on a CPU job.",
       false},
      {"CUDA_DEVICE_ORDER", "\"PCI_BUS_ID\", the order in which the plan counts GPUs.", false},
      {"NCCL_SOCKET_IFNAME", "\"lo\" where all ranks are on one machine, else an interface of all nodes.", false},
      {"GLOO_SOCKET_IFNAME", "As NCCL_SOCKET_IFNAME.", false},
      {"NCCL_IB_HCA",
       "The RDMA adapters, with ports, that are best for some rank of the node, this rank's first, where ranks are on "
       "several machines.",
       false},
      {"NCCL_CROSS_NIC", "\"0\" on a rail-optimised fabric.", false},
      {"NCCL_TOPO_FILE", "The recorded topology, where a virtual machine hides its own.", false},
      {"OMPI_MCA_reachable",
       "\"weighted\" where MPI programs run on several nodes that are one machine: Open MPI looks for no route.",
       false},
      {"UCX_POSIX_USE_PROC_LINK", "\"n\" there: each node's container has processes of its own.", false},
  };
  return variables;
}

bool is_contract_variable(std::string_view name) {
  if (name.rfind("MDS_", 0) == 0 || name.rfind("TORCHELASTIC_", 0) == 0) return true;
  const auto& all = rank_variables();
  return std::any_of(all.begin(), all.end(),
                     [&](const auto& variable) { return variable.contract && variable.name == name; });
}

std::map<std::string, std::string> inherited_environment() {
  std::map<std::string, std::string> out;
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (equals == std::string_view::npos || equals == 0) continue;
    const std::string_view name = text.substr(0, equals);
    if (!is_contract_variable(name) && !is_of_mpirun(name)) out.emplace(name, text.substr(equals + 1));
  }
  return out;
}

}  // namespace mds::launcher
