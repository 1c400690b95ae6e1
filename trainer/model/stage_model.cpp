#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <optional>
#include <unordered_map>
#include <utility>

#include "trainer/model/decoder_layer.hpp"
#include "trainer/model/language_head.hpp"
#include "trainer/model/model.hpp"

namespace mds::trainer {
namespace {

/// [micro_batch, seq] -> [seq, micro_batch], contiguous.
at::Tensor sequence_first(const at::Tensor& tokens) { return tokens.t().contiguous(); }

class Transformer final : public StageModel {
 public:
  Transformer(const ModelConfig& model, const ParallelConfig& parallel, Recompute recompute,
              const StageOptions& options, Communicator& tensor);

  bool is_first() const override { return options_.stage == 0; }
  bool is_last() const override { return options_.stage == options_.num_stages - 1; }
  const std::vector<Parameter*>& parameters() override { return parameters_.all(); }

  at::Tensor forward(int slot, const MicroBatch& batch, const at::Tensor& input, double loss_denominator) override;
  at::Tensor backward(int slot, const at::Tensor& grad_output, double loss_scale) override;
  at::Tensor logits(const MicroBatch& batch, const at::Tensor& input) override;
  at::Tensor evaluate(const MicroBatch& batch, const at::Tensor& input, double loss_denominator) override;
  std::vector<int64_t> hidden_shape(int64_t micro_batch, int64_t seq) const override;

 private:
  struct Saved {
    at::Tensor tokens;    // [seq, batch], first stage
    at::Tensor embedded;  // input of the embedding's norm
    kernels::NormStatistics embedding_norm;
    std::vector<DecoderLayer::Saved> layers;
    LanguageHead::Saved head;
    double loss_denominator = 1;
    int64_t seq = 0;
  };

  void declare(Recompute recompute);
  const PositionTables& positions(int64_t seq);
  at::Tensor embed(const MicroBatch& batch, Saved* saved);
  void embed_backward(const at::Tensor& grad, Saved& saved);
  at::Tensor hidden(const MicroBatch& batch, const at::Tensor& input, Saved* saved);

