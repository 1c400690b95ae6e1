#include "topology/cost/step_time.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace mds::topology::cost {
namespace {

/// Seconds of one pass (of a layer or of the head), by what they are spent on.
struct Pass {
  double matrix = 0, weights = 0, attention = 0, elementwise = 0, tensor = 0, context = 0;
  double compute() const { return matrix + weights + attention + elementwise; }
  double total() const { return compute() + tensor + context; }
};

/// Times of single operations.
struct Rates {
  const Work& work;
  const Machines& machines;

  double gemm_rate() const {
    const DeviceClass& d = machines.device;
    if (work.precision == Precision::fp32) return d.gemm_fp32;
    return work.precision == Precision::fp8 && d.gemm_fp8 > 0 ? d.gemm_fp8 : d.gemm;
  }
  double bytes(double count) const { return count / machines.device.memory; }
  double gaps(int kernels) const { return kernels * machines.device.launch_gap; }
  double gemm(double m, double n, double k, double copies = 1) const;
  Group group(Axis axis) const { return group_along(axis, work.layout, machines); }
  double collective(Collective what, double count, Axis axis) const {
    const Group ranks = group(axis);
    return collective_seconds(what, count, ranks, links_of(ranks, machines));
  }
};

// Tiles come in waves of one a processor and the last wave is seldom full, so libraries choose the tile that wastes the
// least; smaller ones run slower because they read more for each product. A tile's first loads and last stores take as
// long as 128 steps of its inner loop. Whatever the shape, operands and result pass through memory.
double Rates::gemm(double m, double n, double k, double copies) const {
  struct Tile {
    double rows, columns, speed;
  };
  constexpr std::array kTiles{Tile{256, 128, 1.0}, Tile{128, 256, 1.0}, Tile{128, 128, 0.93}, Tile{64, 128, 0.75}};
  double best = 0;
  for (const Tile& tile : kTiles) {
    const double tiles = copies * std::ceil(m / tile.rows) * std::ceil(n / tile.columns);
    const double waves = std::ceil(tiles / machines.device.processors);
    const double used = copies * m * n / (waves * machines.device.processors * tile.rows * tile.columns);
    best = std::max(best, used * tile.speed);
  }
  if (!machines.gpu) best = 1;
  const double rate = gemm_rate() * best * k / (k + 128);
  const double moved = copies * (m * k + n * k + m * n) * static_cast<double>(work.element_bytes());
  return std::max(2 * copies * m * n * k / rate, bytes(moved)) + gaps(1);
}

/// Everything that a layer's times are made of.
struct Shape {
  explicit Shape(const Work& w)
      : tokens(static_cast<double>(w.tokens())),
        e(static_cast<double>(w.element_bytes())),
        t(w.layout.tensor),
        u(static_cast<double>(w.sequence_parts())),
        h(static_cast<double>(w.model.hidden)),
        q(static_cast<double>(w.model.query_width()) / t),
        k(static_cast<double>(w.model.key_width()) / t),
        f(static_cast<double>(w.model.intermediate) / t),
        up((w.model.gated ? 2 : 1) * f) {}

