#include "launcher/job_schema.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

// The place of a key in a Job, as a Slot.
#define MDS_FIELD(path) slot_at([](auto& job) -> auto& { return job.path; })

namespace mds::launcher {
namespace {

using std::chrono::milliseconds;
using Words = std::vector<std::string>;

template <typename T>
void assign(T& field, const KeyValue& value) {
  if constexpr (std::is_enum_v<T>) {
    field = static_cast<T>(std::get<Choice>(value).index);
  } else if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    field = static_cast<T>(std::get<int64_t>(value));
  } else {
    field = std::get<T>(value);
  }
}

void assign(std::string& field, const KeyValue& value) {
  const Choice* choice = std::get_if<Choice>(&value);
  field = choice ? choice->word : std::get<std::string>(value);
}

template <typename T>
KeyValue read(const T& field) {
  if constexpr (std::is_enum_v<T>) {
    return Choice{static_cast<int>(field), ""};
  } else if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    return static_cast<int64_t>(field);
  } else {
    return field;
  }
}

template <typename Access>
Slot slot_at(Access) {
  return {[](Job& job, const KeyValue& value) { assign(Access{}(job), value); },
          [](const Job& job) { return read(Access{}(job)); }};
}

/// A row of the table under construction; each call adds one column.
struct Row {
  Key key;

  Row&& at(Slot slot) && { return key.slot = slot, std::move(*this); }
  Row&& standard(KeyValue value) && { return key.standard = std::move(value), std::move(*this); }
  Row&& not_yet(Words words) && { return key.not_yet = std::move(words), std::move(*this); }
  Row&& not_yet_above(double limit) && { return key.not_yet_above = limit, std::move(*this); }
  Row&& required() && { return key.required = true, std::move(*this); }
  Row&& automatic() && { return key.automatic = true, std::move(*this); }
  Row&& on_request() && { return key.on_request = true, std::move(*this); }
  Row&& or_one() && { return key.or_one = true, std::move(*this); }
  Row&& count(size_t n) && { return key.count = n, std::move(*this); }
  Row&& above_min() && { return key.above_min = true, std::move(*this); }
  Row&& from(double min, double max) && {
    key.bounded = true;
    key.min = min;
    key.max = max;
    return std::move(*this);
  }
};

Row row(KeyType type, const std::string& path, const char* doc) {
  const size_t dot = path.find('.');
  Row out;
  out.key.section = path.substr(0, dot);
  out.key.name = path.substr(dot + 1);
  out.key.type = type;
  out.key.doc = doc;
  return out;
}
Row boolean(const char* path, const char* doc) { return row(KeyType::boolean, path, doc).standard(false); }
Row integer(const char* path, const char* doc) { return row(KeyType::integer, path, doc).standard(int64_t{0}); }
Row number(const char* path, const char* doc) { return row(KeyType::number, path, doc).standard(0.0); }
Row text(const char* path, const char* doc) { return row(KeyType::text, path, doc).standard(std::string()); }
Row texts(const char* path, const char* doc) { return row(KeyType::texts, path, doc).standard(Words()); }
Row numbers(const char* path, const char* doc) { return row(KeyType::numbers, path, doc); }
Row size(const char* path, const char* doc) { return row(KeyType::size, path, doc).standard(int64_t{0}).from(0, 1e18); }
Row duration(const char* path, const char* doc) {
  return row(KeyType::duration, path, doc).standard(milliseconds(0)).from(0, 30 * 86400);
}
Row table(const char* path, const char* doc) {
  return row(KeyType::text_table, path, doc).standard(std::map<std::string, std::string>());
}
Row choice(const char* path, Words words, const char* doc) {
  Row out = row(KeyType::choice, path, doc).standard(Choice{0, words.front()});
  out.key.choices = std::move(words);
  return out;
}

constexpr double kSizeMax = 1 << 28;  // samples, tokens: as in trainer/config_check.cpp
constexpr double kStepsMax = 1u << 31;
constexpr double kRanksMax = 1 << 20;

// Slots whose value is not one field of the same type.

