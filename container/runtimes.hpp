// Which container runtimes this node has, and which of them work: found by trying, never by a file's presence alone.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "container/command_line.hpp"
#include "container/container.hpp"
#include "container/session.hpp"

namespace mds::container {

/// This node as `runtime` needs to know it. `name` is unique among the node's containers. Errors: unavailable (its
/// program is not in PATH, with the package that has it).
Result<Host> find_runtime(Runtime runtime, const std::string& name);

struct Trial {
  Runtime runtime = Runtime::none;
  std::vector<std::string> runtime_options;  ///< those it was tried with, beyond the container's own
  bool works = false;
  std::string problem;                       ///< why not, with a remedy where one is known
  double seconds = 0;
};

/// Tries every runtime that can take this kind of image with a container that ends at once, each for `patience` at
/// most. `container.image` must be staged. Blocks.
std::vector<Trial> try_runtimes(const Container& container, std::chrono::milliseconds patience);

/// Starts `container`, whose image is staged; of "auto" the first runtime that works (apptainer, podman, charliecloud,
/// enroot, bubblewrap). Podman is tried with its defaults, then with runc and without systemd's cgroups. Blocks.
/// Errors: unavailable with what each runtime said.
Result<Session> start_container(const Container& container, const std::string& name,
                                std::chrono::milliseconds patience);

/// What to do about a runtime's complaint, "" where nothing is known ("user namespaces are switched off: ...").
std::string remedy_for(Runtime runtime, const std::string& complaint);

}  // namespace mds::container