  double tokens, e, t, u, h, q, k, f, up;
  double hidden_bytes() const { return tokens * h * e; }
};

struct Attention {
  double forward, backward;
};

// Causal: half of the scores. Backward makes five products of the forward pass' two.
Attention fused_attention(const Rates& r, const Shape& s) {
  const DeviceClass& d = r.machines.device;
  const double flops = 2 * s.tokens * static_cast<double>(r.work.seq_len) * s.q;
  const double small = r.work.model.head_dim <= 64 ? d.attention_head64 : 1;
  const double wide = r.work.precision == Precision::fp32 && r.machines.gpu ? d.gemm_fp32 / d.gemm : 1;
  return {flops / (d.attention_forward * small * wide) + r.gaps(1),
          2.5 * flops / (d.attention_backward * small * wide) + r.gaps(3)};
}

// Batched products over whole rows, and passes over the scores: scale, mask and softmax read and write (2 + 2 bytes),
// dropout (2 + 2 and a mask of 1); backward dropout 5, softmax 2 + 2 + 2.
Attention plain_attention(const Rates& r, const Shape& s) {
  const auto seq = static_cast<double>(r.work.seq_len);
  const double batches = s.tokens / seq * static_cast<double>(r.work.model.heads) / s.t;
  const auto d = static_cast<double>(r.work.model.head_dim);
  const double scores = batches * seq * seq;
  const double wide = r.gemm(seq, seq, d, batches), narrow = r.gemm(seq, d, seq, batches);
  return {wide + narrow + r.bytes(9 * scores) + r.gaps(2), 2 * (wide + narrow) + r.bytes(11 * scores) + r.gaps(2)};
}

Attention attention(const Rates& r, const Shape& s) {
  return r.work.engine == Engine::ours ? fused_attention(r, s) : plain_attention(r, s);
}

/// The bytes of a layer's elementwise passes, in elements a token. Each operation counts what it reads and writes.
struct Elementwise {
  double forward, backward;
  int forward_kernels, backward_kernels;
};

Elementwise elementwise(const Work& work, const Shape& s) {
  if (work.engine == Engine::ours) {
    // Norms 2h each, residual sums 3h each, rotation 2 (q + k), SwiGLU 2f + f (GELU f + f).
    // Backward: norms with the residual's gradient 4h each, SwiGLU f + 2f + 2f (GELU 3f), dq dk dv put side by side
    // 2 (q + 2k), rotation back.
    const bool rotary = work.model.learned_positions == 0 && !work.model.alibi;
    const double turn = rotary ? 2 * (s.q + s.k) : 0;
    return {10 * s.h / s.u + turn + s.up + s.f, 8 * s.h / s.u + turn + 2 * (s.q + 2 * s.k) + s.f + 2 * s.up, 7, 9};
  }
  // Norms 2h each; bias, dropout and residual 3h and a mask of half an element; bias and GELU 2f; the heads' output
  // made contiguous 2q. Backward: norms 3h and their weights' gradients 2h, dropout 2.5h, residual 3h, GELU 3f.
  return {11 * s.h / s.u + 2 * s.f + 2 * s.q, 21 * s.h / s.u + 3 * s.f + 2 * s.q, 12, 18};
}

// Added to the fp32 gradient as it leaves the product: 4 bytes read and 4 written, behind the last tile's last step.
double weight_gradient(const Rates& r, double out, double in, double tokens) {
  return r.gemm(out, in, tokens) + r.bytes(8 * out * in);
}

double product_time(const Rates& r, const Shape& s, bool weights, bool inputs) {
  const std::array<std::array<double, 2>, 4> shapes{{{s.q + 2 * s.k, s.h}, {s.h, s.q}, {s.up, s.h}, {s.h, s.f}}};
  double sum = 0;
  for (const auto& [out, in] : shapes) {
    if (inputs) sum += r.gemm(s.tokens, in, out);
    if (weights) sum += weight_gradient(r, out, in, s.tokens);
    if (!inputs && !weights) sum += r.gemm(s.tokens, out, in);
  }
  return sum;
}

Pass layer_forward(const Rates& r) {
  const Shape s(r.work);
  const Elementwise moved = elementwise(r.work, s);
  Pass out;
  out.matrix = product_time(r, s, false, false);
  out.attention = attention(r, s).forward;
  out.elementwise = r.bytes(moved.forward * s.tokens * s.e) + r.gaps(moved.forward_kernels);
  if (s.u > 1) {
    out.tensor = 2 * (r.collective(Collective::all_gather, s.hidden_bytes(), Axis::tensor) +
                      r.collective(Collective::reduce_scatter, s.hidden_bytes(), Axis::tensor));
  } else {
    out.tensor = 2 * r.collective(Collective::all_reduce, s.hidden_bytes(), Axis::tensor);
  }
  // Ring attention (Liu et al., arXiv 2310.01889): keys and values go round while blocks compute.
  const double ring = r.collective(Collective::all_gather, 2 * s.k * s.tokens * s.e * r.work.layout.context,
                                   Axis::context);
  out.context = std::max(0.0, ring - out.attention);
  return out;
}

Pass layer_backward(const Rates& r) {
  const Shape s(r.work);
  const Elementwise moved = elementwise(r.work, s);
  Pass out;
  out.matrix = product_time(r, s, false, true);
  out.weights = product_time(r, s, true, false);
  out.attention = attention(r, s).backward;
  out.elementwise = r.bytes(moved.backward * s.tokens * s.e) + r.gaps(moved.backward_kernels);
  const double gather = 2 * r.collective(Collective::all_gather, s.hidden_bytes(), Axis::tensor);
  const double scatter = 2 * r.collective(Collective::reduce_scatter, s.hidden_bytes(), Axis::tensor);
  const double reduce = 2 * r.collective(Collective::all_reduce, s.hidden_bytes(), Axis::tensor);
  const bool hides = r.work.engine == Engine::megatron_2022;
  if (s.u > 1) {
    // dy is gathered for the row-parallel products, x again for the column-parallel weights.
    out.tensor = gather + (hides ? std::max(0.0, gather - out.matrix / 2) + std::max(0.0, scatter - out.weights / 2)
                                 : gather + scatter);
  } else {
    out.tensor = hides ? std::max(0.0, reduce - out.weights) : reduce;
  }
  const double ring = 2 * r.collective(Collective::all_gather, 2 * s.k * s.tokens * s.e * r.work.layout.context,
                                       Axis::context);
  out.context = std::max(0.0, ring - out.attention);
  return out;
}

/// What recomputation adds to a layer's backward pass.
double layer_recompute(const Rates& r, const Pass& forward) {
  const Shape s(r.work);
  switch (r.work.recompute) {
    case Recompute::none:
      return 0;
    case Recompute::full:
      return forward.total();
    case Recompute::selective:
      break;
  }
  if (r.work.engine == Engine::megatron_2022) return attention(r, s).forward;
  return r.bytes((4 * s.h / s.u + s.up + s.f) * s.tokens * s.e) + r.gaps(3);  // both norms and the activation
}

/// The final norm, the output layer and the loss; forward and backward together.
Pass head_passes(const Rates& r) {
  const Shape s(r.work);
  const double words = std::ceil(static_cast<double>(r.work.model.vocabulary) / s.t);
  Pass out;
  out.matrix = r.gemm(s.tokens, words, s.h) + r.gemm(s.tokens, s.h, words);
  out.weights = weight_gradient(r, words, s.h, s.tokens);
  // Ours reads the logits once for the loss and turns them into their gradient in place. Megatron of 2022 makes an fp32
  // copy (6 bytes) and passes over it for maximum, difference, exponential, sum and quotient (4 + 8 x 3) and back (6).
  const double loss = r.work.engine == Engine::ours ? 3 * s.e : 40;
  out.elementwise = r.bytes(s.tokens * (loss * words + 12 * s.h)) + r.gaps(10);
  if (s.u > 1) {
    out.tensor = 2 * r.collective(Collective::all_gather, s.hidden_bytes(), Axis::tensor) +
                 r.collective(Collective::reduce_scatter, s.hidden_bytes(), Axis::tensor);
  } else {
    out.tensor = r.collective(Collective::all_reduce, s.hidden_bytes(), Axis::tensor);
  }
  return out;
}

/// The look-up and its gradient: rows of the table, and with tensor ranks their sum.
Pass embedding_passes(const Rates& r) {
  const Shape s(r.work);
  Pass out;
  out.elementwise = r.bytes(s.tokens * s.h * (2 * s.e + 12)) + r.gaps(8);
  const auto what = s.u > 1 ? Collective::reduce_scatter : Collective::all_reduce;
  out.tensor = r.collective(what, s.hidden_bytes(), Axis::tensor);
  if (s.u > 1) out.tensor += r.collective(Collective::all_gather, s.hidden_bytes(), Axis::tensor);
  return out;
}

// Hidden states one way and gradients the other, a chunk at a time. Megatron divides a tensor group's copies over its
// ranks and gathers them on arrival, ours sends them whole unless they are divided anyway.
double pipeline_exchange(const Rates& r) {
  const Layout& layout = r.work.layout;
  if (layout.pipeline == 1) return 0;
  const Shape s(r.work);
  const Group stages = r.group(Axis::pipeline);
  const bool across = stages.per_node == 1 && r.machines.nodes > 1;
  const double parts = r.work.engine == Engine::megatron_2022 ? s.t : s.u;
  double once = transfer_seconds(s.hidden_bytes() / parts, across, links_of(stages, r.machines));
  if (parts > s.u) once += r.collective(Collective::all_gather, s.hidden_bytes(), Axis::tensor);
  return 2 * layout.virtual_stages * once;
}

/// The traffic of replicas in one step, and how much of it can hide behind computing.
struct Replicas {
  double shown = 0, hidden_if_time = 0;
};

Replicas replica_traffic(const Rates& r, double parameters) {
  const Work& w = r.work;
  if (w.replicas() == 1) return {};
  const double gradients = parameters * 4, weights = parameters * static_cast<double>(w.element_bytes());
  const auto passes = static_cast<double>(w.micro_batches());
  const double scatter = r.collective(Collective::reduce_scatter, gradients, Axis::data);
  const double gather = r.collective(Collective::all_gather, weights, Axis::data);
  if (w.zero_stage == 0) return {r.collective(Collective::all_reduce, gradients, Axis::data), 0};
  if (w.zero_stage == 1) return {scatter + gather, 0};
  if (w.zero_stage == 2) return {gather, passes * scatter};
  return {0, passes * (scatter + 2 * gather)};
}

// The norm reads the gradients, AdamW reads master, moments and gradient and writes all but that and the value, then
// the gradients are zeroed. Megatron of 2022 also copies, unscales and clips them in passes of their own.
double optimizer_seconds(const Rates& r, double parameters) {
  const Work& w = r.work;
  const double shards = w.zero_stage >= 1 ? static_cast<double>(w.replicas()) : 1;
  const double each = 4 + 16 + 12 + static_cast<double>(w.element_bytes()) + (w.engine == Engine::ours ? 0 : 14);
  return r.bytes(parameters * (each / shards + 4)) + r.gaps(8);
}

// Ren et al., "ZeRO-Offload" (arXiv 2101.06840), table 4: a node's processors do AdamW on 4e9 parameters a second.
// NVMe: 6 GB/s a node, both ways (Rajbhandari et al., arXiv 2104.07857, figure 6).
double offload_seconds(const Rates& r, double parameters) {
  const Work& w = r.work;
  const double owned = parameters / (w.zero_stage >= 1 ? static_cast<double>(w.replicas()) : 1);
  const double ranks = r.machines.ranks_per_node, link = r.machines.device.host_link;
  const auto e = static_cast<double>(w.element_bytes());
  double out = 0;
  if (w.offload_optimizer != Offload::none) out += owned * (4 + e) / link + owned * ranks / 4e9;
  if (w.offload_optimizer == Offload::nvme) out += owned * ranks * 2 * 12 / 6e9;
  if (w.offload_parameters != Offload::none) {
    const auto passes = static_cast<double>(w.micro_batches());
    out += passes * 2 * owned * e * (w.offload_parameters == Offload::nvme ? ranks / 6e9 : 1 / link);
  }
  return out;
}

void add(StepTime& out, const Pass& pass, double times) {
  out.matrix += times * (pass.matrix + pass.weights);
  out.attention += times * pass.attention;
  out.elementwise += times * pass.elementwise;
  out.tensor += times * pass.tensor;
  out.context += times * pass.context;
}

}  // namespace