Slot hang_timeout_slot() {
  return {[](Job& job, const KeyValue& value) { job.health.hang_timeout = std::get<milliseconds>(value); },
          [](const Job& job) -> KeyValue {
            if (job.health.hang_timeout.count() == 0) return std::string("auto");
            return job.health.hang_timeout;
          }};
}

// A key whose "auto" waits for the machines: LeftOpen remembers it.
template <typename Access, typename Open>
Slot open_slot(Access, Open) {
  return {[](Job& job, const KeyValue& value) { assign(Access{}(job), value); },
          [](const Job& job) -> KeyValue {
            if (Open{}(job)) return std::string("auto");
            return read(Access{}(job));
          }};
}
#define MDS_OPEN_FIELD(path, open) \
  open_slot([](auto& job) -> auto& { return job.path; }, [](const Job& job) { return job.left_open.open; })

Slot data_path_slot() {
  return {[](Job& job, const KeyValue& value) {
            job.trainer.data.sources.clear();
            for (const std::string& path : std::get<Words>(value)) job.trainer.data.sources.push_back({path, 1.0});
          },
          [](const Job& job) -> KeyValue {
            Words paths;
            for (const trainer::DataSource& source : job.trainer.data.sources) paths.push_back(source.path);
            return paths;
          }};
}

Slot data_weights_slot() {
  return {[](Job& job, const KeyValue& value) {
            const auto& weights = std::get<std::vector<double>>(value);
            auto& sources = job.trainer.data.sources;
            for (size_t i = 0; i < std::min(weights.size(), sources.size()); ++i) sources[i].weight = weights[i];
          },
          [](const Job& job) -> KeyValue {
            std::vector<double> weights;
            for (const trainer::DataSource& source : job.trainer.data.sources) weights.push_back(source.weight);
            return weights;
          }};
}

Slot betas_slot() {
  return {[](Job& job, const KeyValue& value) {
            const auto& betas = std::get<std::vector<double>>(value);
            job.trainer.optimizer.beta1 = betas[0];
            job.trainer.optimizer.beta2 = betas[1];
          },
          [](const Job& job) -> KeyValue {
            return std::vector<double>{job.trainer.optimizer.beta1, job.trainer.optimizer.beta2};
          }};
}

