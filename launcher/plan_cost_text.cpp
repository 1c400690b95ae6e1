#include "launcher/plan_cost_text.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "launcher/job_nearest.hpp"
#include "launcher/plan_cost.hpp"

namespace mds::launcher {
namespace {

namespace cost = topology::cost;

template <typename... Values>
std::string formatted(const char* format, Values... values) {
  char text[160];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

// 18808 as "18,808".
std::string grouped(double number) {
  std::string text = std::to_string(static_cast<int64_t>(number + 0.5));
  for (size_t digits = text.size(); digits > 3; digits -= 3) text.insert(digits - 3, ",");
  return text;
}

std::string remedy_text(const cost::Work& work, const cost::Candidate& remedy) {
  std::string text = join_names(changed_keys(work, remedy.work), " ") + " (" + readable_bytes(remedy.memory.total());
  if (remedy.seconds() > 0) text += ", " + readable_seconds(remedy.seconds()) + " a step";
  return text + ")";
}

std::string remedies_text(const cost::Work& work, const std::vector<cost::Candidate>& remedies) {
  std::vector<std::string> texts;
  for (const cost::Candidate& remedy : remedies) texts.push_back(remedy_text(work, remedy));
  return join_names(texts, "; or ");
}

const char* word(cost::Recompute recompute) {
  return recompute == cost::Recompute::none ? "none" : recompute == cost::Recompute::full ? "full" : "selective";
}

std::string memory_text(const PlanCost& cost) {
  const cost::Memory& m = cost.most();
  std::string text = "memory of the fullest rank (an estimate): " + readable_bytes(m.total());
  if (cost.machines.memory_bytes != 0) {
    text += " of " + readable_bytes(static_cast<int64_t>(cost.machines.memory_bytes));
  }
  if (cost.stages.size() > 1) text += ", stage " + std::to_string(cost.fullest);
  text += "\n";
  const std::pair<const char*, int64_t> parts[] = {
      {"parameters", m.parameters}, {"gradients", m.gradients}, {"optimizer", m.optimizer},
      {"activations", m.activations}, {"buffers", m.buffers},     {"driver and NCCL", m.runtime},
      {"on the host", m.host},      {"on NVMe", m.nvme}};
  for (const auto& [name, bytes] : parts) {
    if (bytes != 0) text += formatted("  %-18s %s\n", name, readable_bytes(bytes).c_str());
  }
  return text;
}

}  // namespace

std::string readable_bytes(int64_t bytes) {
  const bool large = bytes >= 1 << 30;
  return formatted("%.1f %s", static_cast<double>(bytes) / (large ? 1 << 30 : 1 << 20), large ? "GiB" : "MiB");
}

std::string readable_seconds(double seconds) {
  return seconds >= 1 ? formatted("%.2f s", seconds) : formatted("%.1f ms", 1e3 * seconds);
}

std::string layout_text(const cost::Work& work) {
  const cost::Layout& l = work.layout;
  std::string text = "tensor " + std::to_string(l.tensor);
  if (l.sequence_parallel) text += " with sequence parallel";
  if (l.context > 1) text += ", context " + std::to_string(l.context);
  text += ", pipeline " + std::to_string(l.pipeline);
  if (l.virtual_stages > 1) text += " of " + std::to_string(l.virtual_stages) + " chunks";
  return text + ", data " + std::to_string(l.data) + ", micro batch " + std::to_string(work.micro_batch);
}

std::vector<std::string> changed_keys(const cost::Work& from, const cost::Work& to) {
  std::vector<std::string> keys;
  const auto changed = [&](const char* key, const auto& before, const auto& after, const std::string& value) {
    if (before != after) keys.push_back(std::string(key) + "=" + value);
  };
  const cost::Layout &a = from.layout, &b = to.layout;
  changed("training.recompute", from.recompute, to.recompute, word(to.recompute));
  changed("parallel.sequence_parallel", a.sequence_parallel, b.sequence_parallel,
          b.sequence_parallel ? "true" : "false");
  changed("parallel.tensor", a.tensor, b.tensor, std::to_string(b.tensor));
  changed("parallel.pipeline", a.pipeline, b.pipeline, std::to_string(b.pipeline));
  changed("zero.stage", from.zero_stage, to.zero_stage, std::to_string(to.zero_stage));
  changed("training.micro_batch_size", from.micro_batch, to.micro_batch, std::to_string(to.micro_batch));
  changed("zero.offload_optimizer", from.offload_optimizer, to.offload_optimizer, "cpu");
  return keys;
}

std::string does_not_fit_text(const trainer::TrainerConfig& config, const cost::Work& work,
                              const cost::Machines& machines) {
  constexpr size_t kShown = 3;
  const cost::FullestStage fullest = cost::fullest_stage(work, machines.gpu);
  const cost::Memory& m = fullest.memory;
  std::string text = "the job does not fit: a rank of stage " + std::to_string(fullest.stage) + " would need about " +
                     readable_bytes(m.total()) + " (parameters " + readable_bytes(m.parameters) + ", gradients " +
                     readable_bytes(m.gradients) + ", optimizer " + readable_bytes(m.optimizer) + ", activations " +
                     readable_bytes(m.activations) + ", buffers " + readable_bytes(m.buffers + m.runtime) + ") of " +
                     readable_bytes(static_cast<int64_t>(machines.memory_bytes)) + " on " + machines.device.name;
  const auto runs = [&](const cost::Work& changed) { return can_run(config, changed); };
  const auto available = cost::what_would_fit(work, machines, runs, kShown);
  const auto any = cost::what_would_fit(work, machines, [](const cost::Work&) { return true; }, kShown);
  if (!available.empty()) text += "; it would fit with " + remedies_text(work, available);
  const bool shorter = !any.empty() && (available.empty() || cost::changes(work, any.front().work) <
                                                                 cost::changes(work, available.front().work));
  if (shorter) text += "; once this version can do it, with " + remedies_text(work, any);
  if (available.empty() && any.empty()) text += "; no other layout of these ranks fits either: use more or larger GPUs";
  return text;
}

std::vector<NamedSeconds> step_parts(const cost::StepTime& s) {
  return {{"matrix", "matrix products", s.matrix},
          {"attention", "attention", s.attention},
          {"elementwise", "norms, activations, loss", s.elementwise},
          {"recompute", "recomputation", s.recompute},
          {"tensor", "tensor-parallel traffic", s.tensor},
          {"context", "context-parallel traffic", s.context},
          {"pipeline", "pipeline traffic", s.pipeline},
          {"bubble", "pipeline bubble", s.bubble},
          {"data", "data-parallel traffic", s.data},
          {"optimizer", "optimizer", s.optimizer},
          {"offload", "offload", s.offload}};
}

NamedSeconds dominant_part(const cost::StepTime& step) {
  const auto parts = step_parts(step);
  return *std::max_element(parts.begin(), parts.end(), [](auto& a, auto& b) { return a.seconds < b.seconds; });
}

nlohmann::json memory_json(const cost::Memory& m) {
  return {{"parameters", m.parameters}, {"gradients", m.gradients}, {"optimizer", m.optimizer},
          {"activations", m.activations}, {"buffers", m.buffers},   {"runtime", m.runtime},
          {"tensors", m.tensors()},     {"total", m.total()},       {"host", m.host},
          {"nvme", m.nvme}};
}

nlohmann::json step_time_json(const PlanCost& cost) {
  if (!cost.step) return nullptr;
  nlohmann::json out{{"total", cost.step->total()},
                     {"tokens_per_second", cost.tokens_per_second()},
                     {"mfu", cost.model_flops_utilization()},
                     {"dominant", dominant_part(*cost.step).key}};
  for (const NamedSeconds& part : step_parts(*cost.step)) out[part.key] = part.seconds;
  return out;
}

std::vector<std::string> cost_reasons(const PlanCost& cost) {
  std::vector<std::string> out = cost.machines.notes;
  const cost::Memory& m = cost.most();
  const auto available = static_cast<int64_t>(cost.machines.memory_bytes);
  if (cost.machines.gpu && available != 0 && m.total() > available) {
    out.push_back("memory is tight: the estimate of " + readable_bytes(m.total()) + " is above the " +
                  readable_bytes(available) + " there are, but by less than it may be off (5 %)");
  }
  if (cost.machines.host_bytes != 0 && m.host > static_cast<int64_t>(cost.machines.host_bytes)) {
    out.push_back("what is offloaded takes " + readable_bytes(m.host) + " a rank on the host, which has " +
                  readable_bytes(static_cast<int64_t>(cost.machines.host_bytes)) + " for it");
  }
  if (cost.step) {
    const NamedSeconds most = dominant_part(*cost.step);
    const double share = 100 * most.seconds / cost.step->total();
    out.push_back(formatted("what a step takes longest for: %s, %.0f %% by the estimate", most.name, share));
  }
  return out;
}

std::string cost_text(const PlanCost& cost) {
  std::string text = memory_text(cost);
  if (!cost.step) {
    return text + "step time: unknown; " +
           (cost.machines.notes.empty() ? "no rates are known of this device" : cost.machines.notes.back()) + "\n";
  }
  const cost::StepTime& step = *cost.step;
  const double ranks = static_cast<double>(cost.work.layout.ranks());
  text += "step time (an estimate): " + readable_seconds(step.total()) + ", " + grouped(cost.tokens_per_second()) +
          " tokens/s (" + grouped(cost.tokens_per_second() / ranks) + " a rank)";
  if (cost.machines.gpu) text += formatted(", MFU %.1f %%", 100 * cost.model_flops_utilization());
  text += "\n";
  const char* dominant = dominant_part(step).key;
  for (const NamedSeconds& part : step_parts(step)) {
    const double share = 100 * part.seconds / step.total();
    if (share < 0.05) continue;
    text += formatted("  %-26s %9s %5.1f %%%s\n", part.name, readable_seconds(part.seconds).c_str(), share,
                      part.key == dominant ? "  <- dominates" : "");
  }
  return text;
}

}  // namespace mds::launcher
