// Everything that mdstrain is told, as value structs. The launcher fills them from job.toml, writes them to
// <run>/trainer.json, and mdstrain reads them back. No LibTorch here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "topology/result.hpp"

namespace mds::trainer {

enum class Architecture { gpt3, llama, bloom };
enum class Precision { fp32, bf16, fp16, fp8 };
enum class Recompute { none, selective, full };
enum class Schedule { gpipe, one_f_one_b, interleaved, zero_bubble };
enum class Offload { none, cpu, nvme };
enum class DataFormat { text, megatron, jsonl, random };

struct ModelConfig {
  Architecture architecture = Architecture::llama;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;      ///< grouped-query attention; equals num_attention_heads without it
  int64_t head_dim = 0;                 ///< hidden_size / num_attention_heads unless given
  int64_t intermediate_size = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  double norm_eps = 1e-5;
  double rope_theta = 10000.0;
  bool tie_word_embeddings = false;     ///< GPT-3 and BLOOM: true; LLaMA: false
  double init_std = 0.02;
  std::string from_pretrained;          ///< a Hugging Face folder; empty: random initial weights
};

/// Fills what follows from the rest where it is 0: num_key_value_heads, head_dim, and (GPT-3, BLOOM) intermediate_size,
/// which is 4 x hidden_size.
void fill_derived(ModelConfig& model);

/// Parameters of the whole model (all ranks), counted exactly; fields that are 0 count as fill_derived() would set
/// them. Requires sizes that check() accepts.
int64_t parameter_count(const ModelConfig& model);

struct ParallelConfig {
  int tensor = 1;
  int context = 1;
  int data = 1;
  int pipeline = 1;
  bool sequence_parallel = false;
  Schedule schedule = Schedule::one_f_one_b;
  int virtual_stages = 1;
  std::string order = "tp-cp-dp-pp";
};

struct DataSource {
  std::string path;                     ///< text: file or folder; megatron: prefix of .bin/.idx; jsonl: file
  double weight = 1.0;
};

struct DataConfig {
  DataFormat format = DataFormat::text;
  std::vector<DataSource> sources;
  std::string tokenizer = "bytes";
  std::vector<double> split{0.969, 0.03, 0.001};   ///< train, validation, test; normalised
  uint64_t seed = 1234;
};

struct TrainingConfig {
  int64_t steps = 0;
  int64_t seq_len = 0;                  ///< tokens per sample
  int64_t global_batch_size = 0;        ///< samples per step over all data-parallel ranks
  int64_t micro_batch_size = 1;         ///< samples per forward pass of one rank
  Precision precision = Precision::fp32;
  double grad_clip = 1.0;               ///< global L2 norm; 0: off
  uint64_t seed = 1234;
  int64_t eval_interval = 0;            ///< steps; 0: none on the way
  int64_t eval_batches = 4;             ///< global batches per evaluation
  Recompute recompute = Recompute::none;
  bool deterministic = true;
};

struct OptimizerConfig {
  std::string name = "adamw";
  double lr = 3e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
};

struct LrScheduleConfig {
  int64_t warmup_steps = 0;
  std::string decay = "cosine";         ///< cosine | linear | constant
  double min_lr = 0;
};

struct ZeroConfig {
  int stage = 1;
  Offload offload_optimizer = Offload::none;
  Offload offload_parameters = Offload::none;
  std::string nvme_path;
};

struct CheckpointConfig {
  int64_t interval = 0;                 ///< steps; 0: only at the end
  int keep = 2;                         ///< newest ones kept; 0: all
  std::string folder;                   ///< <run>/checkpoints
  std::string load;                     ///< "": newest good one in `folder`; else a checkpoint folder to start from
  bool at_end = true;                   ///< write one after the last step
  bool save_hf = false;
};

struct TrainerConfig {
  bool cuda = false;
  ModelConfig model;
  ParallelConfig parallel;
  DataConfig data;
  TrainingConfig training;
  OptimizerConfig optimizer;
  LrScheduleConfig lr_schedule;
  ZeroConfig zero;
  CheckpointConfig checkpoint;
};

nlohmann::json to_json(const TrainerConfig& config);
/// Inverse of to_json. Errors: bad_input naming the field.
Result<TrainerConfig> trainer_config_from_json(const nlohmann::json& json);

/// Problems that concern several fields (heads not divisible by tensor, batch not divisible by data x micro batch,
/// layers by pipeline stages, ...). Each string names the job.toml keys and a remedy; empty: all is well.
struct ConfigProblem {
  std::string key;                      ///< the job.toml key to point at, e.g. "parallel.tensor"
  std::string message;
};
std::vector<ConfigProblem> check(const TrainerConfig& config);

/// Published shapes: "gpt3-125m", ..., "llama-1b", "llama-8b", ..., "bloom-560m", ... Errors: bad_input with the list.
Result<ModelConfig> model_preset(const std::string& name);
std::vector<std::string> model_preset_names();

const char* to_string(Architecture v);
const char* to_string(Precision v);
const char* to_string(Recompute v);
const char* to_string(Schedule v);
const char* to_string(Offload v);
const char* to_string(DataFormat v);

}  // namespace mds::trainer