std::vector<Row> launch_rows() {
  return {
      text("job.name", "Name of the job: letters, digits, '.', '_' and '-'; default: the file's name.")
          .at(MDS_FIELD(name)),
      integer("job.nodes", "Machines; the local back end makes that many virtual nodes of this one.")
          .from(1, 65536)
          .at(MDS_FIELD(nodes)),
      choice("job.devices", {"cpu", "cuda"},
             "What ranks compute on; \"auto\": cuda if gpus_per_node is given, else cpu.")
          .automatic()
          .at(MDS_FIELD(device)),
      integer("job.gpus_per_node", "GPUs, and so ranks, on each node.").from(1, 1024).at(MDS_FIELD(ranks_per_node)),
      integer("job.ranks_per_node", "Ranks on each node of a CPU job.").from(1, 4096).at(MDS_FIELD(ranks_per_node)),
      choice("job.backend", {"auto", "local", "slurm", "mpi", "ssh"},
             "How agents are started on the nodes; \"auto\": slurm in a Slurm job, ssh where hosts names other "
             "machines, else local.")
          .at(MDS_FIELD(backend)),
      texts("job.hosts",
            "Host names, \"gpu[01-16]\" for many, or the path of a DeepSpeed hostfile (lines \"name slots=N\").")
          .or_one()
          .at(MDS_FIELD(hosts)),
      text("job.include", "Of these hosts only: \"name@name\", as DeepSpeed's --include.").at(MDS_FIELD(include)),
      text("job.exclude", "Without these hosts: \"name@name\", as DeepSpeed's --exclude.").at(MDS_FIELD(exclude)),
      text("job.interface",
           "Interface (a name or an address) that the launcher listens on for agents; default: the one that reaches "
           "the nodes, loopback if all are this machine.")
          .at(MDS_FIELD(interface)),
      text("job.ssh_config", "File for ssh -F.").at(MDS_FIELD(ssh_config)),
      text("job.mpirun", "Name or path of the MPI's start program; default: mpirun.").at(MDS_FIELD(mpirun)),
      boolean("job.netns",
              "Local back end: each virtual node gets a network namespace of its own and can be cut off; needs root, "
              "or mdslaunch under `unshare --user --map-root-user`.")
          .at(MDS_FIELD(netns)),
      text("job.output_dir", "Where run folders are made; relative to the working folder.").at(MDS_FIELD(output_dir)),
      table("job.env", "Variables added to every rank's environment.").at(MDS_FIELD(env)),

      boolean("payload.mpi",
              "The program uses MPI: each rank is a rank of its MPI_COMM_WORLD, under every back end. MPICH, Intel MPI "
              "and MVAPICH are served by PMI-1, Open MPI 4 and 5 by PMIx.")
          .at(MDS_FIELD(payload_mpi)),
      texts("payload.command", "Program and arguments to run on every rank, under torchrun's contract.")
          .at(MDS_FIELD(payload)),

      choice("container.runtime", {"none", "auto", "apptainer", "enroot", "charliecloud", "podman", "bubblewrap"},
             "Runtime that starts the image, once on each node; \"auto\": the first that works there.")
          .at(MDS_FIELD(container.runtime)),
      text("container.image", "Image file (SIF, squashfs, tar archive) or root folder.").at(MDS_FIELD(container.image)),
      text("container.sha256",
           "Digest that the image file must have; it is verified on every node before a rank starts.")
          .at(MDS_FIELD(container.sha256)),
      texts("container.binds", "Folders of the host to mount, \"source:target[:ro]\" (a colon in a path: \"\\:\").")
          .at(MDS_FIELD(container_binds)),
      table("container.env", "Variables set inside the container.").at(MDS_FIELD(container.env)),
      texts("container.inherit",
            "Variables of your environment that ranks inside see; \"WANDB_*\" for all that begin so.")
          .at(MDS_FIELD(container.inherit)),
      boolean("container.read_only", "Mount the image read-only.").at(MDS_FIELD(container.read_only)),
      text("container.working_dir",
           "Folder inside that ranks start in; default: the run folder, with [stage] the copy of the working folder.")
          .at(MDS_FIELD(container.working_dir)),
      texts("container.runtime_options", "Options passed to the runtime as they are.")
          .at(MDS_FIELD(container.runtime_options)),
      text("container.trainer", "mdstrain inside the image, a path or a name in its PATH.")
          .at(MDS_FIELD(container_trainer)),
  };
}

std::vector<Row> stage_rows() {
  return {
      boolean("stage.enabled",
              "The nodes share no files with this machine: send them mdsagent (by srun or scp), then over the agents' "
              "connections mdstrain with its libraries and data, or the files that payload.command names, "
              "container.image, and stage.files. Each is verified by its SHA-256 on every node before a rank starts.")
          .at(MDS_FIELD(stage.enabled)),
      texts("stage.files", "Further files and folders that ranks read; relative to the job file.")
          .at(MDS_FIELD(stage.files)),
      text("stage.folder",
           "Folder for them on each node's own disk, yours alone; default: /var/tmp/mds-stage-UID. The folder that it "
           "is in must be there.")
          .at(MDS_FIELD(stage.folder)),
      boolean("stage.keep", "Leave the files on the nodes for the next job that needs the same ones.")
          .at(MDS_FIELD(stage.keep)),
  };
}

