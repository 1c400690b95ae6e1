// The planner: memory and step time of jobs, "auto" layouts, and what to change where a job does not fit.
#include "launcher/plan_cost.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "launcher/plan.hpp"
#include "launcher/plan_cost_auto.hpp"
#include "tests/launcher/job/job_texts.hpp"
#include "topology/read/synthetic.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;
using namespace mds::launcher::tests;
using mds::topology::Cluster;
namespace cost = mds::topology::cost;

namespace {

Job job_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const JobFileResult result = parse_job(text, "job.toml", overrides);
  INFO(all_problems(result));
  REQUIRE(result.job.has_value());
  return *result.job;
}

Cluster machines(const std::string& description) {
  const auto cluster = mds::topology::synthetic_cluster(description);
  REQUIRE(cluster.ok());
  return *cluster;
}

std::string gpu_job(const std::string& preset, int nodes, int64_t batch) {
  return "[job]\nnodes = " + std::to_string(nodes) + "\ngpus_per_node = 8\n[model]\npreset = \"" + preset +
         "\"\n[data]\nformat = \"random\"\n[training]\nsteps = 1\nseq_len = 8192\nprecision = \"bf16\"\n"
         "global_batch_size = " + std::to_string(batch) + "\n";
}

Job settled(const Job& job, const Cluster& cluster) {
  const auto result = settle_layout(job, cluster);
  if (!result) FAIL(result.error().message);
  return *result;
}

const std::vector<std::string> kAllAuto{"parallel.tensor=auto", "parallel.pipeline=auto", "parallel.data=auto",
                                        "parallel.context=auto", "training.micro_batch_size=auto"};

}  // namespace

TEST_CASE("the stages of a model hold all of its parameters once", "[plan-cost]") {
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  for (int round = 0; round < 300; ++round) {
    mds::trainer::TrainerConfig config;
    config.model.architecture = static_cast<mds::trainer::Architecture>(pick(0, 2));
    config.model.num_attention_heads = config.model.num_key_value_heads = 4;
    config.model.hidden_size = 16 * pick(1, 8);
    config.model.num_layers = pick(4, 9);
    config.model.intermediate_size = 4 * pick(8, 64);
    config.model.vocab_size = pick(50, 500);
    config.model.max_position_embeddings = pick(8, 64);
    config.model.tie_word_embeddings = pick(0, 1) == 1;
    const int stages = config.parallel.pipeline = pick(1, 4);
    const cost::Work work = cost_work(config);
    int64_t sum = 0;
    for (int stage = 0; stage < stages; ++stage) sum += cost::rank_parameters(work, stage);
    const bool copied = config.model.tie_word_embeddings && stages > 1;  // both ends hold the embedding
    const int64_t copy = copied ? config.model.vocab_size * config.model.hidden_size : 0;
    INFO("seed " << seed << ", round " << round);
    REQUIRE(sum == parameter_count(config.model) + copy);
  }
}

TEST_CASE("parameters, gradients and optimizer are what the trainer allocates", "[plan-cost]") {
  mds::trainer::TrainerConfig config;
  config.model = *mds::trainer::model_preset("gpt3-125m");
  config.training.seq_len = config.training.micro_batch_size = config.training.global_batch_size = 1;
  const int64_t n = parameter_count(config.model);
  const auto state = [&](mds::trainer::Precision precision, int stage, int replicas) {
    config.training.precision = precision;
    config.zero.stage = stage;
    config.parallel.data = replicas;
    return cost::estimate_memory(cost_work(config), 0).state();
  };
  using mds::trainer::Precision;
  CHECK(state(Precision::fp32, 0, 4) == n * (4 + 4 + 8));  // masters are the parameters themselves
  CHECK(state(Precision::fp32, 1, 4) == n * (4 + 4) + n * 2);
  CHECK(state(Precision::bf16, 0, 4) == n * (2 + 4 + 12));
  CHECK(state(Precision::bf16, 1, 4) == n * (2 + 4) + n * 3);
}

