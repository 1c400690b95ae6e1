// A whole training job in threads: real groups over TCP, real model, data, optimizer and checkpoints, on a tiny shape.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "tests/trainer/engine/local_control.hpp"
#include "tests/trainer/engine/threads.hpp"
#include "topology/rank_grid.hpp"
#include "trainer/comm/groups.hpp"
#include "trainer/config.hpp"
#include "trainer/engine/training.hpp"

namespace mds::trainer {

/// A folder that disappears with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "mds-engine-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

inline TrainerConfig tiny_config(Architecture architecture, const std::string& checkpoints, uint64_t seed = 1) {
  TrainerConfig config;
  config.model.architecture = architecture;
  config.model.hidden_size = 32;
  config.model.num_layers = 4;
  config.model.num_attention_heads = 4;
  config.model.num_key_value_heads = architecture == Architecture::llama ? 2 : 4;
  config.model.head_dim = 8;
  config.model.intermediate_size = 64;
  config.model.vocab_size = 50;
  config.model.max_position_embeddings = 16;
  config.model.tie_word_embeddings = architecture != Architecture::llama;
  config.data.format = DataFormat::random;
  config.data.seed = seed % 1'000'000;
  config.training.seed = seed;
  config.training.steps = 6;
  config.training.seq_len = 16;
  config.training.global_batch_size = 8;
  config.training.micro_batch_size = 1;
  config.training.eval_batches = 1;
  config.training.grad_clip = 0.5;
  config.optimizer.lr = 1e-2;
  config.lr_schedule.warmup_steps = 2;
  config.zero.stage = 1;
  config.checkpoint.folder = checkpoints;
  config.parallel = {};
  return config;
}

struct JobResult {
  std::vector<Outcome> outcomes;                            ///< by rank; empty if the job failed
  std::vector<std::vector<nlohmann::json>> reports;         ///< by rank
  std::vector<std::string> said;                            ///< by rank 0
  std::string error;                                        ///< the first one, with its code in front

  /// All values of one key in the order in which the ranks reported them.
  template <typename T = double>
  std::vector<T> values(const std::string& key) const {
    std::vector<T> found;
    for (const auto& rank : reports) {
      for (const auto& body : rank) {
        if (body.contains(key)) found.push_back(body[key].template get<T>());
      }
    }
    return found;
  }
};

struct JobOptions {
  std::optional<at::ScalarType> compute_dtype;
  /// Called at every heartbeat (after each step) by the rank's thread; may throw to make the rank die.
  std::function<void(int rank, uint64_t step, LocalControl& control)> on_beat;
};

class WatchedControl final : public LocalControl {
 public:
  WatchedControl(LocalExchange& exchange, int rank, const JobOptions& options)
      : LocalControl(exchange), rank_(rank), options_(options) {}
  void beat(uint64_t step) override {
    LocalControl::beat(step);
    if (options_.on_beat) options_.on_beat(rank_, step, *this);
  }

 private:
  int rank_;
  const JobOptions& options_;
};

inline JobResult run_job(const TrainerConfig& config, const JobOptions& options = {}) {
  const auto& parallel = config.parallel;
  const auto grid = topology::RankGrid::make(parallel.tensor, 1, parallel.data, parallel.pipeline, parallel.order);
  if (!grid) throw std::runtime_error(grid.error().message);
  const int world = grid->world_size();
  LocalExchange exchange;
  JobResult result;
  result.outcomes.resize(world);
  result.reports.resize(world);
  try {
    run_ranks(world, [&](int rank) {
      const auto fail = [](const Error& error) -> std::runtime_error {
        return std::runtime_error(std::string(to_string(error.code)) + ": " + error.message);
      };
      WatchedControl control(exchange, rank, options);
      GroupOptions group_options;
      group_options.tied_embeddings = config.model.tie_word_embeddings;
      auto groups = make_groups(*grid, rank, control, group_options);
      if (!groups) throw fail(groups.error());
      TrainingContext context{config, *grid, rank, *groups, control, {}, options.compute_dtype, {}, false};
      if (rank == 0) context.say = [&](const std::string& line) { result.said.push_back(line); };
      auto training = Training::prepare(context);
      if (!training) throw fail(training.error());
      auto outcome = (*training)->run();
      result.reports[rank] = control.reports;
      if (!outcome) throw fail(outcome.error());
      result.outcomes[rank] = *outcome;
    });
  } catch (const std::exception& error) {
    result.error = error.what();
    result.outcomes.clear();
  }
  return result;
}

}  // namespace mds::trainer