  ModelConfig model_;
  StageOptions options_;
  TensorRegion region_;
  ParameterSet parameters_;
  std::optional<VocabularyEmbedding> embedding_;
  std::optional<PositionEmbedding> position_embedding_;
  std::optional<Norm> embedding_norm_;
  std::vector<DecoderLayer> layers_;
  std::optional<LanguageHead> head_;
  std::unordered_map<int64_t, PositionTables> positions_;  // by sequence length
  std::unordered_map<int, Saved> slots_;
};

Transformer::Transformer(const ModelConfig& model, const ParallelConfig& parallel, Recompute recompute,
                         const StageOptions& options, Communicator& tensor)
    : model_(model),
      options_(options),
      region_(tensor, parallel.sequence_parallel),
      parameters_(tensor.rank(), tensor.size(), region_.sequence_parallel()) {
  fill_derived(model_);
  declare(recompute);
}

void Transformer::declare(Recompute recompute) {
  const LogicalTensor word{"embedding.word.weight", model_.vocab_size, model_.hidden_size};
  Parameter* word_weight = nullptr;
  const int64_t tile = model_.tie_word_embeddings ? options_.vocabulary_tile : 1;
  if (is_first()) {
    word_weight = parameters_.split_rows(word.name, {word}, tile);
    embedding_.emplace(word_weight, region_);
    if (model_.architecture == Architecture::gpt3) {
      position_embedding_.emplace(
          parameters_.replicated({"embedding.position.weight", model_.max_position_embeddings, model_.hidden_size}),
          region_);
    }
    if (model_.architecture == Architecture::bloom) embedding_norm_ = make_norm(model_, "embedding.norm", parameters_);
  }
  const Range layers = split_range(model_.num_layers, options_.stage, options_.num_stages);
  layers_.reserve(layers.size());
  for (int64_t i = layers.begin; i < layers.end; ++i) layers_.emplace_back(model_, i, recompute, region_, parameters_);
  if (is_last()) {
    const Norm norm = make_norm(model_, "final_norm", parameters_);
    if (!model_.tie_word_embeddings) {
      const LogicalTensor head{"head.weight", model_.vocab_size, model_.hidden_size};
      word_weight = parameters_.split_rows(head.name, {head}, options_.vocabulary_tile);
    } else if (!word_weight) {
      word_weight = parameters_.split_rows(word.name, {word}, options_.vocabulary_tile);
    }
    head_.emplace(norm, word_weight, region_);
  }
  if (model_.tie_word_embeddings && word_weight) word_weight->shared_embedding = options_.num_stages > 1;
}

const PositionTables& Transformer::positions(int64_t seq) {
  auto found = positions_.find(seq);
  if (found == positions_.end()) {
    const Range heads = split_range(model_.num_attention_heads, parameters_.tensor_rank(), parameters_.tensor_size());
    found = positions_.emplace(seq, make_position_tables(model_, seq, heads, options_.compute_dtype, options_.device))
                .first;
  }
  return found->second;
}

at::Tensor Transformer::embed(const MicroBatch& batch, Saved* saved) {
  const at::Tensor tokens = sequence_first(batch.tokens);
  at::Tensor x = embedding_->forward(tokens);
  if (position_embedding_) position_embedding_->forward(x);
  if (saved) saved->tokens = tokens;
  if (!embedding_norm_) return x;
  const kernels::NormOutput normed = embedding_norm_->forward(x);
  if (saved) {
    saved->embedded = x;
    saved->embedding_norm = normed.statistics;
  }
  return normed.y;
}

void Transformer::embed_backward(const at::Tensor& grad, Saved& saved) {
  at::Tensor d = grad;
  if (embedding_norm_) d = embedding_norm_->backward(d, saved.embedded, saved.embedding_norm, {});
  if (position_embedding_) position_embedding_->backward_weight(d);
  embedding_->backward_weight(d, saved.tokens);
}

at::Tensor Transformer::hidden(const MicroBatch& batch, const at::Tensor& input, Saved* saved) {
  at::Tensor x = is_first() ? embed(batch, saved) : input;
  const PositionTables& tables = positions(batch.tokens.size(1));
  if (saved) saved->layers.resize(layers_.size());
  for (size_t i = 0; i < layers_.size(); ++i) {
    DecoderLayer::Saved dropped;
    x = layers_[i].forward(x, tables, saved ? saved->layers[i] : dropped);
  }
  return x;
}

at::Tensor Transformer::forward(int slot, const MicroBatch& batch, const at::Tensor& input, double loss_denominator) {
  const at::NoGradGuard no_grad;
  TORCH_CHECK(!slots_.count(slot), "micro batch slot ", slot, " is still in flight");
  Saved& saved = slots_[slot];
  saved.seq = batch.tokens.size(1);
  saved.loss_denominator = loss_denominator;
  const at::Tensor x = hidden(batch, input, &saved);
  return is_last() ? head_->forward(x, sequence_first(batch.labels), loss_denominator, saved.head) : x;
}

at::Tensor Transformer::backward(int slot, const at::Tensor& grad_output, double loss_scale) {
  const at::NoGradGuard no_grad;
  auto node = slots_.extract(slot);
  TORCH_CHECK(!node.empty(), "micro batch slot ", slot, " has no forward pass");
  Saved& saved = node.mapped();
  at::Tensor d = grad_output;
  if (is_last()) d = head_->backward(loss_scale / saved.loss_denominator, saved.head);
  saved.head = {};
  const PositionTables& tables = positions(saved.seq);
  for (size_t i = layers_.size(); i-- > 0; saved.layers.pop_back()) d = layers_[i].backward(d, tables, saved.layers[i]);
  if (!is_first()) return d;
  embed_backward(d, saved);
  return {};
}

at::Tensor Transformer::logits(const MicroBatch& batch, const at::Tensor& input) {
  const at::NoGradGuard no_grad;
  return head_->logits(hidden(batch, input, nullptr)).transpose(0, 1);
}

at::Tensor Transformer::evaluate(const MicroBatch& batch, const at::Tensor& input, double loss_denominator) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = hidden(batch, input, nullptr);
  if (!is_last()) return x;
  LanguageHead::Saved dropped;
  return head_->forward(x, sequence_first(batch.labels), loss_denominator, dropped);
}

std::vector<int64_t> Transformer::hidden_shape(int64_t micro_batch, int64_t seq) const {
  return {seq / region_.sequence_parts(), micro_batch, model_.hidden_size};
}

}  // namespace

std::unique_ptr<StageModel> StageModel::make(const ModelConfig& model, const ParallelConfig& parallel,
                                             Recompute recompute, const StageOptions& options, Communicator& tensor) {
  return std::make_unique<Transformer>(model, parallel, recompute, options, tensor);
}

}  // namespace mds::trainer
