// Training: the run of one rank, from its groups to the last step.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/rank_control.hpp"
#include "topology/rank_grid.hpp"
#include "topology/result.hpp"
#include "trainer/comm/communicator.hpp"
#include "trainer/config.hpp"
#include "trainer/data/dataset.hpp"
#include "trainer/device.hpp"
#include "trainer/engine/batches.hpp"
#include "trainer/engine/optimizer.hpp"
#include "trainer/engine/pipeline.hpp"
#include "trainer/model/model.hpp"

namespace mds::trainer {

/// What a rank brings. All references outlive the Training.
struct TrainingContext {
  const TrainerConfig& config;
  const topology::RankGrid& grid;
  int rank = 0;
  ProcessGroups& groups;
  agent::RankControl& control;
  ComputeDevice device;
  std::optional<at::ScalarType> compute_dtype;                 ///< tests: instead of config.training.precision
  std::function<void(const std::string&)> say;                 ///< a line for people; may be empty
  bool print_steps = false;                                    ///< say every step and validation, too
};

enum class Outcome { finished, stopped };   ///< stopped: on request, with a checkpoint

class Training {
 public:
  /// Data, model, buffers and initial weights or the newest checkpoint. Collective over the world.
  /// Errors: bad_input (what the engine cannot do, data, checkpoint), corrupt.
  static Result<std::unique_ptr<Training>> prepare(const TrainingContext& context);

  /// Steps until the last one or a stop request. Collective. Errors: corrupt (data), unavailable (agent, last
  /// checkpoint), internal (gradients are not finite). Throws c10::Error when a peer is lost.
  Result<Outcome> run();

  int64_t step() const { return step_; }
  StageModel& model() { return *model_; }

 private:
  struct StepResult {
    double loss = 0;                 ///< mean over the global batch's label tokens; on the last stage
    double grad_norm = 0;            ///< before clipping
    bool stop = false;               ///< any rank was asked
    bool checkpoint_now = false;
    std::optional<double> bubble;    ///< of the step before, whose times have come in with this one's sums; pipelines
  };

  explicit Training(const TrainingContext& context);
  Status open_data();
  void make_model();
  Status initial_weights();
  Status resume();
  Status report_start();
  Result<StepResult> train_step(double lr);
  Status report_step(const StepResult& result, double lr, double seconds);
  Status evaluate();
  Status save(bool must_succeed);
  double mean_over_data(const at::Tensor& loss);
  uint64_t memory_bytes_max() const;
  bool is_reporter() const;
  Status report(const nlohmann::json& body);
  void say(const std::string& line) const;

  TrainingContext context_;
  const TrainerConfig& config_;
  BatchShape shape_;
  at::ScalarType compute_dtype_;
  std::unique_ptr<Dataset> train_data_, validation_data_;
  std::unique_ptr<StageModel> model_;
  std::vector<PipelineOp> ops_;
  std::unique_ptr<FlatBuffers> buffers_;
  std::unique_ptr<Optimizer> optimizer_;
  StageClock clock_;
  int64_t step_ = 0;                 ///< completed steps
  int64_t consumed_samples_ = 0;
  int64_t evaluated_step_ = -1, saved_step_ = -1;
};

}  // namespace mds::trainer