TEST_CASE("memory is within 5 % of what the trainer measured on an H200, job by job", "[plan-cost]") {
  struct Measured {
    const char* preset;
    int seq_len, micro_batch, batch;
    const char* recompute;
    double gib;  ///< memory_bytes_max of report.json, by tests/bench/memory.py
  };
  const Measured runs[] = {
      {"llama-1b", 8192, 2, 2, "none", 47.9},  {"llama-1b", 8192, 4, 4, "selective", 58.6},
      {"llama-1b", 8192, 8, 8, "full", 45.8},  {"llama-3b", 4096, 1, 4, "none", 71.2},
      {"gpt3-1.3b", 2048, 8, 8, "none", 47.9}, {"gpt3-2.7b", 2048, 16, 16, "full", 53.2},
      {"bloom-1b7", 2048, 4, 4, "none", 45.0}, {"bloom-3b", 2048, 2, 4, "selective", 58.5},
  };
  for (const Measured& run : runs) {
    const bool llama = std::string(run.preset).starts_with("llama");
    const Job job = job_of(
        "[job]\ngpus_per_node = 1\n[model]\npreset = \"" + std::string(run.preset) + "\"\n" +
            (llama ? "tie_word_embeddings = false\n" : "") + "[data]\nformat = \"random\"\n[training]\nsteps = 6\n",
        {"training.precision=bf16", "training.seq_len=" + std::to_string(run.seq_len),
         "training.micro_batch_size=" + std::to_string(run.micro_batch),
         "training.global_batch_size=" + std::to_string(run.batch),
         "training.recompute=" + std::string(run.recompute)});
    const PlanCost planned = plan_cost(job, machines("dgx-h200"));
    const double gib = static_cast<double>(planned.most().tensors()) / (1 << 30);
    INFO(run.preset << " x " << run.micro_batch << ": planned " << gib << " GiB, measured " << run.gib);
    CHECK(std::abs(gib / run.gib - 1) < 0.05);
  }
}

TEST_CASE("a job goes to shapes and back", "[plan-cost]") {
  const Job job = job_of(gpu_job("llama-8b", 2, 64), {"parallel.tensor=4", "parallel.pipeline=2",
                                                      "parallel.sequence_parallel=true", "zero.stage=1",
                                                      "training.recompute=full", "training.micro_batch_size=2"});
  const auto again = with_layout(job.trainer, cost_work(job.trainer));
  CHECK(to_json(again) == to_json(job.trainer));
  CHECK(can_run(job.trainer, cost_work(job.trainer)));
  cost::Work later = cost_work(job.trainer);
  later.zero_stage = 3;
  CHECK(can_run(job.trainer, later) == mds::trainer::check(with_layout(job.trainer, later)).empty());
}

TEST_CASE("plan --json has memory and step time by part", "[plan-cost]") {
  const Job job = job_of(gpu_job("llama-8b", 1, 8), {"parallel.tensor=2", "parallel.pipeline=2",
                                                     "training.micro_batch_size=1"});
  const Cluster cluster = machines("dgx-h200");
  const auto plan = make_plan(job, cluster, {});
  REQUIRE(plan.ok());
  const auto json = to_json(*plan, job, cluster);
  const auto& step = json.at("step_time");
  double sum = 0;
  for (const char* part : {"matrix", "attention", "elementwise", "recompute", "tensor", "context", "pipeline", "bubble",
                           "data", "optimizer", "offload"}) {
    INFO(part);
    REQUIRE(step.at(part).is_number());
    sum += step.at(part).get<double>();
  }
  CHECK(step.at("total").get<double>() == Approx(sum));
  CHECK(step.at("tokens_per_second").get<double>() == Approx(8 * 8192 / sum));
  CHECK(step.at("mfu").get<double>() > 0.1);
  CHECK(step.at("mfu").get<double>() < 0.8);
  CHECK(step.at("dominant") == "matrix");
  for (const auto& rank : json.at("ranks")) {
    const auto& memory = rank.at("memory");
    int64_t tensors = 0;
    for (const char* part : {"parameters", "gradients", "optimizer", "activations", "buffers"}) {
      tensors += memory.at(part).get<int64_t>();
    }
    CHECK(memory.at("tensors").get<int64_t>() == tensors);
    CHECK(memory.at("total").get<int64_t>() == tensors + memory.at("runtime").get<int64_t>());
  }
}

