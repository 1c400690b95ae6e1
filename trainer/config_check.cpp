// Rules between the fields of a TrainerConfig, checked once before anything starts.
#include <algorithm>
#include <cmath>
#include <sstream>

#include "trainer/config.hpp"

namespace mds::trainer {
namespace {

constexpr int64_t kByteVocabulary = 256;
constexpr const char* kNotYet = " is not available yet in this version; ";

/// "1, 2, 4": the divisors of n, of which at most eight are shown.
std::string divisors(int64_t n) {
  std::string list;
  for (int64_t d = 1, shown = 0; d <= n && d <= 4096 && shown < 8; ++d) {
    if (n % d != 0) continue;
    list += (list.empty() ? "" : ", ") + std::to_string(d);
    ++shown;
  }
  return list;
}

std::string number(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

/// Collects problems; one rule method per job.toml section.
class Checker {
 public:
  explicit Checker(const TrainerConfig& config) : c_(config), model_(config.model) { fill_derived(model_); }

  std::vector<ConfigProblem> run() {
    // Rules that divide or compare need sane sizes; without them they would only repeat the same complaint.
    if (sizes_are_sane()) {
      model();
      parallel();
      batch();
    }
    data();
    training();
    optimizer();
    zero();
    checkpoint();
    return std::move(problems_);
  }

 private:
  void add(const std::string& key, const std::string& message) { problems_.push_back({key, message}); }

  /// Upper bounds are far beyond any machine; they keep every product of sizes within 64 bits.
  bool sizes_are_sane() {
    const size_t before = problems_.size();
    const auto between_1_and = [&](int64_t max, const char* key, int64_t value) {
      if (value >= 1 && value <= max) return;
      add(key, std::string(key) + " must be from 1 to " + std::to_string(max) + ", not " + std::to_string(value));
    };
    if (shape_is_known()) {
      between_1_and(1 << 20, "model.hidden_size", model_.hidden_size);
      between_1_and(1 << 12, "model.num_layers", model_.num_layers);
      between_1_and(1 << 14, "model.num_attention_heads", model_.num_attention_heads);
      between_1_and(1 << 14, "model.num_key_value_heads", model_.num_key_value_heads);
      if (c_.model.head_dim != 0) between_1_and(1 << 12, "model.head_dim", model_.head_dim);
      between_1_and(1 << 24, "model.intermediate_size", model_.intermediate_size);
      between_1_and(1 << 28, "model.vocab_size", model_.vocab_size);
    }
    between_1_and(1 << 20, "parallel.tensor", c_.parallel.tensor);
    between_1_and(1 << 20, "parallel.context", c_.parallel.context);
    between_1_and(1 << 20, "parallel.data", c_.parallel.data);
    between_1_and(1 << 12, "parallel.pipeline", c_.parallel.pipeline);
    between_1_and(int64_t{1} << 31, "training.steps", c_.training.steps);
    between_1_and(1 << 28, "training.seq_len", c_.training.seq_len);
    between_1_and(1 << 28, "training.global_batch_size", c_.training.global_batch_size);
    between_1_and(1 << 28, "training.micro_batch_size", c_.training.micro_batch_size);
    return problems_.size() == before;
  }

  /// A pretrained folder brings its own shape; the trainer checks again when it has read the folder.
  bool shape_is_known() const { return c_.model.from_pretrained.empty() || model_.num_attention_heads != 0; }

  /// `value` must be a multiple of `divisor`; the remedy lists the divisors that would do.
  void multiple(const char* key, int64_t value, const char* divisor_key, int64_t divisor) {
    if (value < 1 || value % divisor == 0) return;
    add(divisor_key, std::string(key) + " = " + std::to_string(value) + " is not a multiple of " + divisor_key + " = " +
                         std::to_string(divisor) + "; use " + divisor_key + " = " + divisors(value) + " or change " +
                         key);
  }

  void model() {
    if (!shape_is_known()) return;
    const ModelConfig& m = model_;
    if (c_.model.head_dim == 0) {
      multiple("model.hidden_size", m.hidden_size, "model.num_attention_heads", m.num_attention_heads);
    }
    const std::string name = to_string(m.architecture);
    if (m.architecture == Architecture::llama) {
      multiple("model.num_attention_heads", m.num_attention_heads, "model.num_key_value_heads", m.num_key_value_heads);
      if (m.head_dim % 2 != 0) {
        add("model.head_dim", "rotary positions need an even model.head_dim, not " + std::to_string(m.head_dim));
      }
      if (!(m.rope_theta > 0)) add("model.rope_theta", "model.rope_theta must be above 0, not " + number(m.rope_theta));
    } else {
      if (m.num_key_value_heads != m.num_attention_heads) {
        add("model.num_key_value_heads", name +
                                             " has no grouped-query attention: leave model.num_key_value_heads out, or "
                                             "use architecture = \"llama\"");
      }
      if (c_.model.head_dim != 0 && c_.model.head_dim * m.num_attention_heads != m.hidden_size) {
        add("model.head_dim",
            name + " needs model.head_dim = model.hidden_size / model.num_attention_heads: leave it out");
      }
    }
    if (m.architecture == Architecture::gpt3 && c_.training.seq_len > m.max_position_embeddings) {
      add("training.seq_len", "training.seq_len = " + std::to_string(c_.training.seq_len) +
                                  " is more than gpt3's learned positions, model.max_position_embeddings = " +
                                  std::to_string(m.max_position_embeddings) + "; raise that or shorten the samples");
    }
    if (!(m.norm_eps > 0)) add("model.norm_eps", "model.norm_eps must be above 0, not " + number(m.norm_eps));
    if (!(m.init_std > 0)) add("model.init_std", "model.init_std must be above 0, not " + number(m.init_std));
  }

  void parallel() {
    const ParallelConfig& p = c_.parallel;
    multiple("model.num_attention_heads", model_.num_attention_heads, "parallel.tensor", p.tensor);
    if (model_.num_key_value_heads != model_.num_attention_heads) {
      multiple("model.num_key_value_heads", model_.num_key_value_heads, "parallel.tensor", p.tensor);
    }
    multiple("model.intermediate_size", model_.intermediate_size, "parallel.tensor", p.tensor);
    if (shape_is_known() && model_.num_layers < p.pipeline) {
      add("parallel.pipeline", "parallel.pipeline = " + std::to_string(p.pipeline) +
                                   " leaves stages without a layer: " + "use at most model.num_layers = " +
                                   std::to_string(model_.num_layers));
    }
    if (shape_is_known() && model_.vocab_size < p.tensor) {
      add("parallel.tensor", "parallel.tensor = " + std::to_string(p.tensor) + " is more than model.vocab_size = " +
                                 std::to_string(model_.vocab_size) + "; use a smaller parallel.tensor");
    }
    if (p.sequence_parallel && p.tensor == 1) {
      add("parallel.sequence_parallel",
          "parallel.sequence_parallel splits activations over the tensor group, and "
          "parallel.tensor is 1; set parallel.tensor > 1 or leave sequence_parallel out");
    }
    if (p.sequence_parallel && c_.training.seq_len % p.tensor != 0) {
      add("training.seq_len",
          "with parallel.sequence_parallel, training.seq_len = " + std::to_string(c_.training.seq_len) +
              " must be a multiple of parallel.tensor = " + std::to_string(p.tensor));
    }
    if (p.context != 1) {
      add("parallel.context", std::string("context parallelism") + kNotYet + "set parallel.context = 1");
    }
    if (p.schedule == Schedule::interleaved || p.schedule == Schedule::zero_bubble) {
      add("parallel.schedule",
          std::string("schedule \"") + to_string(p.schedule) + "\"" + kNotYet + "use \"1f1b\" or \"gpipe\"");
    }
    if (p.virtual_stages != 1) {
      add("parallel.virtual_stages", std::string("virtual stages") + kNotYet + "set parallel.virtual_stages = 1");
    }
  }

  void batch() {
    const int64_t per_pass = c_.parallel.data * c_.training.micro_batch_size;
    if (c_.training.global_batch_size % per_pass != 0) {
      const int64_t next = (c_.training.global_batch_size / per_pass + 1) * per_pass;
      add("training.global_batch_size",
          "training.global_batch_size = " + std::to_string(c_.training.global_batch_size) +
              " is not a multiple of parallel.data x training.micro_batch_size = " + std::to_string(c_.parallel.data) +
              " x " + std::to_string(c_.training.micro_batch_size) + "; use for example " + std::to_string(next));
    }
  }

  void data() {
    const DataConfig& d = c_.data;
    const bool bytes = d.format == DataFormat::text || d.format == DataFormat::jsonl;
    if (bytes && d.tokenizer != "bytes") {
      add("data.tokenizer", "tokenizer \"" + d.tokenizer + "\"" + kNotYet +
                                "use \"bytes\", or tokenize beforehand and set data.format = \"megatron\"");
    }
    if (bytes && model_.vocab_size > 0 && model_.vocab_size < kByteVocabulary) {
      add("model.vocab_size",
          "byte tokens need model.vocab_size of at least 256, not " + std::to_string(model_.vocab_size));
    }
    if (d.format == DataFormat::random) {
      if (!d.sources.empty()) add("data.path", "data.format = \"random\" reads no files; leave data.path out");
    } else if (d.sources.empty()) {
      add("data.path", std::string("data.format = \"") + to_string(d.format) + "\" needs data.path");
    }
    double weights = 0;
    for (const DataSource& source : d.sources) {
      if (source.path.empty()) add("data.path", "a data path is empty");
      if (!(source.weight > 0) || !std::isfinite(source.weight)) {
        add("data.path", "the weight of " + source.path + " must be above 0, not " + number(source.weight));
      }
      weights += source.weight;
    }
    if (!d.sources.empty() && !std::isfinite(weights)) add("data.path", "the weights' sum is not a number");
    if (d.seed > 0xffffffff) {  // the order of samples is made by NumPy's legacy generator
      add("data.seed", "data.seed must be below 2^32, not " + std::to_string(d.seed));
    }
    split(d.split);
  }

  void split(const std::vector<double>& split) {
    double sum = 0;
    bool sane = !split.empty() && split.size() <= 3;
    for (const double part : split) {
      sane = sane && part >= 0 && std::isfinite(part);
      sum += part;
    }
    if (!sane || !(sum > 0) || !std::isfinite(sum)) {
      add("data.split", "data.split must be one to three shares (train, validation, test), none below 0 and not all 0");
    } else if (!(split[0] > 0)) {
      add("data.split", "data.split leaves nothing to train on; its first share must be above 0");
    }
  }

  void training() {
    const TrainingConfig& t = c_.training;
    if (t.precision == Precision::fp16 || t.precision == Precision::fp8) {
      add("training.precision",
          std::string("precision \"") + to_string(t.precision) + "\"" + kNotYet + "use \"bf16\" or \"fp32\"");
    }
    if (!(t.grad_clip >= 0)) {
      add("training.grad_clip", "training.grad_clip must be 0 (off) or above, not " + number(t.grad_clip));
    }
    if (t.eval_interval < 0) add("training.eval_interval", "training.eval_interval must be 0 (at the end) or above");
    if (t.eval_batches < 1) add("training.eval_batches", "training.eval_batches must be at least 1");
  }

  void optimizer() {
    const OptimizerConfig& o = c_.optimizer;
    if (o.name != "adamw") {
      add("optimizer.name", "optimizer \"" + o.name + "\"" + kNotYet + "use \"adamw\"");
    }
    if (!(o.lr > 0)) add("optimizer.lr", "optimizer.lr must be above 0, not " + number(o.lr));
    for (const double beta : {o.beta1, o.beta2}) {
      if (!(beta >= 0 && beta < 1)) add("optimizer.betas", "optimizer.betas must be in [0, 1), not " + number(beta));
    }
    if (!(o.eps > 0)) add("optimizer.eps", "optimizer.eps must be above 0, not " + number(o.eps));
    if (!(o.weight_decay >= 0)) {
      add("optimizer.weight_decay", "optimizer.weight_decay must be 0 or above, not " + number(o.weight_decay));
    }
    const LrScheduleConfig& s = c_.lr_schedule;
    if (s.warmup_steps < 0) add("lr_schedule.warmup_steps", "lr_schedule.warmup_steps must be 0 or above");
    if (c_.training.steps > 0 && s.warmup_steps >= c_.training.steps) {
      add("lr_schedule.warmup_steps", "lr_schedule.warmup_steps = " + std::to_string(s.warmup_steps) +
                                          " must be less than training.steps = " + std::to_string(c_.training.steps));
    }
    if (s.decay != "cosine" && s.decay != "linear" && s.decay != "constant") {
      const bool planned = s.decay == "wsd";
      add("lr_schedule.decay", "lr_schedule.decay \"" + s.decay + "\"" + (planned ? kNotYet : " is not known; ") +
                                   "use \"cosine\", \"linear\" or \"constant\"");
    }
    if (!(s.min_lr >= 0 && s.min_lr <= o.lr)) {
      add("lr_schedule.min_lr",
          "lr_schedule.min_lr = " + number(s.min_lr) + " must be from 0 to optimizer.lr = " + number(o.lr));
    }
  }

  void zero() {
    const ZeroConfig& z = c_.zero;
    if (z.stage < 0 || z.stage > 3) {
      add("zero.stage", "zero.stage must be 0 or 1, not " + std::to_string(z.stage));
    } else if (z.stage > 1) {
      add("zero.stage", "ZeRO stage " + std::to_string(z.stage) + kNotYet + "use zero.stage = 0 or 1");
    }
    if (z.offload_optimizer != Offload::none) {
      add("zero.offload_optimizer",
          std::string("offloading the optimizer") + kNotYet + "set offload_optimizer = \"none\"");
    }
    if (z.offload_parameters != Offload::none) {
      add("zero.offload_parameters",
          std::string("offloading parameters") + kNotYet + "set offload_parameters = \"none\"");
    }
  }

  void checkpoint() {
    if (c_.checkpoint.interval < 0) add("checkpoint.interval", "checkpoint.interval must be 0 (at the end) or above");
    if (c_.checkpoint.keep < 0) add("checkpoint.keep", "checkpoint.keep must be 0 (all) or above");
  }

  const TrainerConfig& c_;
  ModelConfig model_;  // with derived fields filled
  std::vector<ConfigProblem> problems_;
};

}  // namespace

std::vector<ConfigProblem> check(const TrainerConfig& config) { return Checker(config).run(); }

}  // namespace mds::trainer
