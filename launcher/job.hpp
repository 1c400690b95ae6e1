// Job: a validated job file, as value structs. Made by launcher/job_file.cpp, read by everything after it.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "container/container.hpp"
#include "slurm/allocation.hpp"
#include "topology/placement.hpp"
#include "trainer/config.hpp"

namespace mds::launcher {

enum class Backend { automatic, local, slurm, mpi, ssh };

struct HealthConfig {
  std::chrono::milliseconds heartbeat{1000};
  std::chrono::milliseconds hang_timeout{0};  ///< no progress for this long is a hang; 0: "auto" (from step times)
};

/// What becomes of a run when one of its machines does not come back.
enum class LostNode { go_on, requeue, wait };

struct RestartConfig {
  int max_restarts = 3;
  std::chrono::milliseconds backoff{0};  ///< before attempt n: backoff x 2^(n-1), at most 60 s
  int no_progress_limit = 3;             ///< attempts without a new checkpoint or step before giving up
  int spare_nodes = 0;                   ///< of those that the job has, kept to replace lost ones
  LostNode lost_node = LostNode::go_on;
};

/// [slurm]: what `submit` and `sbatch` ask for. Empty and 0 leave it to the cluster.
struct SlurmConfig {
  std::string partition, account, time;
  int64_t memory = 0;                               ///< bytes a node
  std::chrono::milliseconds signal_before_end{120'000};
  bool requeue = true;
  bool exclusive = true;
  std::string array;                                ///< "1-8%2"
  std::vector<std::string> setup;                   ///< lines of shell before mdslaunch starts
  std::vector<std::string> extra;                   ///< more options of sbatch
  bool operator==(const SlurmConfig&) const = default;
};

/// [stage]: for nodes that share no file system with the launcher's machine (launcher/stage_plan.hpp).
struct StageConfig {
  bool enabled = false;
  std::vector<std::string> files;  ///< absolute once loaded
  std::string folder;              ///< on the nodes
  bool keep = false;
  bool operator==(const StageConfig&) const = default;
};

struct MetricsConfig {
  bool tensorboard = true;
  int64_t interval = 1;  ///< steps between records
  int web_port = 0;         ///< of the web page; 0: none
  int prometheus_port = 0;  ///< 0: none
};

/// Keys that say "auto" and wait for the machines (launcher/plan_cost_auto.hpp): their values are placeholders.
struct LeftOpen {
  bool tensor = false, pipeline = false, context = false, data = false, sequence_parallel = false, micro_batch = false;

  bool layout() const { return tensor || pipeline || context; }
  bool any() const { return layout() || data || sequence_parallel || micro_batch; }
  bool operator==(const LeftOpen&) const = default;
};

struct Job {
  std::string name;
  int nodes = 1;
  topology::DeviceKind device = topology::DeviceKind::cpu;
  int ranks_per_node = 1;  ///< gpus_per_node, or ranks_per_node with devices = "cpu"
  Backend backend = Backend::automatic;
  std::vector<std::string> hosts;
  std::string include, exclude;            ///< of a hostfile, as DeepSpeed's options
  std::string interface;                   ///< that the head listens on: a name, an address; empty: found out
  std::string ssh_config, mpirun;
  bool netns = false;                      ///< local back end: each node has a network namespace of its own
  std::vector<std::string> node_names{};   ///< host of each node (perhaps more); none with the local back end
  std::vector<slurm::Component> components{};  ///< of the Slurm job that this runs in
  SlurmConfig slurm{};
  std::string output_dir = "runs";         ///< absolute once loaded
  std::map<std::string, std::string> env;  ///< added to every rank's environment
  std::vector<std::string> payload;        ///< empty: mdstrain
  bool payload_mpi = false;                ///< it is an MPI program
  container::Container container;          ///< runtime none: ranks run on the host
  std::vector<std::string> container_binds;  ///< as written; container.binds has them
  std::string container_trainer = "mdstrain";  ///< inside the image
  StageConfig stage;
  std::string model_preset;                ///< as written; its shape is already in trainer.model
  trainer::TrainerConfig trainer;          ///< meaningful without payload; parallel is always
  LeftOpen left_open;
  HealthConfig health;
  RestartConfig restart;
  MetricsConfig metrics;

  std::vector<std::string> notes;  ///< what "auto" came to and why, one sentence each
  std::string resolved_toml;       ///< every key with its final value, for <run>/job.toml
};

}  // namespace mds::launcher
