#include "launcher/plan.hpp"

#include <algorithm>
#include <cstdio>

#include "launcher/job_nearest.hpp"
#include "launcher/job_values.hpp"
#include "launcher/plan_environment.hpp"
#include "launcher/plan_memory.hpp"

namespace mds::launcher {
namespace {

using topology::Machine;
using topology::RankPlacement;
using Environment = std::map<std::string, std::string>;

std::string rank_file(int rank) {
  char name[32];
  std::snprintf(name, sizeof name, "rank-%05d.log", rank);
  return name;
}

bool shares_machine(const topology::Cluster& cluster) {
  const auto& nodes = cluster.nodes;
  return std::all_of(nodes.begin(), nodes.end(), [&](const Machine& node) { return node.host == nodes.front().host; });
}

// Cores, not hardware threads: two threads of a core gain nothing in matrix products.
int bound_cores(const Machine& machine, const RankPlacement& placed) {
  const auto is_bound = [&](int cpu) { return std::binary_search(placed.cpus.begin(), placed.cpus.end(), cpu); };
  const auto cores = std::count_if(machine.cores.begin(), machine.cores.end(), [&](const topology::Core& core) {
    return std::any_of(core.cpus.begin(), core.cpus.end(), is_bound);
  });
  return std::max(1, static_cast<int>(cores));
}

// The GPUs of a node's ranks in the order of LOCAL_RANK: every rank sees all of them, as programs written for torchrun
// expect (they take cuda:LOCAL_RANK), and NCCL needs its peers visible.
std::string visible_devices(const Machine& machine, const std::vector<const RankPlacement*>& ranks) {
  std::vector<std::string> indices;
  for (const RankPlacement* placed : ranks) {
    if (placed->gpu >= 0) indices.push_back(std::to_string(machine.gpus[static_cast<size_t>(placed->gpu)].index));
  }
  return join_names(indices, ",");
}

void add_torchrun(Environment& env, const Job& job, const PlanInputs& inputs, const RankPlacement& placed, int world,
                  int local_world, int nodes) {
  const std::string node = std::to_string(placed.node);
  env["RANK"] = env["ROLE_RANK"] = std::to_string(placed.rank);
  env["WORLD_SIZE"] = env["ROLE_WORLD_SIZE"] = std::to_string(world);
  env["LOCAL_RANK"] = std::to_string(placed.local_rank);
  env["LOCAL_WORLD_SIZE"] = std::to_string(local_world);
  env["GROUP_RANK"] = env["NODE_RANK"] = node;
  env["GROUP_WORLD_SIZE"] = std::to_string(nodes);
  env["ROLE_NAME"] = "default";
  env["TORCHELASTIC_MAX_RESTARTS"] = std::to_string(job.restart.max_restarts);
  env["TORCHELASTIC_RUN_ID"] = inputs.run_id;
  env["TORCHELASTIC_USE_AGENT_STORE"] = "False";
}

void add_ours(Environment& env, const PlanInputs& inputs, const RankPlacement& placed) {
  env["MDS_RUN_FOLDER"] = inputs.run_folder;
  env["MDS_RUN_ID"] = inputs.run_id;
  env["MDS_TP_RANK"] = std::to_string(placed.coordinates.tensor);
  env["MDS_PP_RANK"] = std::to_string(placed.coordinates.pipeline);
  env["MDS_DP_RANK"] = std::to_string(placed.coordinates.data);
  env["MDS_CP_RANK"] = std::to_string(placed.coordinates.context);
}

void add_devices(Environment& env, const Job& job, const PlanInputs& inputs, const Machine& machine,
                 const RankPlacement& placed, const std::string& visible, bool one_machine) {
  const auto own_threads = inputs.base_env.find("OMP_NUM_THREADS");  // the user's own number wins, as under torchrun
  const bool own = own_threads != inputs.base_env.end();
  env["OMP_NUM_THREADS"] = own ? own_threads->second : std::to_string(bound_cores(machine, placed));
  env["CUDA_VISIBLE_DEVICES"] = visible;
  if (job.device == topology::DeviceKind::cuda) env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID";
  if (one_machine) {
    env["MDS_HOST_ADDRESS"] = "127.0.0.1";
    env["NCCL_SOCKET_IFNAME"] = env["GLOO_SOCKET_IFNAME"] = "lo";  // nothing listens where strangers could reach it
    return;
  }
  env["MDS_HOST_ADDRESS"] = machine.host;
  std::vector<std::string> adapters;
  for (const std::string& name : placed.nics) {
    const auto is_rdma = [&](const topology::Nic& nic) { return nic.name == name && nic.rdma; };
    if (std::any_of(machine.nics.begin(), machine.nics.end(), is_rdma)) adapters.push_back(name);
  }
  if (!adapters.empty()) env["NCCL_IB_HCA"] = "=" + join_names(adapters, ",");  // '=': exact names
}

std::vector<std::string> rank_argv(const Job& job, const PlanInputs& inputs) {
  if (!job.payload.empty()) return job.payload;
  return {inputs.trainer_program, "--config", inputs.run_folder + "/trainer.json"};
}

// What all ranks on a device keep for good must fit; activations are only estimated and do not stop a job.
Status check_memory(const Job& job, const topology::Cluster& cluster, const topology::Placement& placement) {
  if (!job.payload.empty()) return {};
  for (const RankPlacement& placed : placement.ranks) {
    if (placed.gpu < 0) continue;
    const topology::Gpu& gpu = cluster.nodes[static_cast<size_t>(placed.node)].gpus[static_cast<size_t>(placed.gpu)];
    const MemoryEstimate estimate = estimate_memory(job.trainer, placed.coordinates);
    if (gpu.memory_bytes == 0 || static_cast<uint64_t>(estimate.state()) <= gpu.memory_bytes) continue;
    constexpr int64_t kGiB = 1 << 30;
    return infeasible("rank " + std::to_string(placed.rank) + " would keep about " +
                      std::to_string(estimate.state() / kGiB) +
                      " GiB of parameters, gradients and optimizer state on " + gpu.name + " with " +
                      std::to_string(gpu.memory_bytes / kGiB) +
                      " GiB; raise parallel.tensor or parallel.pipeline, or zero.stage with parallel.data");
  }
  return {};
}

PlannedNode plan_node(const Job& job, const topology::Cluster& cluster, const LaunchPlan& plan,
                      const PlanInputs& inputs, int node) {
  const Machine& machine = cluster.nodes[static_cast<size_t>(node)];
  std::vector<const RankPlacement*> here;
  for (const RankPlacement& placed : plan.placement.ranks) {
    if (placed.node == node) here.push_back(&placed);
  }
  std::sort(here.begin(), here.end(), [](auto* a, auto* b) { return a->local_rank < b->local_rank; });
  const std::string visible = visible_devices(machine, here);
  const bool one_machine = shares_machine(cluster);

  PlannedNode out{node, machine.host, {}};
  for (const RankPlacement* placed : here) {
    agent::RankSpec spec;
    spec.rank = placed->rank;
    spec.local_rank = placed->local_rank;
    spec.argv = rank_argv(job, inputs);
    spec.working_dir = inputs.working_dir;
    spec.cpus = placed->cpus;
    spec.memory_nodes = placed->memory_nodes;
    spec.log_path = inputs.run_folder + "/logs/" + rank_file(placed->rank);
    add_torchrun(spec.env, job, inputs, *placed, plan.grid.world_size(), static_cast<int>(here.size()), job.nodes);
    add_ours(spec.env, inputs, *placed);
    add_devices(spec.env, job, inputs, machine, *placed, visible, one_machine);
    for (const auto& [name, value] : job.env) spec.env[name] = value;  // the user has the last word
    out.ranks.push_back(std::move(spec));
  }
  return out;
}

}  // namespace

Result<LaunchPlan> make_plan(const Job& job, const topology::Cluster& cluster, const PlanInputs& inputs) {
  const trainer::ParallelConfig& parallel = job.trainer.parallel;
  auto grid =
      topology::RankGrid::make(parallel.tensor, parallel.context, parallel.data, parallel.pipeline, parallel.order);
  if (!grid) return grid.error();
  LaunchPlan plan;
  plan.grid = *grid;
  plan.base_env = inputs.base_env;

  const bool virtual_nodes = cluster.nodes.size() > 1 && shares_machine(cluster);
  auto placement = topology::place(cluster, {plan.grid, job.ranks_per_node, job.device, virtual_nodes});
  if (!placement) return placement.error();
  plan.placement = *std::move(placement);
  if (Status fits = check_memory(job, cluster, plan.placement); !fits) return fits.error();
  for (int node = 0; node < job.nodes; ++node) plan.nodes.push_back(plan_node(job, cluster, plan, inputs, node));
  return plan;
}

agent::NodeStart node_start(const LaunchPlan& plan, int node, uint32_t attempt, const std::string& master_addr,
                            int master_port) {
  agent::NodeStart start;
  start.attempt = attempt;
  start.ranks = plan.nodes[static_cast<size_t>(node)].ranks;
  for (agent::RankSpec& spec : start.ranks) {
    spec.env["MASTER_ADDR"] = master_addr;
    spec.env["MASTER_PORT"] = std::to_string(master_port);
    spec.env["TORCHELASTIC_RESTART_COUNT"] = std::to_string(attempt == 0 ? 0 : attempt - 1);
    spec.env["MDS_ATTEMPT"] = std::to_string(attempt);
    spec.env.insert(plan.base_env.begin(), plan.base_env.end());  // insert() keeps what the plan has set
  }
  return start;
}

}  // namespace mds::launcher
