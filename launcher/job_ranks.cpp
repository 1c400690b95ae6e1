// Resolving what runs where: devices, hosts, nodes and the rank grid.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "launcher/job_draft.hpp"
#include "launcher/job_nearest.hpp"
#include "launcher/job_values.hpp"
#include "topology/rank_grid.hpp"

namespace mds::launcher {
namespace {

constexpr int64_t kRanksMax = 1 << 20;
constexpr int64_t kHostfileBytesMax = 1 << 20;

bool is_this_machine(const std::string& host) {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return host == "localhost" || host == "127.0.0.1" || host == name.data();
}

// job.hosts = "file": a hostfile, whose slots stand for ranks_per_node or gpus_per_node.
void read_hostfile(JobDraft& draft) {
  namespace fs = std::filesystem;
  fs::path path = draft.job.hosts.front();
  if (path.is_relative() && !draft.from_set("job.hosts")) path = fs::path(draft.file).parent_path() / path;
  std::error_code error;
  const bool readable = fs::is_regular_file(path, error) && fs::file_size(path, error) <= kHostfileBytesMax;
  std::ifstream in(path);
  if (!readable || !in) {
    return draft.report("job.hosts", "job.hosts: cannot read the hostfile " + path.string() +
                                         "; a string is a hostfile's path, a list names hosts: [\"name\"]");
  }
  std::stringstream text;
  text << in.rdbuf();
  const Result<Hostfile> hostfile = parse_hostfile(text.str());
  if (!hostfile) return draft.report("job.hosts", "job.hosts: " + path.string() + ": " + hostfile.error().message);
  draft.job.hosts = hostfile->hosts;
  if (hostfile->slots != 0 && !draft.has("job.gpus_per_node") && !draft.has("job.ranks_per_node")) {
    draft.job.ranks_per_node = hostfile->slots;
    draft.note("ranks per node = " + std::to_string(hostfile->slots) + ": the hostfile's slots");
  }
}

void resolve_hosts(JobDraft& draft) {
  Job& job = draft.job;
  if (job.backend == Backend::automatic) job.backend = Backend::local;
  if (!draft.has("job.hosts") || draft.is_bad("job.hosts")) return;
  if (draft.given.at("job.hosts")->node.text()) read_hostfile(draft);
  if (draft.is_bad("job.hosts")) return;
  for (const std::string& host : job.hosts) {
    if (is_this_machine(host)) continue;
    return draft.report("job.hosts",
                        "not available yet in this version: other machines than this one in job.hosts (\"" + host +
                            "\"); leave job.hosts out for virtual nodes of this machine");
  }
  const int hosts = static_cast<int>(job.hosts.size());
  if (!draft.has("job.nodes")) {
    job.nodes = std::max(1, hosts);
  } else if (!draft.is_bad("job.nodes") && hosts != 0 && hosts < job.nodes) {
    draft.report("job.hosts", "job.hosts lists " + std::to_string(hosts) +
                                  " for job.nodes = " + std::to_string(job.nodes) + "; add hosts or lower job.nodes");
  }
}

void resolve_devices(JobDraft& draft) {
  using topology::DeviceKind;
  Job& job = draft.job;
  const bool gpus = draft.has("job.gpus_per_node");
  const bool ranks = draft.has("job.ranks_per_node");
  if (!draft.has("job.devices")) job.device = gpus ? DeviceKind::cuda : DeviceKind::cpu;
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
  } else if (cuda && !gpus && job.hosts.empty()) {
    draft.report("job.devices", "job.devices = \"cuda\" needs job.gpus_per_node");
  } else if (!gpus && !ranks && !draft.has("job.devices") && job.payload.empty() && job.hosts.empty()) {
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
  const int64_t world = int64_t{job.nodes} * job.ranks_per_node;
  const std::string ranks = std::to_string(world) + " ranks (job.nodes = " + std::to_string(job.nodes) + " x " +
                            std::to_string(job.ranks_per_node) + " a node)";
  if (world > kRanksMax) return draft.report("job.nodes", "the job has " + ranks + ", more than 1048576");

  const bool with_data = draft.has("parallel.data");
  const double others = 1.0 * parallel.tensor * parallel.pipeline * parallel.context;  // up to 2^60: exact enough
  const double product = with_data ? others * parallel.data : others;
  const bool fits = product <= static_cast<double>(world) && world % static_cast<int64_t>(product) == 0;
  if (!fits || (with_data && static_cast<int64_t>(product) != world)) {
    draft.bad.insert("parallel.data");
    return draft.report(written_axis(draft, with_data), grid_text(parallel, with_data) + " does not make the job's " +
                                                            ranks + "; change job.nodes, ranks a node or [parallel]");
  }
  if (with_data) return;
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
