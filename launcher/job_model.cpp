// Resolving the network: a preset, a Hugging Face folder or a shape, and what follows from it.
#include <algorithm>

#include "launcher/job_draft.hpp"
#include "launcher/job_nearest.hpp"
#include "launcher/job_schema.hpp"
#include "trainer/model/hugging_face_config.hpp"

namespace mds::launcher {
namespace {

using trainer::Architecture;
using trainer::DataFormat;

bool reads_bytes(const trainer::DataConfig& data) {
  return (data.format == DataFormat::text || data.format == DataFormat::jsonl) && data.tokenizer == "bytes";
}

void resolve_vocabulary(JobDraft& draft) {
  trainer::ModelConfig& model = draft.job.trainer.model;
  if (draft.has("model.vocab_size") || draft.is_bad("model.vocab_size") || model.vocab_size != 0) return;
  if (draft.any_bad({"data.format", "data.tokenizer"})) {
    draft.bad.insert("model.vocab_size");
  } else if (reads_bytes(draft.job.trainer.data)) {
    model.vocab_size = 256;
    draft.note("model.vocab_size = 256: the text is read as bytes");
  } else {
    draft.report("model.vocab_size", "model.vocab_size is missing: the number of tokens that the data was made with");
  }
}

// A preset's shape with some keys overridden: what follows from those keys must follow them.
void release_derived(JobDraft& draft) {
  trainer::ModelConfig& model = draft.job.trainer.model;
  const bool width = draft.has("model.hidden_size");
  const bool heads = draft.has("model.num_attention_heads");
  const bool family = draft.has("model.architecture");
  if ((width || heads) && !draft.has("model.head_dim")) model.head_dim = 0;
  if (heads && !draft.has("model.num_key_value_heads")) model.num_key_value_heads = 0;
  if ((width || family) && !draft.has("model.intermediate_size")) model.intermediate_size = 0;
}

// What trainer::check() needs to see; it must not see head_dim, which is right or wrong by what it follows from.
void fill_shape(JobDraft& draft) {
  trainer::ModelConfig& model = draft.job.trainer.model;
  const bool preset = !draft.job.model_preset.empty() || !model.from_pretrained.empty();
  if (!draft.has("model.tie_word_embeddings") && (!preset || draft.has("model.architecture"))) {
    model.tie_word_embeddings = model.architecture != Architecture::llama;
  }
  if (model.intermediate_size == 0 && model.architecture == Architecture::llama) {
    constexpr int64_t kMultiple = 256;
    const int64_t width = model.hidden_size * 8 / 3;
    model.intermediate_size = (width + kMultiple - 1) / kMultiple * kMultiple;
    draft.note("model.intermediate_size = " + std::to_string(model.intermediate_size) +
               ": 8/3 of model.hidden_size, rounded up to a multiple of 256");
  }
  if (model.max_position_embeddings == 0) {
    model.max_position_embeddings = std::max<int64_t>(1, draft.job.trainer.training.seq_len);
  }
}

// The folder's weights have the folder's shape: what the job file says of it must agree.
void check_against_folder(JobDraft& draft, const Job& folder) {
  for (const Key& key : job_schema()) {
    const bool free = key.name == "preset" || key.name == "from_pretrained" || key.name == "init_std";
    if (key.section != "model" || free || !draft.has(key.path()) || draft.is_bad(key.path())) continue;
    const std::string theirs = to_toml(key, key.slot->load(folder));
    if (to_toml(key, key.slot->load(draft.job)) == theirs) continue;
    draft.report(key.path(), key.path() + " is " + theirs + " in " + folder.trainer.model.from_pretrained +
                                 "/config.json; leave it out");
  }
}

void resolve_pretrained(JobDraft& draft) {
  trainer::ModelConfig& model = draft.job.trainer.model;
  model.from_pretrained = draft.located("model.from_pretrained", model.from_pretrained).string();
  if (draft.has("model.preset")) {
    return draft.report("model.preset", "model.preset and model.from_pretrained exclude each other; remove one");
  }
  const auto folder_shape = trainer::read_hugging_face_config(model.from_pretrained);
  if (!folder_shape) {
    return draft.report("model.from_pretrained", "model.from_pretrained: " + folder_shape.error().message);
  }
  Job folder;
  folder.trainer.model = *folder_shape;
  check_against_folder(draft, folder);
  const double init_std = model.init_std;
  model = *folder_shape;
  model.init_std = init_std;
}

}  // namespace

void apply_preset(JobDraft& draft, const std::string& name) {
  const Result<trainer::ModelConfig> preset = trainer::model_preset(name);
  if (preset) {
    draft.job.trainer.model = *preset;
    return;
  }
  const std::string guess = did_you_mean(name, trainer::model_preset_names());
  draft.report("model.preset",
               "model.preset: there is no preset " + toml_string(name.substr(0, 60)) +
                   (guess.empty() ? "; there are " + join_names(trainer::model_preset_names()) : guess));
}

void finish_shape(JobDraft& draft) {
  trainer::ModelConfig& model = draft.job.trainer.model;
  if (model.num_attention_heads > 0) trainer::fill_derived(model);
}

void resolve_model(JobDraft& draft) {
  const bool payload = draft.sections.count("payload") != 0;
  if (payload && !draft.sections.count("model")) return;
  if (draft.any_bad({"model.from_pretrained", "model.preset"})) return;
  if (!draft.job.trainer.model.from_pretrained.empty()) {
    resolve_pretrained(draft);
  } else {
    if (!payload && draft.job.model_preset.empty()) {
      draft.report_missing("model", {"architecture", "hidden_size", "num_layers", "num_attention_heads"},
                           ", or a model.preset");
    }
    release_derived(draft);
    if (!payload) resolve_vocabulary(draft);
  }
  fill_shape(draft);
  if (payload) finish_shape(draft);
}

}  // namespace mds::launcher
