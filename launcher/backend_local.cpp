#include "launcher/backend_local.hpp"

namespace mds::launcher {

Status LocalBackend::start_agent(const agent::Bootstrap& bootstrap) {
  const int node = bootstrap.node;
  if (agents_.count(node)) return internal("node " + std::to_string(node) + " has an agent already");
  const ChildSpec spec{.argv = {options_.agent_program},
                       .environment = own_environment(),
                       .input = agent::to_line(bootstrap),
                       .log_path = node_log_path(options_.run_folder, node)};
  const auto start = [&]() -> Status {
    auto child = Child::start(io_, spec, [this, node](const std::string& how) {
      agents_.erase(node);
      on_ended_(node, how);
    });
    if (!child) return child.error();
    agents_[node] = std::move(*child);
    return {};
  };
  return options_.networks ? options_.networks->inside(node, start) : start();
}

void LocalBackend::kill_agent(int node) {
  if (const auto it = agents_.find(node); it != agents_.end()) it->second->kill_tree();
}

}  // namespace mds::launcher