TEST_CASE("auto layouts are settled, fit, and come out the same twice", "[plan-cost]") {
  const struct {
    const char* preset;
    const char* cluster;
    int nodes;
    int64_t batch;
  } cases[] = {{"llama-1b", "dgx-h100", 1, 64},
               {"llama-8b", "dgx-h100 x2", 2, 128},
               {"llama-70b", "dgx-h200 x8", 8, 256},
               {"gpt3-13b", "dgx-a100 x4", 4, 96}};
  for (const auto& one : cases) {
    INFO(one.preset << " on " << one.cluster);
    std::string text = gpu_job(one.preset, one.nodes, one.batch);
    std::vector<std::string> overrides = kAllAuto;
    if (std::string(one.preset) == "gpt3-13b") overrides.push_back("training.seq_len=2048");
    const Job job = job_of(text, overrides);
    CHECK(job.resolved_toml.find("tensor = \"auto\"") != std::string::npos);
    const Cluster cluster = machines(one.cluster);
    const Job done = settled(job, cluster);
    CHECK_FALSE(done.left_open.any());
    CHECK(mds::trainer::check(done.trainer).empty());
    CHECK(check_fits(done, cluster).ok());
    const auto& p = done.trainer.parallel;
    CHECK(p.tensor * p.pipeline * p.data * p.context == one.nodes * 8);
    CHECK(p.tensor <= 8);
    CHECK(done.notes.size() > job.notes.size());
    CHECK(settled(job, cluster).resolved_toml == done.resolved_toml);
    // What is written to the run folder reads as the settled job.
    const Job again = job_of(done.resolved_toml);
    CHECK(to_json(again.trainer) == to_json(done.trainer));
    CHECK_FALSE(again.left_open.any());
    CHECK(make_plan(done, cluster, {}).ok());
  }
}

TEST_CASE("an open job's resolved text is open, too", "[plan-cost]") {
  const Job job = job_of(gpu_job("llama-8b", 2, 128), kAllAuto);
  CHECK(job.left_open.tensor);
  CHECK(job.left_open.data);
  CHECK(job.left_open.sequence_parallel);
  const Job again = job_of(job.resolved_toml);
  CHECK(again.left_open == job.left_open);
  CHECK(again.resolved_toml == job.resolved_toml);
}

TEST_CASE("what the file fixes stays fixed", "[plan-cost]") {
  const Cluster cluster = machines("dgx-h100 x2");
  const Job job = settled(job_of(gpu_job("llama-8b", 2, 64), {"parallel.pipeline=auto", "parallel.tensor=4",
                                                              "training.micro_batch_size=2"}),
                          cluster);
  CHECK(job.trainer.parallel.tensor == 4);
  CHECK_FALSE(job.trainer.parallel.sequence_parallel);
  CHECK(job.trainer.training.micro_batch_size == 2);
  const Job data = settled(job_of(gpu_job("llama-8b", 2, 64), {"parallel.tensor=auto", "parallel.data=2",
                                                               "parallel.pipeline=auto"}),
                           cluster);
  CHECK(data.trainer.parallel.data == 2);
  const Job fixed = job_of(gpu_job("llama-8b", 2, 64), {"parallel.tensor=8", "training.micro_batch_size=1"});
  CHECK(settled(fixed, cluster).resolved_toml == fixed.resolved_toml);
  CHECK(settled(fixed, cluster).notes == fixed.notes);
}

