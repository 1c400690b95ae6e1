// The same transformers once more, the plain way: one device, batch-first, float64, logical tensors, autograd. Shares
// nothing with trainer/ but names and the configuration.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/trainer/model/harness.hpp"
#include "trainer/model/positions.hpp"

namespace mds::trainer::testing {

class Reference {
 public:
  Reference(const ModelConfig& model, const Tensors& values) : m_(model) {
    for (const auto& [name, value] : values) w_[name] = value.clone().requires_grad_(true);
  }

  /// Logits [batch, seq, vocab].
  at::Tensor logits(const at::Tensor& tokens) const {
    at::Tensor x = at::embedding(w("embedding.word.weight"), tokens);
    if (gpt()) x = x + w("embedding.position.weight").narrow(0, 0, tokens.size(1));
    if (m_.architecture == Architecture::bloom) x = norm(x, "embedding.norm");
    for (int64_t i = 0; i < m_.num_layers; ++i) {
      const std::string layer = "layers." + std::to_string(i);
      x = x + attention(norm(x, layer + ".attention_norm"), layer + ".attention.");
      x = x + feed_forward(norm(x, layer + ".mlp_norm"), layer + ".mlp.");
    }
    const char* head = m_.tie_word_embeddings ? "embedding.word.weight" : "head.weight";
    return at::matmul(norm(x, "final_norm"), w(head).t());
  }

  /// Sum of the cross entropy over labels >= 0, / denominator.
  at::Tensor loss(const MicroBatch& batch, double denominator) const {
    const at::Tensor log_p = at::log_softmax(logits(batch.tokens), -1);
    const at::Tensor valid = batch.labels.ge(0);
    const at::Tensor picked = log_p.gather(-1, batch.labels.clamp_min(0).unsqueeze(-1)).squeeze(-1);
    return -(picked * valid).sum() / denominator;
  }

  at::Tensor gradient(const std::string& name) const { return w(name).grad(); }

  // Blocks, [batch, seq, hidden] -> [batch, seq, hidden].
  at::Tensor norm(const at::Tensor& x, const std::string& name) const {
    if (llama()) return x * (x.square().mean(-1, true) + m_.norm_eps).rsqrt() * w(name + ".weight");
    const at::Tensor centred = x - x.mean(-1, true);
    return centred * (centred.square().mean(-1, true) + m_.norm_eps).rsqrt() * w(name + ".weight") + w(name + ".bias");
  }

  at::Tensor attention(const at::Tensor& x, const std::string& name) const {
    const int64_t seq = x.size(1), n = m_.num_attention_heads, group = n / m_.num_key_value_heads;
    const at::Tensor q = rotate(heads(linear(x, name + "query"), n));
    const at::Tensor k = rotate(heads(linear(x, name + "key"), m_.num_key_value_heads)).repeat_interleave(group, 1);
    const at::Tensor v = heads(linear(x, name + "value"), m_.num_key_value_heads).repeat_interleave(group, 1);
    at::Tensor scores = at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(-1)));
    if (m_.architecture == Architecture::bloom) {
      const at::Tensor slopes = at::tensor(alibi_slopes(n), at::kDouble).view({1, n, 1, 1});
      scores = scores + slopes * at::arange(seq, at::kDouble);
    }
    const at::Tensor future = at::ones({seq, seq}, at::kBool).triu(1);
    const at::Tensor p = at::softmax(scores.masked_fill(future, -INFINITY), -1);
    return linear(at::matmul(p, v).transpose(1, 2).flatten(2), name + "output");
  }

  at::Tensor feed_forward(const at::Tensor& x, const std::string& name) const {
    if (llama()) {
      const at::Tensor gate = linear(x, name + "gate");
      return linear(gate * at::sigmoid(gate) * linear(x, name + "up"), name + "down");
    }
    const at::Tensor u = linear(x, name + "up");
    const at::Tensor inner = std::sqrt(2.0 / M_PI) * (u + 0.044715 * u.pow(3));
    return linear(0.5 * u * (1 + at::tanh(inner)), name + "down");
  }

 private:
  bool gpt() const { return m_.architecture == Architecture::gpt3; }
  bool llama() const { return m_.architecture == Architecture::llama; }
  const at::Tensor& w(const std::string& name) const { return w_.at(name); }

  at::Tensor linear(const at::Tensor& x, const std::string& name) const {
    const at::Tensor y = at::matmul(x, w(name + ".weight").t());
    return w_.count(name + ".bias") ? y + w(name + ".bias") : y;
  }

  at::Tensor heads(const at::Tensor& x, int64_t count) const {  // [batch, heads, seq, head_dim]
    return x.view({x.size(0), x.size(1), count, -1}).transpose(1, 2);
  }

  at::Tensor rotate(const at::Tensor& x) const {
    if (!llama()) return x;
    const int64_t d = x.size(-1), seq = x.size(2);
    const at::Tensor exponent = at::arange(0, d, 2, at::kDouble) / static_cast<double>(d);
    const at::Tensor half = at::outer(at::arange(seq, at::kDouble), at::pow(m_.rope_theta, -exponent));
    const at::Tensor angle = at::cat({half, half}, -1);
    const at::Tensor turned = at::cat({-x.narrow(-1, d / 2, d / 2), x.narrow(-1, 0, d / 2)}, -1);
    return x * angle.cos() + turned * angle.sin();
  }

  ModelConfig m_;
  Tensors w_;
};

}  // namespace mds::trainer::testing
