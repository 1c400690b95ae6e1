#include "launcher/plan.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "launcher/job_nearest.hpp"
#include "launcher/job_values.hpp"
#include "launcher/node_networks.hpp"
#include "launcher/plan_container.hpp"
#include "launcher/plan_cost.hpp"
#include "launcher/plan_environment_nccl.hpp"
#include "launcher/stage_plan.hpp"

namespace mds::launcher {
namespace {

using topology::Machine;
using topology::RankPlacement;

// Whether these nodes (indices) are all the same real machine.
bool one_machine(const topology::Cluster& cluster, const std::vector<int>& nodes) {
  const auto host = [&](int node) -> const std::string& { return cluster.nodes[static_cast<size_t>(node)].host; };
  return std::all_of(nodes.begin(), nodes.end(), [&](int node) { return host(node) == host(nodes.front()); });
}

// The GPUs of a node's ranks in the order of LOCAL_RANK: every rank sees all of them, as programs written for torchrun
// expect (they take cuda:LOCAL_RANK), and NCCL needs its peers visible. By UUID where all are known: that stays true
// when a GPU drops out and the driver numbers the rest anew.
std::string visible_devices(const Machine& machine, const std::vector<RankPlacement>& ranks,
                            const topology::NodePlacement& node) {
  std::vector<std::string> indices, uuids;
  for (int local = 0; local < node.ranks; ++local) {
    const RankPlacement& placed = ranks[static_cast<size_t>(node.first_rank + local)];
    if (placed.gpu < 0) continue;
    const topology::Gpu& gpu = machine.gpus[static_cast<size_t>(placed.gpu)];
    indices.push_back(std::to_string(gpu.index));
    if (!gpu.uuid.empty()) uuids.push_back(gpu.uuid);
  }
  return join_names(uuids.size() == indices.size() ? uuids : indices, ",");
}

// torchrun's part and ours that is the same for all ranks of a node.
Environment node_environment(const Job& job, const PlanInputs& inputs, const LaunchPlan& plan, size_t node_rank) {
  const topology::NodePlacement& node = plan.placement.nodes[node_rank];
  Environment env;
  env["WORLD_SIZE"] = env["ROLE_WORLD_SIZE"] = std::to_string(plan.grid.world_size());
  env["LOCAL_WORLD_SIZE"] = std::to_string(node.ranks);
  env["GROUP_RANK"] = env["NODE_RANK"] = std::to_string(node_rank);
  env["GROUP_WORLD_SIZE"] = std::to_string(plan.placement.nodes.size());
  env["ROLE_NAME"] = "default";
  env["TORCHELASTIC_MAX_RESTARTS"] = std::to_string(job.restart.max_restarts);
  env["TORCHELASTIC_RUN_ID"] = env["MDS_RUN_ID"] = inputs.run_id;
  env["TORCHELASTIC_USE_AGENT_STORE"] = "False";
  env["MDS_RUN_FOLDER"] = inputs.run_folder;
  if (job.device == topology::DeviceKind::cuda) env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID";
  return env;
}

void add_rank(Environment& env, const RankPlacement& placed) {
  env["RANK"] = env["ROLE_RANK"] = std::to_string(placed.rank);
  env["LOCAL_RANK"] = std::to_string(placed.local_rank);
  env["MDS_TP_RANK"] = std::to_string(placed.coordinates.tensor);
  env["MDS_PP_RANK"] = std::to_string(placed.coordinates.pipeline);
  env["MDS_DP_RANK"] = std::to_string(placed.coordinates.data);
  env["MDS_CP_RANK"] = std::to_string(placed.coordinates.context);
  // Cores, not hardware threads: two threads of a core gain nothing in matrix products.
  env["OMP_NUM_THREADS"] = std::to_string(std::max(1, placed.cores));
}

// What MPI libraries must be told where several nodes of a job are one machine. Open MPI's "netlink" asks the kernel
// for the route from one node to the other and finds no interface, since both addresses are local; each node's
// container has processes of its own, into which UCX may not look. What the user exported goes before.
void add_neighbours(Environment& env, const Environment& exported) {
  for (const auto& [name, value] : {std::pair("OMPI_MCA_reachable", "weighted"), {"UCX_POSIX_USE_PROC_LINK", "n"}}) {
    const auto own = exported.find(name);
    env[name] = own != exported.end() ? own->second : value;
  }
}

// What the user exported himself goes before the plan's tuning, as under torchrun; but not before "lo".
void prefer_own(Environment& env, const Environment& exported, bool local) {
  for (auto& [name, value] : env) {
    const bool network = name.rfind("NCCL_", 0) == 0 || name.rfind("GLOO_", 0) == 0;
    if (name != "OMP_NUM_THREADS" && (!network || local)) continue;
    const auto own = exported.find(name);
    if (own != exported.end()) value = own->second;
  }
}

std::vector<std::string> rank_argv(const Job& job, const PlanInputs& inputs) {
  if (!job.payload.empty()) return job.payload;
  const bool in_image = job.container.runtime != container::Runtime::none;
  const std::string& program = in_image ? job.container_trainer : inputs.trainer_program;
  return {program, "--config", inputs.run_folder + "/trainer.json"};
}

PlannedNode plan_node(const Job& job, const topology::Cluster& cluster, const LaunchPlan& plan,
                      const PlanInputs& inputs, const NcclEnvironment& nccl, bool local, size_t node_rank) {
  const topology::NodePlacement& node = plan.placement.nodes[node_rank];
  const Machine& machine = cluster.nodes[static_cast<size_t>(node.node)];
  Environment base = node_environment(job, inputs, plan, node_rank);
  base["CUDA_VISIBLE_DEVICES"] = visible_devices(machine, plan.placement.ranks, node);
  base["MDS_HOST_ADDRESS"] = local ? "127.0.0.1" : machine.host;
  base.insert(nccl.of_node(node_rank).begin(), nccl.of_node(node_rank).end());
  if (plan.mpi && local && plan.placement.nodes.size() > 1) add_neighbours(base, plan.base_env);
  if (job.netns) {
    base["MDS_HOST_ADDRESS"] = NodeNetworks::address(node.node);
    base["NCCL_SOCKET_IFNAME"] = base["GLOO_SOCKET_IFNAME"] = NodeNetworks::kInterface;
  }

  PlannedNode out{node.node, machine.host, {}};
  for (int rank = node.first_rank; rank < node.first_rank + node.ranks; ++rank) {
    const RankPlacement& placed = plan.placement.ranks[static_cast<size_t>(rank)];
    agent::RankSpec& spec = out.ranks.emplace_back();
    spec.rank = placed.rank;
    spec.local_rank = placed.local_rank;
    spec.argv = rank_argv(job, inputs);
    spec.working_dir =
        plan.container.runtime == container::Runtime::none ? inputs.working_dir : plan.container.working_dir;
    spec.cpus = placed.cpus;
    spec.memory_nodes = placed.memory_nodes;
    spec.log_path = inputs.run_folder + "/logs/" + rank_log_name(placed.rank);
    spec.env = base;
    add_rank(spec.env, placed);
    nccl.add_adapters(spec.env, placed);
    prefer_own(spec.env, plan.base_env, local);
    for (const auto& [name, value] : job.env) spec.env[name] = value;  // the user has the last word
  }
  return out;
}

}  // namespace

std::string rank_log_name(int rank) {
  char name[32];
  std::snprintf(name, sizeof name, "rank-%05d.log", rank);
  return name;
}

Result<LaunchPlan> make_plan(const Job& job, const topology::Cluster& cluster, const PlanInputs& inputs) {
  const trainer::ParallelConfig& parallel = job.trainer.parallel;
  auto grid =
      topology::RankGrid::make(parallel.tensor, parallel.context, parallel.data, parallel.pipeline, parallel.order);
  if (!grid) return grid.error();
  LaunchPlan plan;
  plan.grid = *grid;
  plan.base_env = let_in(job, inputs.base_env);
  auto container = job_container(job, inputs.run_folder, inputs.stage);
  if (!container) return container.error();
  plan.container = *std::move(container);
  plan.mpi = !job.payload.empty() && job.payload_mpi;

  std::vector<int> nodes(cluster.nodes.size());
  std::iota(nodes.begin(), nodes.end(), 0);
  const bool virtual_nodes = nodes.size() > 1 && one_machine(cluster, nodes);
  auto placement = topology::place(cluster, {plan.grid, job.ranks_per_node, job.device, virtual_nodes});
  if (!placement) return placement.error();
  plan.placement = *std::move(placement);
  if (Status fits = check_fits(job, cluster); !fits) return fits.error();

  nodes.clear();
  for (const topology::NodePlacement& node : plan.placement.nodes) nodes.push_back(node.node);
  const bool local = one_machine(cluster, nodes);
  const NcclEnvironment nccl(cluster, plan.placement, local, inputs.run_folder);
  plan.files = nccl.files();
  plan.placement.reasons.insert(plan.placement.reasons.end(), nccl.reasons().begin(), nccl.reasons().end());
  for (size_t node_rank = 0; node_rank < plan.placement.nodes.size(); ++node_rank) {
    plan.nodes.push_back(plan_node(job, cluster, plan, inputs, nccl, local, node_rank));
  }
  std::sort(plan.nodes.begin(), plan.nodes.end(), [](auto& a, auto& b) { return a.node < b.node; });
  if (inputs.stage) move_to_nodes(*inputs.stage, plan);
  return plan;
}

agent::NodeStart node_start(const LaunchPlan& plan, int node, uint32_t attempt, const std::string& master_addr,
                            int master_port) {
  agent::NodeStart start;
  start.attempt = attempt;
  const auto before = [](const PlannedNode& candidate, int wanted) { return candidate.node < wanted; };
  const auto planned = std::lower_bound(plan.nodes.begin(), plan.nodes.end(), node, before);
  start.ranks = planned->ranks;
  start.container = plan.container;
  start.mpi = plan.mpi;
  start.env = plan.base_env;
  start.env["MASTER_ADDR"] = master_addr;
  start.env["MASTER_PORT"] = std::to_string(master_port);
  start.env["TORCHELASTIC_RESTART_COUNT"] = std::to_string(attempt == 0 ? 0 : attempt - 1);
  start.env["MDS_ATTEMPT"] = std::to_string(attempt);
  return start;
}

}  // namespace mds::launcher
