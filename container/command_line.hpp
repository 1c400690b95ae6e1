// A container as the argument list of its runtime. Pure; nothing is ever joined into a shell string.
#pragma once

#include <string>
#include <vector>

#include "container/container.hpp"

namespace mds::container {

/// What the argument list needs to know of the node.
struct Host {
  std::string runtime_program;    ///< absolute path of apptainer, podman, ch-run, ...
  unsigned long files_max = 0;    ///< hard limit of open files, 0 unknown (podman would ask for more than it may have)
  unsigned long processes_max = 0;
  std::string name;               ///< of this container on this node; for runtimes that name theirs
  bool has_cdi = false;           ///< GPUs are described for podman by CDI (nvidia-ctk cdi generate)
  std::string store;              ///< podman: folder in memory for its records, private to this user; "": its own place
  std::vector<std::string> devices;  ///< /dev/nvidia*, /dev/infiniband: for runtimes that are told each
};

/// What starts `program` inside: network, PID and IPC namespaces are the host's; the host's environment stays outside;
/// /dev/shm, /dev/infiniband and GPUs are the host's; limits are ours. Requires check() to have passed and a runtime
/// that is neither none nor automatic.
std::vector<std::string> command_line(const Container& container, const Host& host,
                                      const std::vector<std::string>& program);

/// What removes the container's traces when its processes were killed; empty where there are none.
std::vector<std::string> cleanup_command_line(const Container& container, const Host& host);

/// For people: quoted so that a shell would read the same arguments.
std::string shell_text(const std::vector<std::string>& arguments);

}  // namespace mds::container
