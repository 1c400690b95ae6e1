#include "launcher/backend_slurm.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <csignal>
#include <fstream>
#include <utility>

namespace mds::launcher {

namespace {

/// {0, 1, 2, 5} as {0, 2}, {5, 5}.
std::vector<std::pair<int, int>> ranges(const std::vector<int>& nodes) {
  std::vector<std::pair<int, int>> out;
  for (const int node : nodes) {
    if (!out.empty() && out.back().second + 1 == node) {
      out.back().second = node;
    } else {
      out.emplace_back(node, node);
    }
  }
  return out;
}

std::string last_line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line, last;
  while (std::getline(file, line)) {
    if (!line.empty()) last = line;
  }
  return last;
}

slurm::Environment as_map(const std::vector<std::string>& entries) {
  slurm::Environment out;
  for (const std::string& entry : entries) {
    const size_t equals = entry.find('=');
    if (equals != std::string::npos) out[entry.substr(0, equals)] = entry.substr(equals + 1);
  }
  return out;
}

}  // namespace

Result<std::unique_ptr<AgentBackend>> SlurmBackend::make(boost::asio::io_context& io, const BackendOptions& options,
                                                         EndedHandler on_ended) {
  std::unique_ptr<SlurmBackend> backend(new SlurmBackend(io, options, std::move(on_ended)));
  const auto srun = program_in_path("srun");
  if (!srun) return srun.error().within("job.backend = \"slurm\"");
  backend->srun_ = *srun;
  return std::unique_ptr<AgentBackend>(std::move(backend));
}

/// A run that has ended in order leaves nothing to do but to wait. By TERM srun ends its tasks everywhere.
SlurmBackend::~SlurmBackend() {
  for (Group& group : groups_) {
    if (!group.child) continue;
    if (group.alive.empty()) group.child->wait(std::chrono::seconds(2));
    group.child->end_input();
    group.child->signal(SIGTERM);
    group.child->wait(std::chrono::seconds(5));
  }
}

Status SlurmBackend::start_agent(const agent::Bootstrap& bootstrap) {
  const int node = bootstrap.node;
  if (pending_.count(node) || group_of(node) != groups_.end()) {
    return internal("node " + std::to_string(node) + " has an agent already");
  }
  pending_.emplace(node, bootstrap);
  if (std::exchange(flush_posted_, true)) return {};
  boost::asio::post(io_, [this, alive = std::weak_ptr<int>(alive_)] {
    if (!alive.expired()) flush();
  });
  return {};
}

void SlurmBackend::flush() {
  flush_posted_ = false;
  while (!pending_.empty()) {  // a step has nodes of one component of a heterogeneous job only
    std::vector<int> nodes;
    for (const auto& [node, bootstrap] : pending_) {
      if (component_of(node) == component_of(pending_.begin()->first)) nodes.push_back(node);
    }
    start_group(nodes);
  }
}

size_t SlurmBackend::component_of(int node) const {
  const auto& components = options_.components;
  size_t n = 0;
  while (n + 1 < components.size() && node >= components[n + 1].first_node) ++n;
  return n;
}

ChildSpec SlurmBackend::srun(const std::vector<int>& nodes) const {
  slurm::StepSpec step;
  for (const int node : nodes) step.hosts.push_back(options_.hosts.at(static_cast<size_t>(node)));
  step.program = options_.agent_program;
  const std::string& copy = options_.agent_copy.path;
  if (!copy.empty()) step.copied_to = copy.substr(0, copy.rfind('/'));
  if (!options_.components.empty()) {
    const size_t component = component_of(nodes.front());
    step.gpus_per_node = options_.components[component].gpus_per_node;
    if (options_.components.size() > 1) step.component = static_cast<int>(component);
  }
  const std::vector<std::string> words = slurm::srun_arguments(step);
  ChildSpec spec;
  spec.argv = {srun_};
  spec.argv.insert(spec.argv.end(), words.begin(), words.end());
  for (const auto& [name, value] : slurm::srun_environment(as_map(own_environment()))) {
    spec.environment.push_back(name + "=" + value);
  }
  spec.keep_input_open = true;
  spec.log_path = log_path();
  return spec;
}

void SlurmBackend::start_group(const std::vector<int>& nodes) {
  agent::Bootstrap bootstrap = pending_.at(nodes.front());
  for (const int node : nodes) pending_.erase(node);
  const auto group = groups_.insert(groups_.end(), Group{{nodes.begin(), nodes.end()}, nullptr});
  const auto fail = [&](const Error& error) {
    for (const int node : nodes) end_later(node, "was not started: " + error.message);
  };
  ChildSpec spec = srun(nodes);
  bootstrap.node_from = "SLURM_PROCID";
  bootstrap.nodes = ranges(nodes);
  bootstrap.lifeline = true;
  spec.input = agent::to_line(bootstrap);
  if (spec.input.size() > agent::kBootstrapBytesMax) return fail(internal("the bootstrap line is too long"));
  auto child = Child::start(io_, spec, [this, group](const std::string& how) { end_group(group, how); });
  if (!child) return fail(child.error());
  group->child = std::move(*child);
}

/// Its program has ended, and with it every agent that it started.
void SlurmBackend::end_group(std::list<Group>::iterator group, const std::string& how) {
  const std::set<int> ended = std::move(group->alive);
  groups_.erase(group);
  const std::string last = last_line_of(log_path());
  std::string words = "ended with its srun, which " + how + (last.empty() ? "" : ": " + last);
  if (!any_joined_) words += why_nobody_came();
  for (const int node : ended) on_ended_(node, words);
}

/// Asked only now, as the answer takes a process and some milliseconds, and nearly always is the same.
std::string SlurmBackend::why_nobody_came() const {
  const auto text = output_of({srun_, "--version"});
  const Status known = text ? slurm::check_version(*text) : Status{};
  return known ? "" : " (" + known.error().message + ")";
}

void SlurmBackend::end_later(int node, const std::string& how) {
  const auto group = group_of(node);
  if (group == groups_.end()) return;
  group->alive.erase(node);
  if (group->alive.empty() && !group->child) groups_.erase(group);
  boost::asio::post(io_, [this, node, how, alive = std::weak_ptr<int>(alive_)] {
    if (!alive.expired()) on_ended_(node, how);
  });
}

void SlurmBackend::disconnected(int node) { end_later(node, "left its group"); }

/// An agent that shares its group with others is left to the node: it loses its connection, and the agent that takes
/// its place ends it. With the last one of a group the group's program ends.
void SlurmBackend::kill_agent(int node) {
  const auto group = group_of(node);
  if (group == groups_.end()) return;
  if (group->alive.size() > 1 || !group->child) return end_later(node, "was given up");
  group->child->end_input();
  group->child->signal(SIGTERM);
}

std::list<SlurmBackend::Group>::iterator SlurmBackend::group_of(int node) {
  return std::find_if(groups_.begin(), groups_.end(), [&](const Group& group) { return group.alive.count(node) != 0; });
}

std::string SlurmBackend::log_path() const { return options_.run_folder + "/logs/srun.log"; }

}  // namespace mds::launcher
