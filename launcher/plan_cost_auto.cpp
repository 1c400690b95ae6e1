#include "launcher/plan_cost_auto.hpp"

#include <algorithm>
#include <cstdio>

#include "launcher/job_toml.hpp"
#include "launcher/plan_cost.hpp"
#include "launcher/plan_cost_text.hpp"

namespace mds::launcher {
namespace {

namespace cost = topology::cost;

constexpr size_t kNoted = 3;  // candidates that the notes compare

cost::Freedom freedom_of(const LeftOpen& open) {
  cost::Freedom freedom;
  freedom.tensor = open.tensor;
  freedom.sequence_parallel = open.sequence_parallel;
  freedom.pipeline = open.pipeline;
  freedom.data = open.data;
  freedom.micro_batch = open.micro_batch;
  return freedom;
}

std::string ranks_text(const cost::Machines& machines) {
  return std::to_string(int64_t{machines.nodes} * machines.ranks_per_node) + (machines.gpu ? " GPUs" : " ranks");
}

/// Why no layout is possible at all: the first of what must divide and does not.
std::string impossible_text(const Job& job, const cost::Machines& machines) {
  return "no layout of " + ranks_text(machines) + " suits the job: parallel.tensor must divide " +
         std::to_string(job.trainer.model.num_key_value_heads) +
         " key heads and the MLP, parallel.pipeline is at most " +
         std::to_string(job.trainer.model.num_layers) +
         " layers, and parallel.data x training.micro_batch_size must divide training.global_batch_size = " +
         std::to_string(job.trainer.training.global_batch_size);
}

void note_choice(Job& job, const cost::SearchResult& found, const cost::Machines& machines) {
  const cost::Candidate& best = found.best.front();
  std::string text = "layout: " + layout_text(best.work) + ", of " + std::to_string(found.considered) +
                     " possible and " + std::to_string(found.fitting) + " that fit: ";
  if (!machines.gpu) {
    text += "the most replicas that memory allows";
  } else if (!machines.rates_known) {
    text += "the fewest tensor, then pipeline ranks, as no rates of the device are known";
  } else {
    text += "the quickest, " + readable_seconds(best.seconds()) + " a step by the estimate";
  }
  job.notes.push_back(text);
  for (size_t i = 1; i < found.best.size() && i < kNoted && machines.rates_known; ++i) {
    const cost::Candidate& other = found.best[i];
    job.notes.push_back("next best: " + layout_text(other.work) + ", " + readable_seconds(other.seconds()) +
                        " a step, " + readable_bytes(other.memory.total()) + ", most of it " +
                        dominant_part(other.time).name);
  }
}

}  // namespace

Result<Job> settle_layout(Job job, const topology::Cluster& cluster) {
  if (!job.left_open.any() || !job.payload.empty() || cluster.nodes.empty()) return job;
  const cost::Machines machines = cost_machines(job, cluster);
  const cost::Work work = cost_work(job.trainer);
  const cost::SearchResult found = cost::search_layouts(work, machines, freedom_of(job.left_open), kNoted);
  if (found.best.empty()) return infeasible(impossible_text(job, machines));
  const cost::Candidate& best = found.best.front();
  // With nothing to spare is better than not at all: check_fits() draws the line.
  const auto needed = static_cast<double>(best.memory.total());
  if (!best.fits && machines.gpu && needed > static_cast<double>(machines.memory_bytes) * (1 + cost::kMemoryError)) {
    return infeasible("of " + std::to_string(found.considered) + " layouts of " + ranks_text(machines) +
                      " none fits; the leanest is " + layout_text(best.work) + ": " +
                      does_not_fit_text(job.trainer, best.work, machines));
  }
  job.trainer = with_layout(job.trainer, best.work);
  const auto problems = trainer::check(job.trainer);
  if (!problems.empty()) return bad_input("auto layout: " + problems.front().message);
  note_choice(job, found, machines);
  job.left_open = {};
  job.resolved_toml = resolved_toml(job);
  return job;
}

cost::SearchResult layout_candidates(const Job& job, const topology::Cluster& cluster, size_t keep, bool unreleased) {
  cost::Freedom all;
  all.tensor = all.sequence_parallel = all.pipeline = all.data = all.micro_batch = true;
  all.context = all.virtual_stages = unreleased;
  return cost::search_layouts(cost_work(job.trainer), cost_machines(job, cluster), all, keep);
}

std::string candidates_text(const cost::SearchResult& found, const cost::Machines& machines) {
  std::string text = std::to_string(found.considered) + " layouts of " + ranks_text(machines) + " are possible, " +
                     std::to_string(found.fitting) + " fit" + (found.best.empty() ? "\n" : "; the best:\n");
  for (const cost::Candidate& one : found.best) {
    char line[256];
    const bool timed = machines.rates_known;
    const NamedSeconds most = dominant_part(one.time);
    std::snprintf(line, sizeof line, "  %9s  %10s  %s%s%s%s\n", timed ? readable_seconds(one.seconds()).c_str() : "-",
                  readable_bytes(one.memory.total()).c_str(), layout_text(one.work).c_str(),
                  one.fits ? "" : " (does not fit)", timed ? ": mostly " : "", timed ? most.name : "");
    text += line;
  }
  return text;
}

}  // namespace mds::launcher