std::vector<Row> parallel_rows() {
  return {
      integer("parallel.tensor",
              "Ranks that share every layer (tensor parallel); \"auto\": what the cost model finds quickest.")
          .from(1, kRanksMax)
          .on_request()
          .at(MDS_OPEN_FIELD(trainer.parallel.tensor, tensor)),
      integer("parallel.pipeline",
              "Stages that the layers are divided into (pipeline parallel); \"auto\": as parallel.tensor.")
          .from(1, 4096)
          .on_request()
          .at(MDS_OPEN_FIELD(trainer.parallel.pipeline, pipeline)),
      integer("parallel.context", "Ranks that share every sequence (context parallel); \"auto\": as parallel.tensor.")
          .from(1, kRanksMax)
          .not_yet_above(1)
          .on_request()
          .at(MDS_OPEN_FIELD(trainer.parallel.context, context)),
      integer("parallel.data", "Replicas that share the batch; \"auto\": ranks / (tensor x pipeline x context).")
          .from(1, kRanksMax)
          .automatic()
          .at(MDS_OPEN_FIELD(trainer.parallel.data, data)),
      boolean("parallel.sequence_parallel",
              "Divide the activations between tensor-parallel regions, too; \"auto\": wherever tensor is above 1.")
          .on_request()
          .at(MDS_OPEN_FIELD(trainer.parallel.sequence_parallel, sequence_parallel)),
      choice("parallel.schedule", {"gpipe", "1f1b", "interleaved", "zero-bubble"},
             "Order of micro batches in the pipeline.")
          .not_yet({"interleaved", "zero-bubble"})
          .at(MDS_FIELD(trainer.parallel.schedule)),
      integer("parallel.virtual_stages", "Stages on each pipeline rank (interleaved schedule).")
          .from(1, 4096)
          .not_yet_above(1)
          .at(MDS_FIELD(trainer.parallel.virtual_stages)),
      text("parallel.order", "Axes of the rank grid, the fastest varying first.").at(MDS_FIELD(trainer.parallel.order)),
  };
}

std::vector<Row> model_rows() {
  return {
      text("model.preset", "A published shape; the keys below override it.").at(MDS_FIELD(model_preset)),
      choice("model.architecture", {"gpt3", "llama", "bloom"}, "Family of layers.")
          .required()
          .at(MDS_FIELD(trainer.model.architecture)),
      integer("model.hidden_size", "Width of the residual stream.")
          .from(1, 1 << 20)
          .required()
          .at(MDS_FIELD(trainer.model.hidden_size)),
      integer("model.num_layers", "Transformer layers.")
          .from(1, 4096)
          .required()
          .at(MDS_FIELD(trainer.model.num_layers)),
      integer("model.num_attention_heads", "Query heads.")
          .from(1, 16384)
          .required()
          .at(MDS_FIELD(trainer.model.num_attention_heads)),
      integer("model.num_key_value_heads",
              "Key and value heads (grouped-query attention); \"auto\": num_attention_heads.")
          .from(1, 16384)
          .automatic()
          .at(MDS_FIELD(trainer.model.num_key_value_heads)),
      integer("model.head_dim", "Width of a head; \"auto\": hidden_size / num_attention_heads.")
          .from(1, 4096)
          .automatic()
          .at(MDS_FIELD(trainer.model.head_dim)),
      integer("model.intermediate_size",
              "Width inside the MLP; \"auto\": 4 x hidden_size, for llama 8/3 of it rounded up to a multiple of 256.")
          .from(1, 1 << 24)
          .automatic()
          .at(MDS_FIELD(trainer.model.intermediate_size)),
      integer("model.vocab_size", "Tokens; \"auto\": 256 for text read as bytes, otherwise to be given.")
          .from(1, 1 << 24)
          .automatic()
          .at(MDS_FIELD(trainer.model.vocab_size)),
      integer("model.max_position_embeddings", "Longest sequence; \"auto\": training.seq_len.")
          .from(1, kSizeMax)
          .automatic()
          .at(MDS_FIELD(trainer.model.max_position_embeddings)),
      number("model.norm_eps", "Epsilon of the norms.").from(0, 1).above_min().at(MDS_FIELD(trainer.model.norm_eps)),
      number("model.rope_theta", "Base of the rotary positions (llama).")
          .from(0, 1e12)
          .above_min()
          .at(MDS_FIELD(trainer.model.rope_theta)),
      boolean("model.tie_word_embeddings", "Use the input embedding as output layer; \"auto\": all but llama.")
          .automatic()
          .at(MDS_FIELD(trainer.model.tie_word_embeddings)),
      number("model.init_std", "Standard deviation of the initial weights.")
          .from(0, 10)
          .above_min()
          .at(MDS_FIELD(trainer.model.init_std)),
      text("model.from_pretrained", "Hugging Face folder with shape and initial weights; relative to the job file.")
          .at(MDS_FIELD(trainer.model.from_pretrained)),

      choice("data.format", {"text", "megatron", "jsonl", "random"},
             "text: files or folders as they are; megatron: .bin/.idx; jsonl: {\"text\": ...} lines; random: no files.")
          .at(MDS_FIELD(trainer.data.format)),
      texts("data.path", "Files, folders or Megatron prefixes; relative to the job file's folder.")
          .or_one()
          .at(data_path_slot()),
      numbers("data.weights", "Share of each path, in the same order; default: all alike.")
          .from(0, 1e12)
          .above_min()
          .at(data_weights_slot()),
      text("data.tokenizer", "\"bytes\": one token a byte.").at(MDS_FIELD(trainer.data.tokenizer)),
      numbers("data.split", "Shares of the training, validation and test part.")
          .from(0, 1e12)
          .count(3)
          .at(MDS_FIELD(trainer.data.split)),
      integer("data.seed", "Seed of the order of samples.").from(0, 4294967295.0).at(MDS_FIELD(trainer.data.seed)),
  };
}

