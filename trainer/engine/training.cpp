#include "trainer/engine/training.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <utility>

#include <ATen/ops/add.h>
#include <ATen/ops/tensor.h>
#include <nlohmann/json.hpp>

#include "trainer/engine/lr_schedule.hpp"
#include "trainer/engine/resume.hpp"
#include "trainer/model/hugging_face.hpp"

namespace mds::trainer {
namespace {

using topology::Axis;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// What this engine does not do; checked here, too, because trainer.json may be written by hand.
Status check_supported(const TrainerConfig& config) {
  const auto& training = config.training;
  if (training.precision != Precision::fp32 && training.precision != Precision::bf16) {
    return bad_input(std::string("training.precision = \"") + to_string(training.precision) +
                     "\" is not available yet; use \"bf16\" or \"fp32\"");
  }
  const Schedule schedule = config.parallel.schedule;
  if ((schedule != Schedule::one_f_one_b && schedule != Schedule::gpipe) || config.parallel.virtual_stages > 1) {
    return bad_input("parallel.schedule must be \"1f1b\" or \"gpipe\", with virtual_stages = 1");
  }
  if (config.parallel.context > 1) return bad_input("parallel.context > 1 is not available yet; use 1");
  if (config.zero.stage > 1) return bad_input("zero.stage > 1 is not available yet; use 0 or 1");
  if (config.zero.offload_optimizer != Offload::none || config.zero.offload_parameters != Offload::none) {
    return bad_input("zero.offload_optimizer and zero.offload_parameters are not available yet; use \"none\"");
  }
  if (config.checkpoint.save_hf) return bad_input("checkpoint.save_hf is not available yet; set it to false");
  if (config.optimizer.name != "adamw") return bad_input("optimizer.name must be \"adamw\"");
  return {};
}

BatchShape batch_shape(const TrainerConfig& config, const Communicator& data) {
  const auto& training = config.training;
  return {training.seq_len, training.micro_batch_size,
          training.global_batch_size / (training.micro_batch_size * data.size()), data.rank(), data.size()};
}

}  // namespace

Training::Training(const TrainingContext& context)
    : context_(context),
      config_(context.config),
      shape_(batch_shape(context.config, *context.groups.data)),
      compute_dtype_(context.compute_dtype.value_or(config_.training.precision == Precision::bf16 ? at::kBFloat16
                                                                                                : at::kFloat)),
      clock_(context.device.device) {}

Result<std::unique_ptr<Training>> Training::prepare(const TrainingContext& context) {
  if (Status status = check_supported(context.config); !status) return status.error();
  std::unique_ptr<Training> training(new Training(context));
  if (Status status = training->open_data(); !status) return status.error();
  training->make_model();
  if (Status status = training->initial_weights(); !status) return status.error();
  if (Status status = training->resume(); !status) return status.error();
  if (Status status = training->report_start(); !status) return status.error();
  return training;
}

Status Training::open_data() {
  const int64_t evaluated = config_.training.eval_batches * shape_.global_batch_size();
  const DatasetSizes sizes{config_.training.steps * shape_.global_batch_size(), evaluated, 0};
  const auto open = [&](Split split) {
    return open_dataset(config_.data, config_.training.seq_len, config_.model.vocab_size, split, sizes);
  };
  auto train = open(Split::train);
  if (!train) return train.error();
  train_data_ = std::move(*train);
  if (train_data_->size() < sizes.train) {
    return bad_input("data: the training split has " + std::to_string(train_data_->size()) +
                     " samples, but the run needs " + std::to_string(sizes.train) +
                     "; add data or lower training.steps");
  }
  const std::vector<double>& split = config_.data.split;
  if (evaluated == 0 || split.size() < 2 || split[1] == 0) return {};  // none was wanted
  auto validation = open(Split::validation);
  if (!validation) return validation.error();
  if ((*validation)->size() < shape_.global_batch_size()) {
    say("the validation split has less than one global batch: no validation");
    return {};
  }
  validation_data_ = std::move(*validation);
  return {};
}

void Training::make_model() {
  const ProcessGroups& groups = context_.groups;
  constexpr int64_t kVocabularyTileOnGpus = 64;
  const StageOptions options{compute_dtype_, context_.device.device, groups.pipeline->rank(), groups.pipeline->size(),
                             context_.device.cuda ? kVocabularyTileOnGpus : 1};
  model_ = StageModel::make(config_.model, config_.parallel, config_.training.recompute, options, *groups.tensor);
  ops_ = pipeline_schedule(config_.parallel.schedule, options.stage, options.num_stages,
                           static_cast<int>(shape_.micro_batches));
  buffers_ = std::make_unique<FlatBuffers>(
      model_->parameters(), FlatOptions{compute_dtype_, context_.device.device, groups.data->size()});
  optimizer_ = std::make_unique<Optimizer>(
      *buffers_, config_.optimizer, config_.zero.stage,
      OptimizerGroups{*groups.tensor, *groups.data, *groups.embedding, model_->is_first() || !model_->is_last()});
}

/// Drawn from the seed, or those of a Hugging Face folder; with moments of zero.
Status Training::initial_weights() {
  Status status;
  optimizer_->initialize([&] {
    const auto& parameters = model_->parameters();
    if (config_.model.from_pretrained.empty()) {
      initialize(parameters, config_.model, config_.training.seed);
    } else {
      status = load_hugging_face(config_.model.from_pretrained, config_.model, parameters);
    }
  });
  return status;
}

Status Training::resume() {
  auto resumed = resume_training(config_.checkpoint, *optimizer_, context_.groups.host_world(),
                                 [this](const std::string& line) {
                                   say(line + "; trying the one before it");
                                   // Should this not get through, the next report will not either, and says so.
                                   (void)report({{"damaged", line}});
                                 });
  if (!resumed) return resumed.error();
  if (!*resumed) return {};
  if ((*resumed)->meta.step > config_.training.steps) {
    return bad_input("checkpoint " + (*resumed)->checkpoint + " is of step " + std::to_string((*resumed)->meta.step) +
                     ", beyond training.steps = " + std::to_string(config_.training.steps) + "; raise training.steps");
  }
  const CheckpointMeta& meta = (*resumed)->meta;
  step_ = saved_step_ = meta.step;
  consumed_samples_ = meta.consumed_samples;
  const std::string name = std::filesystem::path((*resumed)->checkpoint).filename().string();
  if (context_.rank != 0) return {};
  say("resumed from " + name + " after step " + std::to_string(step_));
  return report({{"resumed_from", name}, {"step", step_}});
}

Status Training::report_start() {
  if (context_.rank != 0) return {};
  uint64_t bytes = buffers_->values().nbytes() + buffers_->grads().nbytes() + optimizer_->state_bytes();
  if (context_.device.cuda) bytes = context_.device.cuda->memory().allocated_bytes;
  return report({{"parameters", parameter_count(config_.model)}, {"memory_bytes", bytes}});
}

Result<Outcome> Training::run() {
  const auto& training = config_.training;
  const int64_t save_interval = config_.checkpoint.interval, eval_interval = training.eval_interval;
  context_.control.beat(static_cast<uint64_t>(step_));
  while (step_ < training.steps) {
    const auto begin = Clock::now();
    const double lr = learning_rate(config_.optimizer.lr, config_.lr_schedule, step_ + 1, training.steps);
    auto result = train_step(lr);
    if (!result) return result.error();
    if (Status status = report_step(*result, lr, seconds_since(begin)); !status) return status.error();
    context_.control.beat(static_cast<uint64_t>(step_));

    const bool last = step_ == training.steps, stopping = result->stop && !last;
    if (eval_interval > 0 && step_ % eval_interval == 0 && !stopping) {
      if (Status status = evaluate(); !status) return status.error();
    }
    if (stopping || result->checkpoint_now || (save_interval > 0 && step_ % save_interval == 0)) {
      if (Status status = save(stopping); !status) return status.error();
    }
    if (stopping) return Outcome::stopped;
  }
  if (Status status = evaluate(); !status) return status.error();
  if (config_.checkpoint.at_end) {
    if (Status status = save(true); !status) return status.error();
  }
  if (Status status = report({{"memory_bytes_max", memory_bytes_max()}}); !status) return status.error();
  if (is_reporter()) {
    if (Status status = report({{"step", step_}, {"done", true}}); !status) return status.error();
  }
  return Outcome::finished;
}

Result<Training::StepResult> Training::train_step(double lr) {
  auto batches = read_batches(*train_data_, shape_, consumed_samples_, context_.device.device);
  if (!batches) return batches.error();
  const PipelineWork work{*batches, static_cast<double>(shape_.global_tokens()), 1.0, compute_dtype_};
  const StageTime before = clock_.read();
  const at::Tensor loss = run_pipeline(*model_, *context_.groups.pipeline, ops_, work, clock_);
  optimizer_->reduce_gradients();

  // One small sum over the world: the norm's shares, whether any rank was asked for something, and the times of the
  // step before (this one's are not known yet on a GPU, and waiting for them would cost).
  const agent::RankRequests requests = context_.control.poll();
  const at::Tensor norm_share = optimizer_->squared_norm_share();
  const int stages = context_.groups.pipeline->size();
  at::Tensor shared = at::tensor({0.0, requests.stop ? 1.0 : 0.0, requests.checkpoint_now ? 1.0 : 0.0, before.busy,
                                  model_->is_first() ? before.span * stages : 0.0},
                                 norm_share.options());
  shared[0].copy_(norm_share);
  context_.groups.world->all_reduce(shared);
  shared = shared.to(at::kCPU);
  StepResult result{0, std::sqrt(shared[0].item<double>()), shared[1].item<double>() > 0, shared[2].item<double>() > 0,
                    std::nullopt};
  const double span = shared[4].item<double>();
  if (stages > 1 && span > 0) result.bubble = bubble_share(shared[3].item<double>(), span);
  if (!std::isfinite(result.grad_norm)) {
    return internal("step " + std::to_string(step_ + 1) + ": the gradient norm is not finite; lower optimizer.lr, "
                    "raise lr_schedule.warmup_steps or set training.grad_clip");
  }
  const double clip = config_.training.grad_clip;
  const double grad_scale = clip > 0 && result.grad_norm > clip ? clip / result.grad_norm : 1.0;
  optimizer_->update(lr, grad_scale, step_ + 1);
  result.loss = mean_over_data(loss);
  ++step_;
  consumed_samples_ += shape_.global_batch_size();
  return result;
}

/// Sum of the data-parallel ranks' shares of a loss; 0 but on the last stage.
double Training::mean_over_data(const at::Tensor& loss) {
  if (!model_->is_last()) return 0;
  at::Tensor sum = loss.reshape({1}).clone();
  context_.groups.data->all_reduce(sum);
  return sum.to(at::kCPU, at::kDouble).item<double>();
}

Status Training::report_step(const StepResult& result, double lr, double seconds) {
  if (!is_reporter()) return {};
  if (context_.print_steps) {
    say("step " + std::to_string(step_) + "/" + std::to_string(config_.training.steps) + "  loss " +
      std::to_string(result.loss) + "  norm " + std::to_string(result.grad_norm) + "  " +
      std::to_string(static_cast<int64_t>(seconds * 1e3)) + " ms");
  }
  nlohmann::json body{{"step", step_},
                      {"steps", config_.training.steps},
                      {"loss", result.loss},
                      {"lr", lr},
                      {"grad_norm", result.grad_norm},
                      {"tokens", shape_.global_tokens()},
                      {"seconds", seconds},
                      {"consumed_samples", consumed_samples_}};
  if (result.bubble) body["pipeline_bubble"] = *result.bubble;
  return report(body);
}

/// Always over the same samples, so that one run's validation losses can be compared.
Status Training::evaluate() {
  if (!validation_data_ || evaluated_step_ == step_) return {};
  evaluated_step_ = step_;
  const int64_t count = std::min(config_.training.eval_batches, validation_data_->size() / shape_.global_batch_size());
  at::Tensor sum;
  for (int64_t i = 0; i < count; ++i) {
    auto batches = read_batches(*validation_data_, shape_, i * shape_.global_batch_size(), context_.device.device);
    if (!batches) return batches.error();
    const double tokens = static_cast<double>(shape_.global_tokens() * count);
    const at::Tensor loss =
        evaluate_pipeline(*model_, *context_.groups.pipeline, PipelineWork{*batches, tokens, 1.0, compute_dtype_});
    if (loss.defined()) sum = sum.defined() ? at::add(sum, loss) : loss;
  }
  const double loss = mean_over_data(sum);
  if (!is_reporter()) return {};
  if (context_.print_steps) say("validation loss " + std::to_string(loss) + " after step " + std::to_string(step_));
  return report({{"step", step_}, {"validation_loss", loss}});
}

/// A checkpoint that cannot be written is reported and the run goes on, unless nothing comes after it.
Status Training::save(bool must_succeed) {
  if (saved_step_ == step_) return {};
  const auto begin = Clock::now();
  const CheckpointMeta meta{step_, consumed_samples_, to_json(config_), nlohmann::json::object()};
  const Status saved = save_training(config_.checkpoint, meta, *optimizer_, context_.groups.host_world());
  if (saved) saved_step_ = step_;
  if (!saved && must_succeed) return saved.error().within("the checkpoint after step " + std::to_string(step_));
  if (context_.rank != 0) return {};
  if (!saved) {
    say("no checkpoint after step " + std::to_string(step_) + ": " + saved.error().message);
    return report({{"step", step_}, {"checkpoint_error", saved.error().message}});
  }
  char name[32];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step_));
  return report({{"step", step_}, {"checkpoint", name}, {"seconds", seconds_since(begin)}});
}

/// Of tensors on the GPU, or of the whole process on CPUs.
uint64_t Training::memory_bytes_max() const {
  if (context_.device.cuda) return context_.device.cuda->memory().allocated_bytes_max;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

bool Training::is_reporter() const {
  return model_->is_last() && context_.groups.tensor->rank() == 0 && context_.groups.data->rank() == 0;
}

Status Training::report(const nlohmann::json& body) { return context_.control.progress(body); }

void Training::say(const std::string& line) const {
  if (context_.say) context_.say(line);
}

}  // namespace mds::trainer
