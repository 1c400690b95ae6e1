#include "topology/read/open_topology.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <map>
#include <set>

#include "topology/fabric/natural_order.hpp"
#include "topology/fabric/node_groups.hpp"
#include "topology/fabric/read_fabric.hpp"
#include "topology/read/open_topology_files.hpp"
#include "topology/read/read_machine.hpp"
#include "topology/read/synthetic.hpp"

namespace mds::topology {
namespace {

namespace fs = std::filesystem;

/// Puts sources together.
class Gatherer {
 public:
  Status add(const std::string& source) {
    std::error_code failed;
    if (fs::is_directory(source, failed)) return add_folder(source);
    if (fs::exists(source, failed)) return add_file(source);
    const auto parts = split_source(source);
    if (parts && fs::exists(parts->name, failed)) return add_repeated(*parts);
    auto cluster = synthetic_cluster(source);
    if (!cluster) return cluster.error().within("there is no such file or folder");
    add_made(*std::move(cluster));
    return {};
  }

  Result<Cluster> finish() {
    if (nodes_.empty()) {
      return bad_input("switches, but no machines: give those, too, for example --topology \"dgx-h100 x" +
                       std::to_string(std::max<size_t>(1, fabrics_.empty() ? 1 : hosts_of(fabrics_.front()).size())) +
                       "\"");
    }
    Cluster cluster{std::move(nodes_), {}};
    auto fabric = fabrics_.size() == 1 ? Result<Fabric>(fabrics_.front()) : merge(fabrics_);
    if (!fabric) return fabric.error();
    cluster.fabric = *std::move(fabric);
    if (const Status fitted = fit_fabric(cluster); !fitted) return fitted.error();
    return cluster;
  }

  const std::vector<std::string>& notes() const { return notes_; }

 private:
  Status add_file(const fs::path& path) {
    auto recording = read_recording(path);
    if (!recording) return recording.error();
    add_recorded(*std::move(recording), path);
    return {};
  }

  void add_recorded(Recording recording, const fs::path& path) {
    for (const std::string& note : recording.notes) notes_.push_back(path.string() + ": " + note);
    made_ = made_ && recording.nodes.empty();
    if (!recording.fabric.empty()) fabrics_.push_back(std::move(recording.fabric));
    const bool single = recording.nodes.size() == 1;
    for (Machine& node : recording.nodes) {
      const auto known = recorded_.find(node.host);
      if (single && known != recorded_.end()) {
        if (is_another_view(known->second, recording.format, path)) {
          notes_.push_back(path.string() + " adds to what is known of " + node.host + " already");
          fill_in(nodes_[known->second.node], node);
          continue;
        }
        notes_.push_back(path.string() + " says it is of " + node.host +
                         ", as a file of the same format does: taken for " + "another node, " + host_of_file(path));
        node.host = host_of_file(path);
      }
      recorded_.try_emplace(node.host, Known{nodes_.size(), {recording.format}});
      nodes_.push_back(std::move(node));
    }
  }

  struct Known {
    size_t node;                        // index into nodes_
    std::set<RecordingFormat> formats;  // in which it is known
  };

  /// hwloc and NCCL show one machine from two sides. Two files of one format are of two machines, even if both name the
  /// same host inside (an image copied to all nodes does that), as long as their own names tell them apart.
  bool is_another_view(Known& known, RecordingFormat format, const fs::path& path) const {
    return known.formats.insert(format).second || recorded_.contains(host_of_file(path));
  }

  Status add_folder(const fs::path& folder) {
    auto files = read_folder(folder, notes_);
    if (!files) return files.error();
    for (auto& [path, recording] : *files) add_recorded(std::move(recording), path);
    return {};
  }

  /// "FILE xN fabric:..."
  Status add_repeated(const SourceName& parts) {
    std::error_code failed;
    if (fs::is_directory(parts.name, failed)) {
      return bad_input(parts.name + " is a folder: only a file of one machine can be repeated or given a fabric");
    }
    const auto recording = read_recording(parts.name);
    if (!recording) return recording.error();
    const std::string stem = host_of_file(parts.name);
    if (recording->nodes.size() != 1) {
      return bad_input(parts.name + " holds " + std::to_string(recording->nodes.size()) +
                       " machines: only a file of one machine can be repeated or given a fabric");
    }
    Cluster cluster;
    cluster.nodes.assign(parts.count, recording->nodes.front());
    for (int node = 0; node < parts.count && parts.counted; ++node) {
      char number[32];
      std::snprintf(number, sizeof number, "-%04d", node);
      Machine& own = cluster.nodes[node];
      own.host = stem + number;
      for (Gpu& gpu : own.gpus) gpu.uuid.clear();  // a UUID is one GPU's
    }
    if (parts.has_fabric) {
      const Status added = add_synthetic_fabric(cluster, parts.fabric);
      if (!added) return added.error().within(parts.name);
    }
    add_made(std::move(cluster));
    return {};
  }