std::vector<Row> training_rows() {
  return {
      integer("training.steps", "Optimizer steps.").from(1, kStepsMax).required().at(MDS_FIELD(trainer.training.steps)),
      integer("training.seq_len", "Tokens in a sample.")
          .from(1, kSizeMax)
          .required()
          .at(MDS_FIELD(trainer.training.seq_len)),
      integer("training.global_batch_size", "Samples in a step, over all replicas.")
          .from(1, kSizeMax)
          .required()
          .at(MDS_FIELD(trainer.training.global_batch_size)),
      integer("training.micro_batch_size",
              "Samples in one forward pass; \"auto\": on GPUs what the cost model finds quickest, on CPUs the largest "
              "divisor of a replica's share of at most 8192 tokens that leaves each pipeline stage a micro batch.")
          .from(1, kSizeMax)
          .automatic()
          .at(MDS_OPEN_FIELD(trainer.training.micro_batch_size, micro_batch)),
      choice("training.precision", {"fp32", "bf16", "fp16", "fp8"}, "Type of the computation; masters are always fp32.")
          .not_yet({"fp16", "fp8"})
          .at(MDS_FIELD(trainer.training.precision)),
      number("training.grad_clip", "Largest global L2 norm of the gradient; 0: off.")
          .from(0, 1e12)
          .at(MDS_FIELD(trainer.training.grad_clip)),
      integer("training.seed", "Seed of the initial weights.").from(0, 9e18).at(MDS_FIELD(trainer.training.seed)),
      integer("training.eval_interval", "Steps between validations; 0: only at the end.")
          .from(0, kStepsMax)
          .at(MDS_FIELD(trainer.training.eval_interval)),
      integer("training.eval_batches", "Global batches in a validation.")
          .from(1, kSizeMax)
          .at(MDS_FIELD(trainer.training.eval_batches)),
      choice("training.recompute", {"none", "selective", "full"},
             "Activations that are computed again in the backward pass.")
          .at(MDS_FIELD(trainer.training.recompute)),
      boolean("training.deterministic", "Use kernels that give the same bits in every run.")
          .at(MDS_FIELD(trainer.training.deterministic)),
  };
}

