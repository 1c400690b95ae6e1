#include "trainer/model/decoder_layer.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

namespace mds::trainer {
namespace {

bool has_biases(const ModelConfig& model) { return model.architecture != Architecture::llama; }

Parameter* qkv_weight(const ModelConfig& m, const std::string& name, ParameterSet& parameters) {
  const int64_t query = m.num_attention_heads * m.head_dim, key = m.num_key_value_heads * m.head_dim;
  TORCH_CHECK(
      m.num_key_value_heads % parameters.tensor_size() == 0 && m.num_attention_heads % m.num_key_value_heads == 0,
      "num_key_value_heads (", m.num_key_value_heads, ") must be divisible by parallel.tensor (",
      parameters.tensor_size(), ") and divide num_attention_heads (", m.num_attention_heads, ")");
  return parameters.split_rows(name + "qkv.weight", {{name + "query.weight", query, m.hidden_size},
                                                     {name + "key.weight", key, m.hidden_size},
                                                     {name + "value.weight", key, m.hidden_size}});
}

Parameter* qkv_bias(const ModelConfig& m, const std::string& name, ParameterSet& parameters) {
  if (!has_biases(m)) return nullptr;
  const int64_t query = m.num_attention_heads * m.head_dim, key = m.num_key_value_heads * m.head_dim;
  return parameters.split_rows(name + "qkv.bias", {{name + "query.bias", query, 0, Init::zeros},
                                                   {name + "key.bias", key, 0, Init::zeros},
                                                   {name + "value.bias", key, 0, Init::zeros}});
}

Parameter* up_weight(const ModelConfig& m, const std::string& name, ParameterSet& parameters) {
  if (m.architecture != Architecture::llama) {
    return parameters.split_rows(name + "up.weight", {{name + "up.weight", m.intermediate_size, m.hidden_size}});
  }
  return parameters.split_rows(name + "gate_up.weight", {{name + "gate.weight", m.intermediate_size, m.hidden_size},
                                                         {name + "up.weight", m.intermediate_size, m.hidden_size}});
}

Parameter* up_bias(const ModelConfig& m, const std::string& name, ParameterSet& parameters) {
  if (!has_biases(m)) return nullptr;
  return parameters.split_rows(name + "up.bias", {{name + "up.bias", m.intermediate_size, 0, Init::zeros}});
}

Parameter* residual_bias(const ModelConfig& m, const std::string& name, ParameterSet& parameters) {
  return has_biases(m) ? parameters.replicated({name, m.hidden_size, 0, Init::zeros}) : nullptr;
}

}  // namespace

Norm make_norm(const ModelConfig& model, const std::string& name, ParameterSet& parameters) {
  Parameter* weight = parameters.replicated({name + ".weight", model.hidden_size, 0, Init::ones});
  Parameter* bias = nullptr;
  if (has_biases(model)) bias = parameters.replicated({name + ".bias", model.hidden_size, 0, Init::zeros});
  return Norm(weight, bias, model.norm_eps);
}

// ---- attention --------------------------------------------------------------------------------------------------

SelfAttention::SelfAttention(const ModelConfig& m, const std::string& layer, const TensorRegion& region,
                             ParameterSet& parameters)
    : region_(region),
      heads_(m.num_attention_heads / region.group().size()),
      key_heads_(m.num_key_value_heads / region.group().size()),
      head_dim_(m.head_dim),
      qkv_([&] {
        Parameter* weight = qkv_weight(m, layer + ".attention.", parameters);
        return Linear(weight, qkv_bias(m, layer + ".attention.", parameters));
      }()),
      output_(parameters.split_columns({layer + ".attention.output.weight", m.hidden_size,
                                        m.num_attention_heads * m.head_dim, Init::scaled_normal})),
      output_bias_(residual_bias(m, layer + ".attention.output.bias", parameters)) {}

kernels::AttentionInput SelfAttention::split(const at::Tensor& qkv, const PositionTables& positions) const {
  const at::Tensor heads =
      qkv.view({qkv.size(0), qkv.size(1), heads_ + 2 * key_heads_, head_dim_}).permute({1, 2, 0, 3});
  return {heads.narrow(1, 0, heads_), heads.narrow(1, heads_, key_heads_),
          heads.narrow(1, heads_ + key_heads_, key_heads_), positions.alibi, 1.0 / std::sqrt(head_dim_)};
}

// Queries and keys lie side by side, so that one call turns both.
void SelfAttention::rotate(at::Tensor& qkv, const PositionTables& positions, bool inverse) const {
  if (!positions.cos.defined()) return;
  at::Tensor turned =
      qkv.narrow(2, 0, (heads_ + key_heads_) * head_dim_).unflatten(2, {heads_ + key_heads_, head_dim_});
  kernels::table_for(qkv).rope(turned, positions.cos, positions.sin, inverse);
}

at::Tensor SelfAttention::forward(const at::Tensor& x, const PositionTables& positions, Saved& saved) const {
  saved.input = x;
  saved.qkv = qkv_.forward(region_.gather(x));
  rotate(saved.qkv, positions, /*inverse=*/false);
  const at::Tensor context = kernels::causal_attention(split(saved.qkv, positions), saved.core);
  // Each fused operation has a layout of its own for its output; some leave a view that no matrix product takes.
  saved.context =
      context.permute({2, 0, 1, 3}).reshape({saved.qkv.size(0), x.size(1), heads_ * head_dim_}).contiguous();
  at::Tensor y = region_.reduce(output_.forward(saved.context));
  output_bias_.forward(y);
  return y;
}

at::Tensor SelfAttention::backward(const at::Tensor& dy_local, const PositionTables& positions, Saved& saved) const {
  output_bias_.backward_weight(dy_local);
  const at::Tensor dy = region_.gather(dy_local);
  const std::vector<int64_t> by_head{dy.size(0), dy.size(1), heads_, head_dim_};
  const at::Tensor dcontext = output_.backward_input(dy);
  output_.backward_weight(dy, saved.context);

  const kernels::AttentionGradient d =
      kernels::causal_attention_backward(dcontext.view(by_head).permute({1, 2, 0, 3}), split(saved.qkv, positions),
                                         saved.context.view(by_head).permute({1, 2, 0, 3}), saved.core);
  at::Tensor dqkv = at::empty_like(saved.qkv);
  kernels::AttentionInput parts = split(dqkv, positions);
  parts.query.copy_(d.query);
  parts.key.copy_(d.key);
  parts.value.copy_(d.value);
  rotate(dqkv, positions, /*inverse=*/true);

  at::Tensor dx = region_.reduce(qkv_.backward_input(dqkv));
  qkv_.backward_weight(dqkv, region_.gather(saved.input));
  return dx;
}

// ---- feed-forward -----------------------------------------------------------------------------------------------

FeedForward::FeedForward(const ModelConfig& m, const std::string& layer, const TensorRegion& region,
                         ParameterSet& parameters)
    : region_(region),
      swiglu_(m.architecture == Architecture::llama),
      up_([&] {
        Parameter* weight = up_weight(m, layer + ".mlp.", parameters);
        return Linear(weight, up_bias(m, layer + ".mlp.", parameters));
      }()),
      down_(parameters.split_columns(
          {layer + ".mlp.down.weight", m.hidden_size, m.intermediate_size, Init::scaled_normal})),
      down_bias_(residual_bias(m, layer + ".mlp.down.bias", parameters)) {}

at::Tensor FeedForward::activate(const at::Tensor& up) const {
  const kernels::KernelTable& k = kernels::table_for(up);
  return swiglu_ ? k.swiglu(up) : k.gelu(up);
}

at::Tensor FeedForward::forward(const at::Tensor& x, Saved& saved) const {
  saved.input = x;
  saved.up = up_.forward(region_.gather(x));
  saved.activation = activate(saved.up);
  at::Tensor y = region_.reduce(down_.forward(saved.activation));
  down_bias_.forward(y);
  return y;
}

at::Tensor FeedForward::backward(const at::Tensor& dy_local, Saved& saved) const {
  down_bias_.backward_weight(dy_local);
  const at::Tensor dy = region_.gather(dy_local);
  const at::Tensor dactivation = down_.backward_input(dy);
  if (!saved.activation.defined()) saved.activation = activate(saved.up);
  down_.backward_weight(dy, saved.activation);
  saved.activation.reset();

  const kernels::KernelTable& k = kernels::table_for(dy);
  const at::Tensor dup = swiglu_ ? k.swiglu_backward(dactivation, saved.up) : k.gelu_backward(dactivation, saved.up);
  at::Tensor dx = region_.reduce(up_.backward_input(dup));
  up_.backward_weight(dup, region_.gather(saved.input));
  return dx;
}

// ---- the layer --------------------------------------------------------------------------------------------------

DecoderLayer::DecoderLayer(const ModelConfig& m, int64_t index, Recompute recompute, const TensorRegion& region,
                           ParameterSet& parameters)
    : recompute_(recompute),
      attention_norm_(make_norm(m, "layers." + std::to_string(index) + ".attention_norm", parameters)),
      attention_(m, "layers." + std::to_string(index), region, parameters),
      feed_forward_norm_(make_norm(m, "layers." + std::to_string(index) + ".mlp_norm", parameters)),
      feed_forward_(m, "layers." + std::to_string(index), region, parameters) {}

at::Tensor DecoderLayer::run(const at::Tensor& x, const PositionTables& positions, Saved& saved) const {
  saved.input = x;
  kernels::NormOutput normed = attention_norm_.forward(x);
  saved.attention_norm = normed.statistics;
  saved.middle = attention_.forward(normed.y, positions, saved.attention).add_(x);

  normed = feed_forward_norm_.forward(saved.middle);
  saved.feed_forward_norm = normed.statistics;
  return feed_forward_.forward(normed.y, saved.feed_forward).add_(saved.middle);
}

void DecoderLayer::drop(Saved& saved) const {
  if (recompute_ == Recompute::full) {
    const at::Tensor input = saved.input;
    saved = {};
    saved.input = input;
  } else if (recompute_ == Recompute::selective) {
    saved.attention.input.reset();
    saved.feed_forward.input.reset();
    saved.feed_forward.activation.reset();
  }
}

void DecoderLayer::restore(const PositionTables& positions, Saved& saved) const {
  if (recompute_ == Recompute::full) {
    run(at::Tensor(saved.input), positions, saved);
  } else if (recompute_ == Recompute::selective) {
    saved.attention.input = attention_norm_.forward(saved.input).y;
    saved.feed_forward.input = feed_forward_norm_.forward(saved.middle).y;
  }
}

at::Tensor DecoderLayer::forward(const at::Tensor& x, const PositionTables& positions, Saved& saved) const {
  at::Tensor y = run(x, positions, saved);
  drop(saved);
  return y;
}

at::Tensor DecoderLayer::backward(const at::Tensor& dy, const PositionTables& positions, Saved& saved) const {
  restore(positions, saved);
  at::Tensor dnormed = feed_forward_.backward(dy, saved.feed_forward);
  saved.feed_forward = {};
  const at::Tensor dmiddle = feed_forward_norm_.backward(dnormed, saved.middle, saved.feed_forward_norm, dy);
  dnormed = attention_.backward(dmiddle, positions, saved.attention);
  saved.attention = {};
  return attention_norm_.backward(dnormed, saved.input, saved.attention_norm, dmiddle);
}

}  // namespace mds::trainer
