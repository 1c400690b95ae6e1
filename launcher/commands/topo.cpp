// mdslaunch topo
#include <cstdio>
#include <nlohmann/json.hpp>

#include "launcher/commands/commands.hpp"
#include "launcher/commands/job_arguments.hpp"
#include "launcher/commands/sources.hpp"
#include "launcher/run.hpp"
#include "launcher/topo_text.hpp"
#include "topology/paths.hpp"
#include "topology/picture/device_tree.hpp"
#include "topology/picture/machine_svg.hpp"
#include "topology/read/discover.hpp"
#include "topology/read/read_machine.hpp"

namespace mds::launcher {
namespace {

Result<topology::Cluster> chosen_cluster(const Arguments& arguments) {
  if (arguments.has("input")) return open_sources(arguments.values("input"));
  Result<topology::Machine> machine = topology::discover_machine();
  if (!machine) return machine.error();
  return topology::Cluster{{*std::move(machine)}, {}};
}

/// A file of one machine, for programs that take no more than one.
Status write_machine(const topology::Cluster& cluster, const Arguments& arguments, const std::string& option,
                     Result<std::string> (*write)(const topology::Machine&)) {
  if (!arguments.has(option)) return {};
  const size_t kinds = topology::picture::machine_kinds(cluster).size();
  if (kinds != 1) {
    return bad_input("--" + option + " writes one machine, and there are " + std::to_string(kinds) +
                     " different ones: name one of them with --input");
  }
  const Result<std::string> text = write(cluster.nodes.front());
  if (!text) return text.error().within("--" + option);
  return write_text(arguments.value(option), *text);
}

Status write_files(const topology::Cluster& cluster, const Arguments& arguments) {
  if (arguments.has("svg")) {
    const std::string picture = topology::cluster_svg(cluster);
    if (Status written = write_text(arguments.value("svg"), picture); !written) return written;
  }
  if (Status written = write_machine(cluster, arguments, "write-nccl", topology::write_nccl_xml); !written)
    return written;
  return write_machine(cluster, arguments, "write-hwloc", topology::write_hwloc_xml);
}

nlohmann::json with_paths(const topology::Cluster& cluster) {
  nlohmann::json json = to_json(cluster);
  for (size_t i = 0; i < cluster.nodes.size(); ++i) {
    const topology::Machine& node = cluster.nodes[i];
    json["nodes"][i]["paths"] = to_json(topology::find_paths(node), node);
  }
  return json;
}

}  // namespace

int topo_command(const Arguments& arguments) {
  const Result<topology::Cluster> cluster = chosen_cluster(arguments);
  if (!cluster) return report_error(cluster.error());
  if (Status written = write_files(*cluster, arguments); !written) return report_error(written.error());
  if (arguments.has("json")) {
    std::printf("%s\n", with_paths(*cluster).dump(2).c_str());
  } else {
    std::fputs(topology_text(*cluster).c_str(), stdout);
  }
  return kExitFinished;
}

}  // namespace mds::launcher