std::vector<Row> optimizer_rows() {
  return {
      choice("optimizer.name", {"adamw", "adamw8bit", "sgd"}, "Optimizer.")
          .not_yet({"adamw8bit", "sgd"})
          .at(MDS_FIELD(trainer.optimizer.name)),
      number("optimizer.lr", "Peak learning rate.").from(0, 1e3).above_min().at(MDS_FIELD(trainer.optimizer.lr)),
      numbers("optimizer.betas", "Decay of the two moments, each in [0, 1).").from(0, 1).count(2).at(betas_slot()),
      number("optimizer.eps", "Epsilon of the denominator.")
          .from(0, 1)
          .above_min()
          .at(MDS_FIELD(trainer.optimizer.eps)),
      number("optimizer.weight_decay", "Decoupled weight decay; norms and biases are left out.")
          .from(0, 1e3)
          .at(MDS_FIELD(trainer.optimizer.weight_decay)),

      integer("lr_schedule.warmup_steps", "Steps of linear warm-up.")
          .from(0, kStepsMax)
          .at(MDS_FIELD(trainer.lr_schedule.warmup_steps)),
      choice("lr_schedule.decay", {"cosine", "linear", "constant", "wsd"}, "Shape of the decay after the warm-up.")
          .not_yet({"wsd"})
          .at(MDS_FIELD(trainer.lr_schedule.decay)),
      number("lr_schedule.min_lr", "Learning rate at the end of the decay.")
          .from(0, 1e3)
          .at(MDS_FIELD(trainer.lr_schedule.min_lr)),

      integer("zero.stage",
              "What is sharded over the replicas: 1 optimizer state, 2 gradients, 3 parameters; 0: nothing.")
          .from(0, 3)
          .not_yet_above(1)
          .at(MDS_FIELD(trainer.zero.stage)),
      choice("zero.offload_optimizer", {"none", "cpu", "nvme"}, "Where the optimizer's state is kept.")
          .not_yet({"cpu", "nvme"})
          .at(MDS_FIELD(trainer.zero.offload_optimizer)),
      choice("zero.offload_parameters", {"none", "cpu", "nvme"}, "Where parameters wait between their uses.")
          .not_yet({"cpu", "nvme"})
          .at(MDS_FIELD(trainer.zero.offload_parameters)),
      text("zero.nvme_path", "Folder for what is offloaded to NVMe."),
      boolean("zero.quantized_weights", "Gather the parameters in 8 bits."),
      boolean("zero.quantized_gradients", "Reduce the gradients in 4 bits."),

      integer("checkpoint.interval", "Steps between checkpoints; 0: none on the way.")
          .from(0, kStepsMax)
          .at(MDS_FIELD(trainer.checkpoint.interval)),
      integer("checkpoint.keep", "Newest checkpoints kept; 0: all.")
          .from(0, 1 << 20)
          .at(MDS_FIELD(trainer.checkpoint.keep)),
      boolean("checkpoint.at_end", "Write a checkpoint after the last step.").at(MDS_FIELD(trainer.checkpoint.at_end)),
      boolean("checkpoint.async", "Write while the training goes on."),
      text("checkpoint.load", "Checkpoint folder to start from; relative to the working folder.")
          .at(MDS_FIELD(trainer.checkpoint.load)),
      boolean("checkpoint.save_hf", "Write the last checkpoint as a Hugging Face folder, too."),
  };
}

