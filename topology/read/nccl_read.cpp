#include <algorithm>
#include <cstring>

#include "topology/read/nccl_elements.hpp"
#include "topology/read/read_machine.hpp"

namespace mds::topology {
namespace {

constexpr size_t kBytesMax = 16 << 20;  // a thousand times a real file, and its tree is far below 1 GiB
constexpr int kLevelsMax = 64;
constexpr size_t kHostsMax = 256;

Error too_many(const char* what, size_t count, size_t max) {
  return bad_input("holds " + std::to_string(count) + " " + what + ", more than the " + std::to_string(max) +
                   " that a machine may have");
}

Status check_root(const XmlDocument& xml) {
  const auto root = xml.root();
  const std::string name = root.name();
  if (name == "system") return {};
  if (name == "graphs") {
    return xml.error(root,
                     "<graphs>: this is what NCCL_GRAPH_DUMP_FILE writes; a topology is what "
                     "NCCL_TOPO_DUMP_FILE writes");
  }
  return xml.error(root, "<" + name + "> where a NCCL topology begins with <system>");
}

}  // namespace

Status check_size(const Machine& machine) {
  if (machine.gpus.size() > kGpusMax) return too_many("GPUs", machine.gpus.size(), kGpusMax);
  if (machine.nics.size() > kNicsMax) return too_many("network ports", machine.nics.size(), kNicsMax);
  if (machine.numa.size() > kNumaMax) return too_many("NUMA nodes", machine.numa.size(), kNumaMax);
  return {};
}

Result<std::vector<Machine>> read_nccl_hosts(std::string_view text, const std::string& host) {
  const auto xml = XmlDocument::parse(text, kBytesMax, kLevelsMax);
  if (!xml) return xml.error();
  if (const Status root = check_root(*xml); !root) return root.error();
  NcclAttributes system(*xml, xml->root());
  const std::string inner_host = system.text("host");
  const std::string& name = inner_host.empty() ? host : inner_host;
  if (system.error()) return *system.error();

  std::vector<NcclHost> hosts;
  for (const auto child : xml->root().children()) {
    if (std::strcmp(child.name(), "cpu") != 0) {
      if (child.type() != pugi::node_element) continue;
      return xml->error(child, std::string("<") + child.name() + "> directly in <system>, which holds <cpu>s");
    }
    NcclAttributes cpu(*xml, child);
    const std::string hash = cpu.text("host_hash");
    if (cpu.error()) return *cpu.error();
    auto found = std::find_if(hosts.begin(), hosts.end(), [&](const NcclHost& known) { return known.hash == hash; });
    if (found == hosts.end()) {
      if (hosts.size() == kHostsMax) return xml->error(child, "more than 256 hosts");
      found = hosts.insert(hosts.end(), NcclHost{hash});
    }
    if (const Status read = read_nccl_cpu(*xml, child, *found); !read) return read.error();
  }
  if (hosts.empty()) return xml->error(xml->root(), "no <cpu> in <system>: the topology of no machine");

  const std::string domain = hosts.size() > 1 ? "nccl-" + hosts.front().hash + ".0" : "";
  std::vector<Machine> machines;
  for (NcclHost& one : hosts) {
    Machine machine = finish(std::move(one));
    machine.host = hosts.size() > 1 ? name + "-" + std::to_string(machines.size()) : name;
    if (const Status size = check_size(machine); !size) return size.error();
    // NCCL joins the topologies of several hosts only where NVLink joins the hosts.
    for (Gpu& gpu : machine.gpus) {
      if (gpu.nvlink_domain.empty()) gpu.nvlink_domain = domain;
    }
    machines.push_back(std::move(machine));
  }
  return machines;
}

Result<Machine> read_nccl_xml(std::string_view text, const std::string& host) {
  auto machines = read_nccl_hosts(text, host);
  if (!machines) return machines.error();
  if (machines->size() > 1) {
    return bad_input("holds " + std::to_string(machines->size()) +
                     " hosts (host_hash), where one machine is asked for");
  }
  return std::move(machines->front());
}

}  // namespace mds::topology
