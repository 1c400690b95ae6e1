#include "launcher/plan_cost.hpp"

#include "launcher/plan_cost_text.hpp"

namespace mds::launcher {

namespace cost = topology::cost;
using trainer::Architecture;

// The enumerations have the same members in the same order; these hold them together.
static_assert(static_cast<int>(cost::Precision::fp8) == static_cast<int>(trainer::Precision::fp8));
static_assert(static_cast<int>(cost::Recompute::full) == static_cast<int>(trainer::Recompute::full));
static_assert(static_cast<int>(cost::Schedule::zero_bubble) == static_cast<int>(trainer::Schedule::zero_bubble));
static_assert(static_cast<int>(cost::Offload::nvme) == static_cast<int>(trainer::Offload::nvme));

cost::Work cost_work(const trainer::TrainerConfig& config) {
  trainer::ModelConfig model = config.model;
  fill_derived(model);
  cost::Work work;
  cost::ModelShape& shape = work.model;
  shape.hidden = model.hidden_size;
  shape.layers = model.num_layers;
  shape.heads = model.num_attention_heads;
  shape.key_value_heads = model.num_key_value_heads;
  shape.head_dim = model.head_dim;
  shape.intermediate = model.intermediate_size;
  shape.vocabulary = model.vocab_size;
  shape.learned_positions = model.architecture == Architecture::gpt3 ? model.max_position_embeddings : 0;
  shape.gated = model.architecture == Architecture::llama;
  shape.biases = model.architecture != Architecture::llama;
  shape.embedding_norm = shape.alibi = model.architecture == Architecture::bloom;
  shape.tied = model.tie_word_embeddings;

  const trainer::ParallelConfig& parallel = config.parallel;
  work.layout = {parallel.tensor,
                 parallel.context,
                 parallel.data,
                 parallel.pipeline,
                 parallel.sequence_parallel && parallel.tensor > 1,
                 static_cast<cost::Schedule>(parallel.schedule),
                 parallel.virtual_stages};
  work.seq_len = config.training.seq_len;
  work.global_batch = config.training.global_batch_size;
  work.micro_batch = config.training.micro_batch_size;
  work.precision = static_cast<cost::Precision>(config.training.precision);
  work.recompute = static_cast<cost::Recompute>(config.training.recompute);
  work.zero_stage = config.zero.stage;
  work.offload_optimizer = static_cast<cost::Offload>(config.zero.offload_optimizer);
  work.offload_parameters = static_cast<cost::Offload>(config.zero.offload_parameters);
  return work;
}

trainer::TrainerConfig with_layout(trainer::TrainerConfig config, const cost::Work& work) {
  trainer::ParallelConfig& parallel = config.parallel;
  parallel.tensor = work.layout.tensor;
  parallel.context = work.layout.context;
  parallel.data = work.layout.data;
  parallel.pipeline = work.layout.pipeline;
  parallel.sequence_parallel = work.layout.sequence_parallel;
  parallel.schedule = static_cast<trainer::Schedule>(work.layout.schedule);
  parallel.virtual_stages = work.layout.virtual_stages;
  config.training.micro_batch_size = work.micro_batch;
  config.training.recompute = static_cast<trainer::Recompute>(work.recompute);
  config.zero.stage = work.zero_stage;
  config.zero.offload_optimizer = static_cast<trainer::Offload>(work.offload_optimizer);
  config.zero.offload_parameters = static_cast<trainer::Offload>(work.offload_parameters);
  return config;
}

bool can_run(const trainer::TrainerConfig& config, const cost::Work& work) {
  return trainer::check(with_layout(config, work)).empty();
}

cost::Machines cost_machines(const Job& job, const topology::Cluster& cluster) {
  const bool gpu = job.device == topology::DeviceKind::cuda;
  return cost::describe_machines(cluster, gpu, job.nodes, job.ranks_per_node, job.trainer.parallel.order);
}

double PlanCost::tokens_per_second() const {
  return step ? static_cast<double>(work.global_batch * work.seq_len) / step->total() : 0;
}

double PlanCost::model_flops_utilization() const {
  if (!step) return 0;
  return cost::model_flops(work) / step->total() / static_cast<double>(work.layout.ranks()) / machines.device.peak;
}

PlanCost plan_cost(const Job& job, const topology::Cluster& cluster) {
  PlanCost out;
  out.work = cost_work(job.trainer);
  out.machines = cost_machines(job, cluster);
  for (int stage = 0; stage < out.work.layout.pipeline; ++stage) {
    out.stages.push_back(cost::estimate_memory(out.work, stage, out.machines.gpu));
    if (out.stages.back().total() > out.most().total()) out.fullest = out.stages.size() - 1;
  }
  if (out.machines.rates_known) out.step = cost::estimate_step(out.work, out.machines);
  return out;
}

double utilization_per_token(const Job& job, const topology::Cluster& cluster) {
  if (!job.payload.empty() || job.device != topology::DeviceKind::cuda || cluster.nodes.empty()) return 0;
  const cost::Work work = cost_work(job.trainer);
  const double peak = cost_machines(job, cluster).device.peak;
  const auto tokens = static_cast<double>(work.global_batch * work.seq_len);
  return peak > 0 ? cost::model_flops(work) / tokens / static_cast<double>(work.layout.ranks()) / peak : 0;
}

Status check_fits(const Job& job, const topology::Cluster& cluster) {
  if (job.left_open.layout()) return internal("a plan was asked for before \"auto\" under [parallel] was settled");
  if (!job.payload.empty() || job.device != topology::DeviceKind::cuda || cluster.nodes.empty()) return {};
  const PlanCost cost = plan_cost(job, cluster);
  const auto available = static_cast<double>(cost.machines.memory_bytes);
  const auto needed = static_cast<double>(cost.most().total());
  if (available == 0 || needed <= available * (1 + cost::kMemoryError)) return {};
  return infeasible(does_not_fit_text(job.trainer, cost.work, cost.machines));
}

}  // namespace mds::launcher