  /// Machines that are nobody's: given twice, they are others.
  void add_made(Cluster cluster) {
    std::set<std::string> hosts;
    for (const Machine& node : nodes_) hosts.insert(node.host);
    const bool taken = std::any_of(cluster.nodes.begin(), cluster.nodes.end(),
                                   [&](const Machine& node) { return hosts.contains(node.host); });
    int copy = 1;
    const auto renamed = [&](const std::string& host) { return "copy" + std::to_string(copy) + "-" + host; };
    while (taken && hosts.contains(renamed(cluster.nodes.front().host))) ++copy;
    if (taken) {
      for (Machine& node : cluster.nodes) node.host = renamed(node.host);
      for (FabricPort& port : cluster.fabric.ports) port.host = renamed(port.host);
      for (FabricSwitch& s : cluster.fabric.switches) s.name = renamed(s.name);
    }
    if (!cluster.fabric.empty()) fabrics_.push_back(std::move(cluster.fabric));
    std::move(cluster.nodes.begin(), cluster.nodes.end(), std::back_inserter(nodes_));
  }

  static std::vector<std::string> hosts_of(const Fabric& fabric) {
    std::vector<std::string> hosts;
    for (const FabricPort& port : fabric.ports) hosts.push_back(port.host);
    for (const FabricBlock& block : fabric.blocks) hosts.insert(hosts.end(), block.hosts.begin(), block.hosts.end());
    std::sort(hosts.begin(), hosts.end(), natural_less);
    hosts.erase(std::unique(hosts.begin(), hosts.end()), hosts.end());
    return hosts;
  }

  Status fit_fabric(Cluster& cluster) {
    const std::vector<std::string> hosts = hosts_of(cluster.fabric);
    if (hosts.empty()) return {};
    const NodesByHost nodes(cluster);
    if (std::any_of(hosts.begin(), hosts.end(), [&](const auto& host) { return !nodes.find(host).empty(); })) {
      name_adapters(cluster, nodes);
      return {};
    }
    const std::string some = hosts.front() + (hosts.size() > 1 ? ", ..." : "");
    if (!made_) {
      notes_.push_back("none of the fabric's hosts (" + some + ") is one of the nodes (" + cluster.nodes.front().host +
                       ", ...): it says nothing about them");
      return {};
    }
    if (hosts.size() < cluster.nodes.size()) {
      return bad_input("the fabric has " + std::to_string(hosts.size()) + " hosts (" + some + "), fewer than the " +
                       std::to_string(cluster.nodes.size()) + " machines that are to be put into it");
    }
    notes_.push_back("the machines take the fabric's hosts in natural order: " + cluster.nodes.front().host + " is " +
                     hosts.front() + ", ...");
    for (size_t i = 0; i < cluster.nodes.size(); ++i) cluster.nodes[i].host = hosts[i];
    name_adapters(cluster, NodesByHost(cluster));
    return {};
  }

  /// OFED's scripts call the first adapter of a host HCA-1, the kernel's rdma-ndd mlx5_0.
  static void name_adapters(Cluster& cluster, const NodesByHost& nodes) {
    for (FabricPort& port : cluster.fabric.ports) {
      if (!port.nic.starts_with("HCA-") || port.nic.find_first_not_of("0123456789", 4) != std::string::npos) continue;
      const auto& found = nodes.find(port.host);
      if (found.empty() || port.nic.size() < 5 || port.nic.size() > 8) continue;
      const std::string name = "mlx5_" + std::to_string(std::stoi(port.nic.substr(4)) - 1);
      const auto& nics = cluster.nodes[found.front()].nics;
      if (std::any_of(nics.begin(), nics.end(), [&](const Nic& nic) { return nic.name == name; })) port.nic = name;
    }
    std::stable_sort(cluster.fabric.ports.begin(), cluster.fabric.ports.end(), [](const auto& a, const auto& b) {
      return a.host != b.host ? natural_less(a.host, b.host) : natural_less(a.nic, b.nic);
    });
  }

  std::vector<Machine> nodes_;
  std::vector<Fabric> fabrics_;
  std::vector<std::string> notes_;
  std::map<std::string, Known> recorded_;  // by host
  bool made_ = true;                       // all nodes are synthetic or repeated
};

}  // namespace

Result<Cluster> open_topology(const std::string& source, std::vector<std::string>* notes) {
  return open_topologies({source}, notes);
}

Result<Cluster> open_topologies(const std::vector<std::string>& sources, std::vector<std::string>* notes) {
  Gatherer gatherer;
  for (const std::string& source : sources) {
    if (const Status added = gatherer.add(source); !added) return added.error();
  }
  auto cluster = gatherer.finish();
  if (notes) notes->insert(notes->end(), gatherer.notes().begin(), gatherer.notes().end());
  return cluster;
}

}  // namespace mds::topology