std::vector<Row> supervision_rows() {
  return {
      duration("health.heartbeat", "Time between signs of life from an agent.")
          .from(0.01, 3600)
          .at(MDS_FIELD(health.heartbeat)),
      duration("health.hang_timeout", "A job without progress for this long hangs; \"auto\": from its step times.")
          .from(0.001, 30 * 86400)
          .automatic()
          .at(hang_timeout_slot()),
      boolean("health.preflight", "Check every node before the ranks start."),
      boolean("health.gpu_checks", "Watch the GPUs for errors while the job runs."),
      boolean("health.fabric_checks", "Watch the network for errors while the job runs."),

      integer("restart.max_restarts", "Attempts after the first.").from(0, 1 << 20).at(MDS_FIELD(restart.max_restarts)),
      duration("restart.backoff", "Pause before the first restart; doubles with each, up to 60 s.")
          .at(MDS_FIELD(restart.backoff)),
      integer("restart.spare_nodes",
              "Nodes held back to replace lost ones: submit and sbatch ask for so many more, and a job that takes all "
              "that Slurm has given it leaves them idle. Hosts beyond job.nodes are spare, too.")
          .from(0, 65536)
          .at(MDS_FIELD(restart.spare_nodes)),
      choice("restart.lost_node", {"go-on", "requeue", "wait"},
             "When a node's agent cannot be started again: \"go-on\" with a spare node or, where the layout allows it "
             "(parallel.data = \"auto\", a payload), with fewer nodes, else \"requeue\": leave with exit code 75 if "
             "there is a checkpoint, and queue the Slurm job again; \"wait\": try again every 10 s until max_restarts.")
          .at(MDS_FIELD(restart.lost_node)),
      integer("restart.no_progress_limit", "Attempts without a new step or checkpoint before the job is given up.")
          .from(1, 1 << 20)
          .at(MDS_FIELD(restart.no_progress_limit)),

      text("slurm.partition", "Partition.").at(MDS_FIELD(slurm.partition)),
      text("slurm.account", "Account.").at(MDS_FIELD(slurm.account)),
      text("slurm.time", "Time limit, as Slurm writes it: \"2-00:00:00\".").at(MDS_FIELD(slurm.time)),
      size("slurm.memory", "Memory on each node; 0: all of it.").at(MDS_FIELD(slurm.memory)),
      duration("slurm.signal_before_end", "How long before the time limit a checkpoint is asked for.")
          .at(MDS_FIELD(slurm.signal_before_end)),
      boolean("slurm.requeue", "Queue the job again when the time limit stops it, and let Slurm do so after a failure.")
          .at(MDS_FIELD(slurm.requeue)),
      boolean("slurm.exclusive", "Whole nodes.").at(MDS_FIELD(slurm.exclusive)),
      text("slurm.array", "Run so many of this job, \"1-8%2\": each with its number as data.seed and training.seed.")
          .at(MDS_FIELD(slurm.array)),
      texts("slurm.setup", "Lines of shell for the script before mdslaunch: \"module load openmpi\".")
          .at(MDS_FIELD(slurm.setup)),
      texts("slurm.extra", "More options for sbatch: \"--qos=high\".").at(MDS_FIELD(slurm.extra)),

      boolean("metrics.tensorboard", "Write TensorBoard event files.").at(MDS_FIELD(metrics.tensorboard)),
      integer("metrics.interval", "Steps between records.").from(1, kStepsMax).at(MDS_FIELD(metrics.interval)),
      integer("metrics.web_port", "Port of a web page on this machine's loopback; status has its address; 0: none.")
          .from(0, 65535)
          .at(MDS_FIELD(metrics.web_port)),
      integer("metrics.prometheus_port", "Port on this machine's loopback for Prometheus' /metrics; 0: none.")
          .from(0, 65535)
          .at(MDS_FIELD(metrics.prometheus_port)),
  };
}

std::vector<Key> make_schema() {
  std::vector<Key> keys;
  for (auto* rows : {launch_rows, stage_rows, parallel_rows, model_rows, training_rows, optimizer_rows,
                     supervision_rows}) {
    for (Row& row : rows()) keys.push_back(std::move(row.key));
  }
  return keys;
}

}  // namespace

const std::vector<Section>& job_sections() {
  static const std::vector<Section> sections{
      {"job", "What runs where.", false},
      {"payload", "A program of your own instead of mdstrain.", false},
      {"container", "The image that ranks run in.", false},
      {"stage", "Files for nodes that share no file system with this machine.", false},
      {"parallel", "How ranks divide the work: tensor x context x data x pipeline ranks in all.", false},
      {"model", "The network: a preset, a shape, or a preset with changes.", true},
      {"data", "The text to learn from.", true},
      {"training", "Length and shape of the training.", true},
      {"optimizer", "The optimizer.", true},
      {"lr_schedule", "The learning rate over time.", true},
      {"zero", "What is sharded over data-parallel ranks, and where it is kept.", true},
      {"checkpoint", "When checkpoints are written, and which one to start from.", true},
      {"health", "How a hang or a sick node is found.", false},
      {"restart", "What happens after a failure.", false},
      {"slurm", "Options of the Slurm back end.", false},
      {"metrics", "What is recorded.", false},
  };
  return sections;
}

const std::vector<Key>& job_schema() {
  static const std::vector<Key> schema = make_schema();
  return schema;
}

const Section* find_section(std::string_view name) {
  for (const Section& section : job_sections()) {
    if (section.name == name) return &section;
  }
  return nullptr;
}

const Key* find_key(std::string_view section, std::string_view name) {
  for (const Key& key : job_schema()) {
    if (key.section == section && key.name == name) return &key;
  }
  return nullptr;
}

std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const Section& section : job_sections()) names.push_back(section.name);
  return names;
}

std::vector<std::string> key_names(std::string_view section) {
  std::vector<std::string> names;
  for (const Key& key : job_schema()) {
    if (key.section == section) names.push_back(key.name);
  }
  return names;
}

}  // namespace mds::launcher
