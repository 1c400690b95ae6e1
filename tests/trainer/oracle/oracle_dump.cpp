// Runs a Hugging Face folder under layouts and writes what oracle.py compares with `transformers`: logits, loss and
// every gradient under Hugging Face names.
//
//   oracle_dump FOLDER BATCH.safetensors OUTPUT_FOLDER TPxPPxDP[s] ...      (s: sequence parallel)
//
// BATCH holds tokens and labels [samples, seq] int64. Each layout runs as TP x DP threads, which chain the PP stages.
// OUTPUT_FOLDER/saved gets the model again, loaded and saved by us.
#include <cstdio>
#include <iostream>
#include <string>

#include "tests/trainer/model/harness.hpp"
#include "trainer/checkpoint/safetensors.hpp"
#include "trainer/checkpoint/tensor_types.hpp"
#include "trainer/model/hugging_face.hpp"
#include "trainer/model/hugging_face_config.hpp"

namespace mds::trainer::testing {
namespace {

struct OracleLayout {
  std::string text;
  int tensor = 1, pipeline = 1, data = 1;
  bool sequence_parallel = false;
};

Result<OracleLayout> parse_layout(const std::string& text) {
  OracleLayout layout{text};
  char s = 0;
  const int fields = std::sscanf(text.c_str(), "%dx%dx%d%c", &layout.tensor, &layout.pipeline, &layout.data, &s);
  if (fields < 3) return bad_input("layout " + text + " is not TPxPPxDP[s]");
  layout.sequence_parallel = s == 's';
  return layout;
}

Result<at::Tensor> read_tensor(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsEntry* entry = file.find(name);
  if (!entry) return bad_input(file.path() + " has no " + name);
  return copy_of(*entry, file.bytes(*entry));
}

Status write_tensors(const std::string& path, const Tensors& tensors) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, t] : tensors) entries.push_back({name, TensorType::f32, t.sizes().vec(), 0, 0});
  auto writer = SafetensorsWriter::create(path, entries);
  if (!writer) return writer.error();
  for (const auto& [name, t] : tensors) {
    const at::Tensor flat = t.contiguous();
    const auto* bytes = static_cast<const std::byte*>(flat.const_data_ptr());
    if (Status s = writer->append({bytes, flat.nbytes()}); !s) return s;
  }
  auto written = writer->finish();
  return written ? Status{} : Status(written.error());
}

/// One replica's thread of one tensor rank: its share of the batch, then gradients summed over the replicas.
void run_replica(const ModelConfig& model, const OracleLayout& layout, const std::string& folder, RankStages& rank,
                 Communicator& tensor, Communicator& data, const MicroBatch& batch, LayoutResult& result) {
  ParallelConfig parallel;
  parallel.tensor = layout.tensor;
  parallel.sequence_parallel = layout.sequence_parallel;
  for (int stage = 0; stage < layout.pipeline; ++stage) {
    const StageOptions options{at::kFloat, at::kCPU, stage, layout.pipeline};
    rank.stages.push_back(StageModel::make(model, parallel, Recompute::none, options, tensor));
    bind(rank.stages.back()->parameters(), at::kFloat, at::kFloat);
    const Status loaded = load_hugging_face(folder, model, rank.stages.back()->parameters());
    TORCH_CHECK(loaded.ok(), loaded.error().message);
  }
  const int64_t share = batch.tokens.size(0) / data.size();
  const auto mine = [&](const at::Tensor& t) { return t.narrow(0, share * data.rank(), share).contiguous(); };
  const double denominator = batch.labels.ge(0).sum().item<double>();
  detail::run_rank(rank, {{mine(batch.tokens), mine(batch.labels)}}, denominator, 1.0, &result);
  for (Parameter* p : rank.parameters()) data.all_reduce(p->grad);
}