TEST_CASE("on CPUs auto means replicas", "[plan-cost]") {
  const Cluster cluster = machines("cpu:packages=1,cores=4");
  const Job job = settled(job_of(valid_text(), {"job.nodes=1", "job.ranks_per_node=4", "parallel.tensor=auto",
                                                "parallel.pipeline=auto"}),
                          cluster);
  CHECK(job.trainer.parallel.data == 4);
  CHECK(job.trainer.parallel.tensor == 1);
  // Six samples do not divide over four replicas.
  const Job odd = settled(job_of(valid_text(), {"job.nodes=1", "job.ranks_per_node=4", "parallel.tensor=auto",
                                                "training.global_batch_size=6"}),
                          cluster);
  CHECK(odd.trainer.parallel.data == 2);
  CHECK(odd.trainer.parallel.tensor == 2);
}

TEST_CASE("auto that cannot be settled is refused with the reason", "[plan-cost]") {
  const Job none = job_of(gpu_job("llama-8b", 1, 7), {"parallel.tensor=auto"});
  const auto impossible = settle_layout(none, machines("dgx-h100"));
  if (impossible.ok()) {
    CHECK(7 % impossible->trainer.parallel.data == 0);
  } else {
    CHECK(impossible.error().code == mds::ErrorCode::infeasible);
  }
  const auto large = settle_layout(job_of(gpu_job("llama-405b", 1, 8), kAllAuto), machines("dgx-h100"));
  REQUIRE_FALSE(large.ok());
  CHECK(large.error().code == mds::ErrorCode::infeasible);
  CHECK(large.error().message.find("none fits") != std::string::npos);
  const JobFileResult payload = parse_job(
      "[job]\ndevices = \"cpu\"\n[parallel]\ntensor = \"auto\"\n[payload]\ncommand = [\"true\"]\n", "job.toml", {});
  REQUIRE(payload.problems.size() == 1);
  CHECK(payload.problems[0].message.find("auto") != std::string::npos);
}

TEST_CASE("a job that does not fit is told what would, and each of that fits", "[plan-cost]") {
  const Cluster cluster = machines("dgx-h100");
  const Job job = job_of(gpu_job("llama-8b", 1, 64), {"training.micro_batch_size=1"});
  const auto fits = check_fits(job, cluster);
  REQUIRE_FALSE(fits.ok());
  CHECK(fits.error().code == mds::ErrorCode::infeasible);
  const std::string& message = fits.error().message;
  INFO(message);
  CHECK(message.find("it would fit with ") != std::string::npos);
  // The first proposal, taken as --set takes it.
  const size_t begin = message.find("it would fit with ") + 18;
  const std::string proposal = message.substr(begin, message.find(" (", begin) - begin);
  std::vector<std::string> sets{"training.micro_batch_size=1"};
  for (size_t at = 0; at < proposal.size();) {
    const size_t end = std::min(proposal.find(' ', at), proposal.size());
    sets.push_back(proposal.substr(at, end - at));
    at = end + 1;
  }
  CHECK(check_fits(job_of(gpu_job("llama-8b", 1, 64), sets), cluster).ok());
}

TEST_CASE("an estimate above the memory by less than its error is said, not refused", "[plan-cost]") {
  const Job job = job_of(gpu_job("llama-8b", 1, 8), {"parallel.tensor=8", "training.micro_batch_size=1"});
  Cluster cluster = machines("dgx-h100");
  const int64_t needed = plan_cost(job, cluster).most().total();
  const auto with_memory = [&](double share) {
    const auto bytes = static_cast<uint64_t>(share * static_cast<double>(needed));
    for (auto& gpu : cluster.nodes[0].gpus) gpu.memory_bytes = bytes;
    return cluster;
  };
  const auto tight = [&] {
    for (const std::string& reason : cost_reasons(plan_cost(job, cluster))) {
      if (reason.find("tight") != std::string::npos) return true;
    }
    return false;
  };
  CHECK(check_fits(job, with_memory(1.01)).ok());
  CHECK_FALSE(tight());
  CHECK(check_fits(job, with_memory(0.97)).ok());
  CHECK(tight());
  CHECK_FALSE(check_fits(job, with_memory(0.9)).ok());
}
