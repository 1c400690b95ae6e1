#include "launcher/commands/sources.hpp"

#include <cstdio>

#include "topology/read/open_topology.hpp"

namespace mds::launcher {

Result<topology::Cluster> open_sources(const std::vector<std::string>& sources) {
  std::vector<std::string> notes;
  Result<topology::Cluster> cluster = topology::open_topologies(sources, &notes);
  for (const std::string& note : notes) std::fprintf(stderr, "mdslaunch: note: %s\n", note.c_str());
  return cluster;
}

}  // namespace mds::launcher
