// Job: a validated job file, as value structs. Made by launcher/job_file.cpp, read by everything after it.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "topology/placement.hpp"
#include "trainer/config.hpp"

namespace mds::launcher {

enum class Backend { automatic, local, slurm, mpi, ssh };

struct HealthConfig {
  std::chrono::milliseconds heartbeat{1000};
  std::chrono::milliseconds hang_timeout{0};  ///< no progress for this long is a hang; 0: "auto" (from step times)
};

struct RestartConfig {
  int max_restarts = 3;
  std::chrono::milliseconds backoff{0};  ///< before attempt n: backoff x 2^(n-1), at most 60 s
  int no_progress_limit = 3;             ///< attempts without a new checkpoint or step before giving up
};

struct MetricsConfig {
  bool tensorboard = true;
  int64_t interval = 1;  ///< steps between records
};

struct Job {
  std::string name;
  int nodes = 1;
  topology::DeviceKind device = topology::DeviceKind::cpu;
  int ranks_per_node = 1;  ///< gpus_per_node, or ranks_per_node with devices = "cpu"
  Backend backend = Backend::automatic;
  std::vector<std::string> hosts;
  std::string output_dir = "runs";         ///< absolute once loaded
  std::map<std::string, std::string> env;  ///< added to every rank's environment
  std::vector<std::string> payload;        ///< empty: mdstrain
  std::string model_preset;                ///< as written; its shape is already in trainer.model
  trainer::TrainerConfig trainer;          ///< meaningful without payload; parallel is always
  HealthConfig health;
  RestartConfig restart;
  MetricsConfig metrics;

  std::vector<std::string> notes;  ///< what "auto" came to and why, one sentence each
  std::string resolved_toml;       ///< every key with its final value, for <run>/job.toml
};

}  // namespace mds::launcher
