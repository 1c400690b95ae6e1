#include "topology/doctor/cluster_checks.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <tuple>

#include "topology/doctor/fabric_checks.hpp"
#include "topology/doctor/machine_checks.hpp"
#include "topology/fabric/host_ranges.hpp"

namespace mds::topology {
namespace doctor {
namespace {

/// A property in which nodes should be alike.
struct Property {
  const char* code;
  const char* noun;
  const char* remedy;
  /// What a node has: first by how much, then in words. {0, ""}: unknown.
  std::function<std::pair<double, std::string>(const Machine&)> of;
};

std::string gibibytes(double bytes) { return figure(bytes / (1 << 30)) + " GiB"; }

std::pair<double, std::string> gpu_model(const Machine& machine) {
  if (machine.gpus.empty()) return {0, ""};
  const Gpu& gpu = machine.gpus.front();
  const std::string name = !gpu.name.empty() ? gpu.name : gpu.gcn;
  const double bytes = static_cast<double>(gpu.memory_bytes);
  return {1, name + (bytes > 0 ? (name.empty() ? "" : ", ") + gibibytes(bytes) : "")};
}

std::pair<double, std::string> total_memory(const Machine& machine) {
  double bytes = 0;
  for (const NumaNode& node : machine.numa) bytes += static_cast<double>(node.memory_bytes);
  // Nodes of one model differ by what the firmware keeps: compare to a twentieth.
  double step = 1;
  while (step * 1.05 < bytes) step *= 1.05;
  return {bytes > 0 ? step : 0, bytes > 0 ? "about " + gibibytes(bytes) : ""};
}

std::pair<double, std::string> fast_nics(const Machine& machine) {
  double rate = 0, count = 0;
  for (const Nic& nic : machine.nics) {
    count += is_fast(nic);
    rate += is_fast(nic) ? nic.gbps : 0;
  }
  std::string text = amount(static_cast<size_t>(count), "fast NIC");
  if (rate > 0) text += ", " + figure(rate) + " Gbit/s together";
  return {count * 1e7 + rate, text};
}

const std::vector<Property>& properties() {
  static const std::vector<Property> all{
      {"node-gpus-missing", "GPUs",
       "nvidia-smi -L (rocm-smi) and dmesg (Xid 79: fallen off the bus) on that host; until it is repaired, leave the "
       "host "
       "out or run with fewer GPUs a node.",
       [](const Machine& m) {
         return std::pair{static_cast<double>(m.gpus.size()), amount(m.gpus.size(), "GPU")};
       }},
      {"node-gpus-unlike", "GPUs of this kind",
       "A job goes as fast as its slowest GPU and must fit into the smallest: run on nodes of one kind (Slurm: "
       "--constraint). Where they should be alike: ECC, MIG or driver differ.",
       gpu_model},
      {"node-cores-fewer", "cores",
       "Compare lscpu: SMT or cores switched off in the BIOS, or a job that did not ask for the whole node "
       "(--exclusive).",
       [](const Machine& m) {
         const auto cores = static_cast<double>(m.cores.size());
         return std::pair{cores, cores > 0 ? amount(m.cores.size(), "core") : ""};
       }},
      {"node-numa-unlike", "NUMA nodes", "The BIOS settings for sub-NUMA clustering (NPS, SNC) differ: set all alike.",
       [](const Machine& m) {
         return std::pair{static_cast<double>(m.numa.size()), amount(m.numa.size(), "NUMA node")};
       }},
      {"node-memory-unlike", "memory", "A memory module failed or is missing: dmidecode -t memory, and the BMC's log.",
       total_memory},
      {"node-nics-unlike", "fast NICs",
       "ibstat and lspci on that host: an adapter is missing or down, or was trained to a lower rate.", fast_nics},
  };
  return all;
}

void check_property(const Cluster& cluster, const Property& property, std::vector<Finding>& findings) {
  std::map<std::pair<double, std::string>, std::vector<std::string>> hosts;
  std::map<double, std::string> words;
  size_t known = 0;
  for (const Machine& node : cluster.nodes) {
    auto [value, text] = property.of(node);
    if (text.empty()) continue;
    // Where the amount says all, the first text stands for all nodes of it (memory differs by a few bytes).
    if (value > 1) text = words.try_emplace(value, text).first->second;
    hosts[{value, text}].push_back(node.host);
    ++known;
  }
  if (hosts.size() < 2) return;
  auto usual = hosts.begin();
  for (auto it = hosts.begin(); it != hosts.end(); ++it) {
    if (it->second.size() >= usual->second.size()) usual = it;  // of equally many the one with more
  }
  for (const auto& [value, names] : hosts) {
    if (value == usual->first) continue;
    const bool mixed = known > 2 && names.size() * 4 > known;
    findings.push_back({mixed ? Severity::note : Severity::warning, property.code, fold_hosts(names), "node",
                        value.second + ", unlike " + amount(usual->second.size(), "node") + " with " +
                            usual->first.second + (mixed ? " (a mixed cluster?)" : ""),
                        property.remedy});
  }
}

/// Virtual nodes may share a host, but then it is one machine.
void check_hosts(const Cluster& cluster, std::vector<Finding>& findings) {
  std::map<std::string, const Machine*> first;
  std::map<std::string, bool> said;
  for (const Machine& node : cluster.nodes) {
    const auto [known, is_new] = first.try_emplace(node.host, &node);
    if (is_new || *known->second == node || said[node.host]) continue;
    said[node.host] = true;
    findings.push_back({Severity::warning, "host-twice", node.host, "node",
                        "two different machines have the same host name",
                        "Give each recording the host that it is of; a folder of recordings takes the files' names."});
  }
}

}  // namespace

void check_peers(const Cluster& cluster, std::vector<Finding>& findings) {
  for (const Property& property : properties()) check_property(cluster, property, findings);
  check_hosts(cluster, findings);
}

std::vector<Finding> folded(const std::vector<Finding>& findings) {
  using Key = std::tuple<Severity, std::string, std::string, std::string, std::string>;
  std::map<Key, size_t> place;
  std::vector<Finding> all;
  std::vector<std::vector<std::string>> hosts;
  for (const Finding& finding : findings) {
    const Key key{finding.severity, finding.code, finding.subject, finding.message, finding.remedy};
    const auto [known, is_new] = place.try_emplace(key, all.size());
    if (is_new) {
      all.push_back(finding);
      hosts.emplace_back();
    }
    auto& of = hosts[known->second];
    if (of.empty() || of.back() != finding.host) of.push_back(finding.host);
  }
  for (size_t i = 0; i < all.size(); ++i) {
    if (hosts[i].size() > 1) all[i].host = fold_hosts(hosts[i]);
  }
  std::stable_sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.severity > b.severity; });
  return all;
}

}  // namespace doctor

std::vector<Finding> examine(const Cluster& cluster) {
  std::vector<Finding> findings;
  for (size_t i = 0; i < cluster.nodes.size(); ++i) {
    const Machine& node = cluster.nodes[i];
    if (i > 0 && node == cluster.nodes[i - 1]) continue;  // virtual nodes of one machine
    for (Finding& finding : examine(node)) findings.push_back(std::move(finding));
  }
  doctor::check_peers(cluster, findings);
  for (Finding& finding : examine_fabric(cluster)) findings.push_back(std::move(finding));
  return doctor::folded(findings);
}

}  // namespace mds::topology
