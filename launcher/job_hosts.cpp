// Resolving the machines of a job: its back end, and the host of every node.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "launcher/job_draft.hpp"
#include "launcher/node_networks.hpp"
#include "slurm/host_list.hpp"

namespace mds::launcher {
namespace {

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

// ["gpu[01-04]", "login"] to five names.
void expand_names(JobDraft& draft) {
  std::vector<std::string> names;
  for (const std::string& word : draft.job.hosts) {
    const auto hosts = slurm::expand_hosts(word);
    if (!hosts) return draft.report("job.hosts", "job.hosts: " + hosts.error().message);
    names.insert(names.end(), hosts->begin(), hosts->end());
  }
  draft.job.hosts = std::move(names);
}

// DeepSpeed's "worker-1@worker-2": the hosts that it names, which must be there.
std::vector<std::string> named_hosts(JobDraft& draft, const std::string& key, const std::string& text) {
  std::vector<std::string> names;
  std::istringstream parts(text);
  std::string part;
  while (std::getline(parts, part, '@')) {
    const std::string name = part.substr(0, part.find(':'));
    const auto& hosts = draft.job.hosts;
    if (name.size() != part.size()) {
      draft.report(key, key + " = \"" + text + "\": single slots of a host cannot be chosen; leave out \"" +
                            part.substr(name.size()) + "\" and set job.gpus_per_node");
    } else if (std::find(hosts.begin(), hosts.end(), name) == hosts.end()) {
      draft.report(key, key + " = \"" + text + "\" names " + name + ", which is not among job.hosts");
    }
    names.push_back(name);
  }
  return names;
}

void filter_names(JobDraft& draft) {
  Job& job = draft.job;
  if (!job.include.empty() && !job.exclude.empty()) {
    return draft.report("job.exclude", "job.include and job.exclude exclude each other; give one of them");
  }
  const bool includes = !job.include.empty();
  if (!includes && job.exclude.empty()) return;
  const auto names =
      includes ? named_hosts(draft, "job.include", job.include) : named_hosts(draft, "job.exclude", job.exclude);
  std::erase_if(job.hosts, [&](const std::string& host) {
    return (std::find(names.begin(), names.end(), host) != names.end()) != includes;
  });
  if (job.hosts.empty()) draft.report("job.hosts", "job.include or job.exclude leaves no host");
  job.include.clear();  // done: the resolved file has the hosts that are left
  job.exclude.clear();
}

void choose_backend(JobDraft& draft) {
  Job& job = draft.job;
  const bool elsewhere =
      std::any_of(job.hosts.begin(), job.hosts.end(), [](auto& host) { return !is_this_machine(host); });
  if (job.backend != Backend::automatic) return;
  job.backend = draft.surroundings.allocation ? Backend::slurm : elsewhere ? Backend::ssh : Backend::local;
  if (job.backend != Backend::local) {
    draft.note(draft.surroundings.allocation ? "job.backend = \"slurm\": this is a Slurm job"
                                             : "job.backend = \"ssh\": job.hosts names other machines");
  }
}

// What a run that goes on without some machines does not use any more.
void leave_lost(const JobDraft& draft, std::vector<std::string>& hosts) {
  std::erase_if(hosts, [&](const std::string& host) { return draft.surroundings.lost_hosts.count(host) != 0; });
}

void shrink(JobDraft& draft, int nodes) {
  draft.job.nodes = nodes;
  draft.note("job.nodes = " + std::to_string(nodes) + ": what is left after nodes were lost");
}

// In a Slurm job the nodes are those of the allocation, all of them if the file does not say how many.
void take_allocation(JobDraft& draft) {
  Job& job = draft.job;
  if (!draft.surroundings.allocation) return;  // checked or submitted from outside; run_job() refuses it
  const slurm::Allocation& allocation = *draft.surroundings.allocation;
  if (!job.hosts.empty()) {
    return draft.report("job.hosts",
                        "job.hosts has no meaning in a Slurm job, whose nodes Slurm has chosen; leave it out");
  }
  job.node_names = allocation.hosts;
  leave_lost(draft, job.node_names);
  // Lost nodes shift those behind them; which component a node belongs to then matters no more where there is but one.
  if (job.node_names.size() == allocation.hosts.size() || allocation.components.size() == 1) {
    job.components = allocation.components;
  }
  const int available = static_cast<int>(job.node_names.size());
  if (!draft.has("job.nodes")) {
    job.nodes = std::max(1, available - draft.spare_nodes());
    draft.note("job.nodes = " + std::to_string(job.nodes) + ": what the Slurm job has");
  } else if (!draft.surroundings.lost_hosts.empty() && job.nodes > available) {
    shrink(draft, available);
  } else if (!draft.is_bad("job.nodes") && job.nodes > available) {
    draft.report("job.nodes", "job.nodes = " + std::to_string(job.nodes) + ", but the Slurm job has " +
                                  std::to_string(available) + "; ask sbatch or salloc for more, or lower job.nodes");
  }
  const bool says_ranks = draft.has("job.gpus_per_node") || draft.has("job.ranks_per_node") || draft.has("job.devices");
  if (!says_ranks && allocation.gpus_per_node > 0) {
    job.ranks_per_node = allocation.gpus_per_node;
    job.device = topology::DeviceKind::cuda;
    draft.given_by_allocation = true;
    draft.note("job.gpus_per_node = " + std::to_string(allocation.gpus_per_node) + ": what the Slurm job has");
  }
}

void take_hosts(JobDraft& draft) {
  Job& job = draft.job;
  const bool needs_hosts = job.backend == Backend::ssh || job.backend == Backend::mpi;
  if (job.hosts.empty()) {
    if (needs_hosts) draft.report("job.backend", "job.backend needs job.hosts: a list of names, or a hostfile's path");
    return;
  }
  leave_lost(draft, job.hosts);
  const int hosts = static_cast<int>(job.hosts.size());
  if (!draft.has("job.nodes")) {
    job.nodes = std::max(1, hosts - draft.spare_nodes());
  } else if (!draft.surroundings.lost_hosts.empty() && hosts > 0 && job.nodes > hosts) {
    shrink(draft, hosts);
  } else if (!draft.is_bad("job.nodes") && hosts < job.nodes) {
    draft.report("job.hosts", "job.hosts lists " + std::to_string(hosts) +
                                  " for job.nodes = " + std::to_string(job.nodes) + "; add hosts or lower job.nodes");
  }
  if (needs_hosts) job.node_names = job.hosts;
  if (needs_hosts) return;
  for (const std::string& host : job.hosts) {
    if (is_this_machine(host)) continue;
    return draft.report("job.hosts", "job.backend = \"local\" cannot use " + host + "; use \"ssh\", or \"auto\"");
  }
}

void check_networks(JobDraft& draft) {
  const Job& job = draft.job;
  const auto wrong = [&](const std::string& why) { draft.report("job.netns", "job.netns = true " + why); };
  if (!job.netns || draft.any_bad({"job.netns", "job.nodes"})) return;
  if (job.backend != Backend::local) return wrong("is for the local back end; set job.backend = \"local\"");
  if (job.nodes > NodeNetworks::kNodesMax) {
    return wrong("is for at most " + std::to_string(NodeNetworks::kNodesMax) + " nodes; lower job.nodes");
  }
  if (job.metrics.web_port != 0 || job.metrics.prometheus_port != 0) {
    wrong("takes the launcher off the host's network, so nobody could reach metrics.web_port and "
          "metrics.prometheus_port; leave them 0");
  }
}

}  // namespace

void resolve_hosts(JobDraft& draft) {
  if (draft.has("job.hosts") && !draft.is_bad("job.hosts")) {
    if (draft.given.at("job.hosts")->node.text()) {
      read_hostfile(draft);
    } else {
      expand_names(draft);
    }
    if (draft.is_bad("job.hosts")) return;
    filter_names(draft);
  }
  if (draft.any_bad({"job.hosts", "job.backend", "job.include", "job.exclude"})) return;
  choose_backend(draft);
  check_networks(draft);
  if (draft.job.backend == Backend::slurm) return take_allocation(draft);
  take_hosts(draft);
}

}  // namespace mds::launcher