LayerTime estimate_layer(const Work& work, const Machines& machines) {
  const Rates rates{work, machines};
  const Pass forward = layer_forward(rates);
  return {forward.total(), layer_backward(rates).total(), layer_recompute(rates, forward)};
}

StepTime estimate_step(const Work& work, const Machines& machines) {
  const Rates rates{work, machines};
  const int stages = work.layout.pipeline;
  const Pass forward = layer_forward(rates), backward = layer_backward(rates);
  const double again = layer_recompute(rates, forward);
  const Pass head = head_passes(rates), embedding = embedding_passes(rates);
  const double layer = forward.total() + backward.total() + again;

  // The stage that the others wait for, and what they take together.
  int slowest = 0;
  double longest = 0;
  const auto stage_time = [&](int stage) {
    const double ends = (stage == 0 ? embedding.total() : 0) + (stage == stages - 1 ? head.total() : 0);
    return static_cast<double>(stage_layers(work, stage)) * layer + ends;
  };
  int more = 1;
  while (more < stages && stage_layers(work, more) <= stage_layers(work, 0)) ++more;
  for (const int stage : {0, stages - 1, 1, more}) {
    if (stage >= stages || stage_time(stage) <= longest) continue;
    longest = stage_time(stage);
    slowest = stage;
  }
  const double all = static_cast<double>(work.model.layers) * layer + embedding.total() + head.total();

  StepTime out;
  const auto micro_batches = static_cast<double>(work.micro_batches());
  const auto layers = static_cast<double>(stage_layers(work, slowest));
  add(out, forward, micro_batches * layers);
  add(out, backward, micro_batches * layers);
  out.recompute = micro_batches * layers * again;
  if (slowest == 0) add(out, embedding, micro_batches);
  if (slowest == stages - 1) add(out, head, micro_batches);
  const double exchange = pipeline_exchange(rates);
  out.pipeline = micro_batches * exchange;
  const double v = work.layout.schedule == Schedule::interleaved ? work.layout.virtual_stages : 1;
  if (stages > 1) out.bubble = (all - longest) / v + (stages - 1) * exchange / v;
  if (work.layout.schedule == Schedule::zero_bubble) {
    out.bubble = std::max(0.0, out.bubble - 2 * (stages - 1) * layers * backward.weights);
  }

  const auto parameters = static_cast<double>(rank_parameters(work, slowest));
  const Replicas replicas = replica_traffic(rates, parameters);
  const bool shared_links = rates.group(Axis::data).nodes() == 1;  // tensor traffic never leaves a node if it can help
  const double computing = out.matrix + out.attention + out.elementwise + out.recompute;
  const double room = computing + (shared_links ? 0 : out.tensor);
  out.data = replicas.shown + std::max(0.0, replicas.hidden_if_time - room);
  if (work.offload_optimizer == Offload::none) out.optimizer = optimizer_seconds(rates, parameters);
  out.offload = offload_seconds(rates, parameters);
  return out;
}

}  // namespace mds::topology::cost
