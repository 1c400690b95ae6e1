#include "launcher/backend.hpp"

#include <cstdio>

#include "launcher/backend_local.hpp"
#include "launcher/backend_remote.hpp"
#include "launcher/backend_slurm.hpp"

namespace mds::launcher {

Result<std::unique_ptr<AgentBackend>> make_backend(Backend kind, boost::asio::io_context& io,
                                                   const BackendOptions& options, AgentBackend::EndedHandler on_ended) {
  switch (kind) {
    case Backend::automatic:
    case Backend::local:
      return std::unique_ptr<AgentBackend>(std::make_unique<LocalBackend>(io, options, std::move(on_ended)));
    case Backend::ssh:
      return make_ssh_backend(io, options, std::move(on_ended));
    case Backend::mpi:
      return make_mpi_backend(io, options, std::move(on_ended));
    case Backend::slurm:
      return SlurmBackend::make(io, options, std::move(on_ended));
  }
  return internal("unknown back end");
}

const char* to_string(Backend kind) {
  switch (kind) {
    case Backend::automatic:
    case Backend::local:
      return "local";
    case Backend::ssh:
      return "ssh";
    case Backend::mpi:
      return "mpi";
    case Backend::slurm:
      return "slurm";
  }
  return "?";
}

std::string node_log_path(const std::string& run_folder, int node) {
  char name[32];
  std::snprintf(name, sizeof name, "/logs/node-%05d.log", node);
  return run_folder + name;
}

}  // namespace mds::launcher
