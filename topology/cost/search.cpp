#include "topology/cost/search.hpp"

#include <algorithm>
#include <tuple>

namespace mds::topology::cost {
namespace {

// More tokens in one pass gain nothing: matrix products are at full speed long before.
constexpr int64_t kTokensMax = 65536;

std::vector<int> divisors(int64_t n, int64_t most) {
  std::vector<int> out;
  for (int64_t d = 1; d <= std::min(n, most); ++d) {
    if (n % d == 0) out.push_back(static_cast<int>(d));
  }
  return out;
}

std::vector<int> choices(bool free, int64_t n, int64_t most, int fixed) {
  return free ? divisors(n, most) : std::vector<int>{fixed};
}

bool heads_divide(const ModelShape& m, int tensor) {
  return m.heads % tensor == 0 && m.key_value_heads % tensor == 0 && m.intermediate % tensor == 0 &&
         m.vocabulary >= tensor;
}

Candidate weigh(const Work& work, const Machines& machines) {
  Candidate out;
  out.work = work;
  const FullestStage fullest = fullest_stage(work, machines.gpu);
  out.memory = fullest.memory;
  out.stage = fullest.stage;
  const double needed = static_cast<double>(fullest.memory.total()) * (1 + kMemoryError);
  out.fits = machines.memory_bytes == 0 || needed <= static_cast<double>(machines.memory_bytes);
  if (machines.gpu && machines.host_bytes != 0) {
    out.fits = out.fits && static_cast<uint64_t>(fullest.memory.host) <= machines.host_bytes;
  }
  return out;
}

void take_time(Candidate& candidate, const Machines& machines) {
  if (machines.rates_known) candidate.time = estimate_step(candidate.work, machines);
}

bool better(const Candidate& a, const Candidate& b, bool gpu) {
  const auto key = [gpu](const Candidate& c) {
    const Layout& l = c.work.layout;
    const double seconds = c.fits ? c.seconds() : static_cast<double>(c.memory.total());
    return std::make_tuple(!c.fits, gpu ? 0 : -l.data, seconds, l.tensor, l.pipeline, l.context, l.virtual_stages,
                           c.seconds() > 0 ? -c.work.micro_batch : c.work.micro_batch);
  };
  return key(a) < key(b);
}

/// Walks through all layouts and keeps those that are possible.
class Walk {
 public:
  Walk(const Work& work, const Machines& machines, const Freedom& freedom)
      : base_(work), machines_(machines), freedom_(freedom), ranks_(int64_t{machines.nodes} * machines.ranks_per_node) {
  }

  std::vector<Candidate> run(int64_t tensor_max) {
    const Layout& l = base_.layout;
    for (const int tensor : choices(freedom_.tensor, ranks_, tensor_max, l.tensor)) {
      if (ranks_ % tensor != 0 || !heads_divide(base_.model, tensor)) continue;
      const int64_t behind_tensor = ranks_ / tensor;
      for (const int context : choices(freedom_.context, behind_tensor, base_.seq_len, l.context)) {
        if (behind_tensor % context != 0 || base_.seq_len % (2 * context) != 0) continue;
        pipelines(tensor, context, behind_tensor / context);
      }
    }
    return std::move(found_);
  }

 private:
  void pipelines(int tensor, int context, int64_t left) {
    const Layout& l = base_.layout;
    for (const int pipeline : choices(freedom_.pipeline, left, base_.model.layers, l.pipeline)) {
      if (left % pipeline != 0 || pipeline > base_.model.layers) continue;
      const int64_t data = left / pipeline;
      if (!freedom_.data && data != l.data) continue;
      if (base_.global_batch % data != 0) continue;
      Work work = base_;
      work.layout.tensor = tensor;
      work.layout.context = context;
      work.layout.pipeline = pipeline;
      work.layout.data = static_cast<int>(data);
      if (freedom_.sequence_parallel) work.layout.sequence_parallel = tensor > 1;
      if (tensor == 1) work.layout.sequence_parallel = false;
      if (work.layout.sequence_parallel && base_.seq_len / context % tensor != 0) {
        if (!freedom_.sequence_parallel) continue;
        work.layout.sequence_parallel = false;
      }
      micro_batches(work, base_.global_batch / data);
    }
  }

  void micro_batches(Work work, int64_t share) {
    const int64_t most = std::max<int64_t>(1, kTokensMax / std::max<int64_t>(1, work.seq_len / work.layout.context));
    const auto fixed = static_cast<int>(base_.micro_batch);
    for (const int micro_batch : choices(freedom_.micro_batch, share, most, fixed)) {
      if (share % micro_batch != 0) continue;
      work.micro_batch = micro_batch;
      found_.push_back(weigh(work, machines_));
      if (!freedom_.virtual_stages || work.layout.pipeline == 1) continue;
      if (share / micro_batch % work.layout.pipeline != 0) continue;  // the schedule goes in rounds of p micro batches
      Work chunked = work;
      chunked.layout.schedule = Schedule::interleaved;
      for (const int v : divisors(work.model.layers / work.layout.pipeline, 16)) {
        if (v == 1 || work.model.layers % (int64_t{work.layout.pipeline} * v) != 0) continue;
        chunked.layout.virtual_stages = v;
        found_.push_back(weigh(chunked, machines_));
      }
    }
  }

