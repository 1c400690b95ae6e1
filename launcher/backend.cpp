#include "launcher/backend.hpp"

#include <cstdio>

#include "launcher/backend_local.hpp"

namespace mds::launcher {

Result<std::unique_ptr<AgentBackend>> make_backend(Backend kind, boost::asio::io_context& io,
                                                   const BackendOptions& options, AgentBackend::EndedHandler on_ended) {
  const auto missing = [](const std::string& name) {
    return bad_input("job.backend = \"" + name + "\" is not available yet; use \"local\" or \"auto\"");
  };
  switch (kind) {
    case Backend::automatic:
    case Backend::local:
      return std::unique_ptr<AgentBackend>(std::make_unique<LocalBackend>(io, options, std::move(on_ended)));
    case Backend::slurm: return missing("slurm");
    case Backend::mpi: return missing("mpi");
    case Backend::ssh: return missing("ssh");
  }
  return internal("unknown back end");
}

std::string node_log_path(const std::string& run_folder, int node) {
  char name[32];
  std::snprintf(name, sizeof name, "/logs/node-%05d.log", node);
  return run_folder + name;
}

}  // namespace mds::launcher
