// Resolving what runs where: devices and the rank grid (job_hosts.cpp: the machines).
#include <algorithm>
#include <sstream>

#include "launcher/job_draft.hpp"
#include "launcher/job_nearest.hpp"
#include "launcher/job_values.hpp"
#include "topology/rank_grid.hpp"

namespace mds::launcher {
namespace {

constexpr int64_t kRanksMax = 1 << 20;

void resolve_devices(JobDraft& draft) {
  using topology::DeviceKind;
  Job& job = draft.job;
  const bool gpus = draft.has("job.gpus_per_node");
  const bool ranks = draft.has("job.ranks_per_node");
  if (!draft.has("job.devices")) job.device = gpus || draft.given_by_allocation ? DeviceKind::cuda : DeviceKind::cpu;
  if (draft.is_bad("job.devices")) return;
  const bool cuda = job.device == DeviceKind::cuda;
  job.trainer.cuda = cuda;
  if (draft.any_bad({"job.gpus_per_node", "job.ranks_per_node", "job.hosts"})) return;

  if (gpus && ranks) {
    draft.report("job.ranks_per_node",
                 "job.gpus_per_node and job.ranks_per_node exclude each other: a GPU job has one "
                 "rank a GPU; remove job.ranks_per_node");
  } else if (!cuda && gpus) {
    draft.report("job.gpus_per_node",
                 "job.gpus_per_node has no meaning with job.devices = \"cpu\"; use "
                 "job.ranks_per_node");
  } else if (cuda && ranks) {
    draft.report("job.ranks_per_node",
                 "job.ranks_per_node is for CPU jobs; with job.devices = \"cuda\" use "
                 "job.gpus_per_node");
  } else if (cuda && !gpus && job.hosts.empty() && !draft.given_by_allocation) {
    draft.report("job.devices", "job.devices = \"cuda\" needs job.gpus_per_node");
  } else if (!gpus && !ranks && !draft.has("job.devices") && job.payload.empty() && job.hosts.empty() &&
             !draft.given_by_allocation) {
    draft.report("job.gpus_per_node",
                 "[job] does not say what to run on: give gpus_per_node = N, or devices = \"cpu\" "
                 "with ranks_per_node = N");
  }
}

std::string grid_text(const trainer::ParallelConfig& parallel, bool with_data) {
  std::string names = "parallel.tensor x pipeline x context";
  std::string sizes = std::to_string(parallel.tensor) + " x " + std::to_string(parallel.pipeline) + " x " +
                      std::to_string(parallel.context);
  if (with_data) {
    names += " x data";
    sizes += " x " + std::to_string(parallel.data);
  }
  return names + " = " + sizes;
}

// The key of the grid that the user wrote, to point at.
std::string written_axis(const JobDraft& draft, bool with_data) {
  if (with_data) return "parallel.data";
  for (const char* path : {"parallel.tensor", "parallel.pipeline", "parallel.context"}) {
    if (draft.has(path)) return path;
  }
  return "parallel.tensor";
}

// Axes that say "auto" count as 1 until the machines are known (launcher/plan_cost_auto.hpp), and what is checked with
// them is checked then. False if an "auto" can never be settled.
bool note_open_axes(JobDraft& draft) {
  LeftOpen& open = draft.job.left_open;
  open.tensor = draft.is_open("parallel.tensor");
  open.pipeline = draft.is_open("parallel.pipeline");
  open.context = draft.is_open("parallel.context");
  open.sequence_parallel = draft.is_open("parallel.sequence_parallel") ||
                           (open.tensor && !draft.has("parallel.sequence_parallel"));
  open.data = open.layout() && !draft.has("parallel.data");
  if (!open.layout() && !open.sequence_parallel) return true;
  if (draft.sections.count("payload")) {
    draft.report("parallel.tensor", "\"auto\" under [parallel] needs a model to judge layouts by, and this job runs "
                                    "payload.command; give numbers");
    return false;
  }
  if (open.layout()) draft.bad.insert({"parallel.tensor", "parallel.pipeline", "parallel.data"});
  return true;
}

void resolve_grid(JobDraft& draft) {
  Job& job = draft.job;
  trainer::ParallelConfig& parallel = job.trainer.parallel;
  if (!draft.is_bad("parallel.order")) {
    const auto grid = topology::RankGrid::make(1, 1, 1, 1, parallel.order);
    if (!grid) draft.report("parallel.order", "parallel.order: " + grid.error().message);
  }
  const std::vector<std::string> inputs{"job.nodes",         "job.gpus_per_node", "job.ranks_per_node",
                                        "job.devices",       "job.hosts",         "parallel.tensor",
                                        "parallel.pipeline", "parallel.context",  "parallel.data"};
  if (draft.any_bad(inputs)) {
    draft.bad.insert("parallel.data");
    return;
  }
  if (!note_open_axes(draft)) return;
  const int64_t world = int64_t{job.nodes} * job.ranks_per_node;
  const std::string ranks = std::to_string(world) + " ranks (job.nodes = " + std::to_string(job.nodes) + " x " +
                            std::to_string(job.ranks_per_node) + " a node)";
  if (world > kRanksMax) return draft.report("job.nodes", "the job has " + ranks + ", more than 1048576");

  const bool with_data = draft.has("parallel.data");
  const double others = 1.0 * parallel.tensor * parallel.pipeline * parallel.context;  // up to 2^60: exact enough
  const double product = with_data ? others * parallel.data : others;
  const bool fits = product <= static_cast<double>(world) && world % static_cast<int64_t>(product) == 0;
  const bool whole = job.left_open.layout() || static_cast<int64_t>(product) == world;
  if (!fits || (with_data && !whole)) {
    draft.bad.insert("parallel.data");
    return draft.report(written_axis(draft, with_data), grid_text(parallel, with_data) + " does not make the job's " +
                                                            ranks + "; change job.nodes, ranks a node or [parallel]");
  }
  if (with_data || job.left_open.layout()) return;
  parallel.data = static_cast<int>(world / static_cast<int64_t>(product));
  draft.note("parallel.data = " + std::to_string(parallel.data) + ": the job has " + ranks + " and " +
             grid_text(parallel, false));
}

}  // namespace

Result<Hostfile> parse_hostfile(const std::string& text) {
  Hostfile out;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string host, slots, rest;
    words >> host >> slots >> rest;
    if (host.empty()) continue;
    int count = 0;
    if (!slots.empty()) {
      const std::string digits = slots.rfind("slots=", 0) == 0 ? slots.substr(6) : "";
      const bool valid =
          !digits.empty() && digits.size() <= 4 && digits.find_first_not_of("0123456789") == std::string::npos;
      count = valid ? std::stoi(digits) : 0;
    }
    if ((!slots.empty() && count == 0) || !rest.empty()) {
      return bad_input("line " + std::to_string(number) + " is not \"name slots=N\"");
    }
    if (!out.hosts.empty() && count != out.slots) {
      return bad_input("line " + std::to_string(number) +
                       " has other slots than the lines before; give every host the same");
    }
    out.slots = count;
    out.hosts.push_back(host);
  }
  if (out.hosts.empty()) return bad_input("no host in the hostfile");
  return out;
}

void resolve_ranks(JobDraft& draft) {
  resolve_hosts(draft);
  resolve_devices(draft);
  resolve_grid(draft);
}

}  // namespace mds::launcher