  const Work& base_;
  const Machines& machines_;
  const Freedom& freedom_;
  int64_t ranks_;
  std::vector<Candidate> found_;
};

std::vector<Candidate> all_layouts(const Work& work, const Machines& machines, const Freedom& freedom) {
  const auto fits = [](const Candidate& c) { return c.fits; };
  std::vector<Candidate> found = Walk(work, machines, freedom).run(machines.domain);
  if (freedom.tensor && std::none_of(found.begin(), found.end(), fits)) {
    std::vector<Candidate> wider = Walk(work, machines, freedom).run(work.model.heads);
    if (std::any_of(wider.begin(), wider.end(), fits) || found.empty()) return wider;
  }
  return found;
}

}  // namespace

SearchResult search_layouts(const Work& work, const Machines& machines, const Freedom& freedom, size_t keep) {
  std::vector<Candidate> found = all_layouts(work, machines, freedom);
  SearchResult out;
  out.considered = found.size();
  const auto middle = std::partition(found.begin(), found.end(), [](const Candidate& c) { return c.fits; });
  out.fitting = static_cast<size_t>(middle - found.begin());
  if (out.fitting > 0) found.erase(middle, found.end());
  for (Candidate& candidate : found) take_time(candidate, machines);
  const size_t shown = std::min(keep, found.size());
  std::partial_sort(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(shown), found.end(),
                    [&](const Candidate& a, const Candidate& b) { return better(a, b, machines.gpu); });
  found.resize(shown);
  out.best = std::move(found);
  return out;
}

bool is_possible(const Work& work, const Machines& machines) {
  const Layout& l = work.layout;
  const int64_t ranks = int64_t{machines.nodes} * machines.ranks_per_node;
  if (l.ranks() != ranks || !heads_divide(work.model, l.tensor)) return false;
  if (l.pipeline > work.model.layers || work.global_batch % (l.data * work.micro_batch) != 0) return false;
  return !l.sequence_parallel || (l.tensor > 1 && work.seq_len / l.context % l.tensor == 0);
}

Candidate judge(const Work& work, const Machines& machines) {
  Candidate out = weigh(work, machines);
  take_time(out, machines);
  return out;
}

int changes(const Work& a, const Work& b) {
  const Layout &x = a.layout, &y = b.layout;
  return (a.recompute != b.recompute) + (x.sequence_parallel != y.sequence_parallel) + (x.tensor != y.tensor) +
         (x.pipeline != y.pipeline) + (a.zero_stage != b.zero_stage) + (a.micro_batch != b.micro_batch) +
         (a.offload_optimizer != b.offload_optimizer);
}

std::vector<Candidate> what_would_fit(const Work& work, const Machines& machines,
                                      const std::function<bool(const Work&)>& allowed, size_t keep) {
  std::vector<Candidate> fitting;
  int fewest = 3;  // more changes at once are another job
  const auto consider = [&](const Work& changed) {
    const int count = changes(work, changed);
    if (count == 0 || count > fewest || !is_possible(changed, machines)) return;
    Candidate candidate = weigh(changed, machines);
    if (!candidate.fits || !allowed(changed)) return;
    if (count < fewest) fitting.clear();
    fewest = count;
    fitting.push_back(candidate);
  };
  const int64_t replicas = work.layout.data;
  for (const int wider : divisors(replicas, std::max(1, machines.domain / work.layout.tensor))) {
    for (const int deeper : divisors(replicas / wider, work.model.layers)) {
      Work w = work;
      w.layout.tensor *= wider;
      w.layout.pipeline *= deeper;
      w.layout.data = static_cast<int>(replicas / wider / deeper);
      if (w.global_batch % w.layout.data != 0) continue;
      for (const int micro_batch : divisors(work.micro_batch, work.micro_batch)) {
        w.micro_batch = micro_batch;
        for (int recompute = static_cast<int>(work.recompute); recompute <= 2; ++recompute) {
          w.recompute = static_cast<Recompute>(recompute);
          for (w.zero_stage = work.zero_stage; w.zero_stage <= 3; ++w.zero_stage) {
            for (const bool parallel : {work.layout.sequence_parallel, true}) {
              w.layout.sequence_parallel = parallel;
              for (const Offload offload : {work.offload_optimizer, Offload::cpu}) {
                w.offload_optimizer = offload;
                consider(w);
                if (offload == Offload::cpu) break;
              }
              if (parallel) break;
            }
          }
        }
      }
    }
  }
  for (Candidate& candidate : fitting) take_time(candidate, machines);
  std::sort(fitting.begin(), fitting.end(), [&](auto& a, auto& b) { return better(a, b, true); });
  if (fitting.size() > keep) fitting.resize(keep);
  return fitting;
}

}  // namespace mds::topology::cost