Tensors run_oracle(const ModelConfig& model, const OracleLayout& layout, const std::string& folder,
                   const MicroBatch& batch) {
  std::vector<std::vector<std::unique_ptr<Communicator>>> tensor_groups, data_groups;
  for (int i = 0; i < layout.data; ++i) tensor_groups.push_back(make_local_group(layout.tensor));
  for (int i = 0; i < layout.tensor; ++i) data_groups.push_back(make_local_group(layout.data));
  std::vector<RankStages> ranks(layout.tensor * layout.data);
  std::vector<LayoutResult> results(ranks.size());
  on_ranks(static_cast<int>(ranks.size()), [&](int i) {
    const int replica = i / layout.tensor, rank = i % layout.tensor;
    run_replica(model, layout, folder, ranks[i], *tensor_groups[replica][rank], *data_groups[rank][replica], batch,
                results[i]);
  });

  std::vector<std::vector<Parameter*>> first_replica;
  for (int rank = 0; rank < layout.tensor; ++rank) first_replica.push_back(ranks[rank].parameters());
  const Tensors gradients = collect_gradients(first_replica);
  Tensors out;
  for (const LogicalTensor& logical : logical_tensors(model)) {
    const HuggingFacePlace place = hugging_face_place(model, logical);
    at::Tensor& whole = out["gradient/" + place.name];
    if (!whole.defined()) whole = at::zeros(place.shape);
    at::Tensor view = hugging_face_view(whole, place, model.num_attention_heads);
    view.copy_(gradients.at(logical.name).reshape(view.sizes()));
  }
  std::vector<at::Tensor> logits;
  double loss = 0;
  for (int i = 0; i < layout.data; ++i) {
    logits.push_back(results[i * layout.tensor].logits);
    loss += results[i * layout.tensor].loss;
  }
  out["logits"] = at::cat(logits);
  out["loss"] = at::full({1}, loss, at::kFloat);
  return out;
}

/// Loads the folder and saves it again: what `transformers` reads there must be what it wrote.
Status save_again(const ModelConfig& model, const std::string& folder, const std::string& target) {
  const auto alone = make_single_communicator("alone");
  const auto stage = StageModel::make(model, {}, Recompute::none, {}, *alone);
  bind(stage->parameters(), at::kFloat, at::kFloat);
  if (Status s = load_hugging_face(folder, model, stage->parameters()); !s) return s;
  return save_hugging_face(target, model, at::kFloat, [&](const LogicalTensor& wanted) -> Result<at::Tensor> {
    for (const Parameter* p : stage->parameters()) {
      for (const LogicalSlice& s : p->slices) {
        if (s.name == wanted.name) return p->value.narrow(0, s.local_begin, s.local_rows);
      }
    }
    return internal("no tensor " + wanted.name);
  });
}

Status dump(const std::vector<std::string>& arguments) {
  if (arguments.size() < 4) return bad_input("usage: oracle_dump FOLDER BATCH OUTPUT_FOLDER TPxPPxDP[s] ...");
  const auto model = read_hugging_face_config(arguments[0]);
  if (!model) return model.error();
  const auto file = SafetensorsFile::open(arguments[1]);
  if (!file) return file.error();
  const auto tokens = read_tensor(*file, "tokens"), labels = read_tensor(*file, "labels");
  if (!tokens) return tokens.error();
  if (!labels) return labels.error();
  for (size_t i = 3; i < arguments.size(); ++i) {
    const auto layout = parse_layout(arguments[i]);
    if (!layout) return layout.error();
    const Tensors out = run_oracle(*model, *layout, arguments[0], {*tokens, *labels});
    if (Status s = write_tensors(arguments[2] + "/" + layout->text + ".safetensors", out); !s) return s;
  }
  return save_again(*model, arguments[0], arguments[2] + "/saved");
}

}  // namespace
}  // namespace mds::trainer::testing

int main(int argc, char** argv) {
  const mds::Status status = mds::trainer::testing::dump({argv + 1, argv + argc});
  if (!status) std::cerr << "oracle_dump: " << status.error().message << '\n';
  return status ? 0 : 1;
}
