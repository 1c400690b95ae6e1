#include "topology/cluster.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "topology/cluster_json_fields.hpp"
#include "topology/read/read_machine.hpp"

namespace mds::topology {
namespace {

using nlohmann::json;

constexpr int kVersion = 1;
constexpr std::array<const char*, 3> kLinkKinds{"nvlink", "xgmi", "c2c"};     // in LinkKind's order
constexpr std::array<const char*, 3> kLinkEnds{"gpu", "nvswitch", "cpu"};     // in LinkEnd's order

std::string hex_class(uint32_t pci_class) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%06x", pci_class);
  return text;
}

void read_class(Fields& fields, uint32_t& out) {
  std::string text = hex_class(0);
  fields.get("class", text);
  const char* const end = text.data() + text.size();
  const bool prefixed = text.size() > 2 && text.starts_with("0x");
  const auto parsed = std::from_chars(text.data() + (prefixed ? 2 : 0), end, out, 16);
  if (!prefixed || parsed.ec != std::errc() || parsed.ptr != end || out > 0xffffff) {
    fields.fail("class", "expected a PCI class such as \"0x030200\"");
  }
}

json to_json(const PciLink& link) { return {{"gtps", link.gtps}, {"width", link.width}}; }

void read_link(Fields& fields, const char* key, PciLink& link) {
  fields.object(key, [&](Fields& f) {
    f.get("gtps", link.gtps);
    f.get("width", link.width);
  });
}

/// One array of the document: every element of `values` through `one`.
template <typename T, typename One>
json array_of(const std::vector<T>& values, One one) {
  json array = json::array();
  for (const T& value : values) array.push_back(one(value));
  return array;
}

json to_json(const Core& c) {
  return {{"index", c.index}, {"package", c.package}, {"numa", c.numa}, {"cpus", c.cpus}};
}

json to_json(const Package& p) {
  return {{"index", p.index}, {"arch", p.arch}, {"vendor", p.vendor}, {"family", p.family}, {"model", p.model}};
}

json to_json(const NumaNode& n) {
  return {{"os_index", n.os_index}, {"package", n.package}, {"memory_bytes", n.memory_bytes}};
}

json to_json(const PciDevice& d) {
  return {{"bus_id", d.bus_id},
          {"parent", d.parent},
          {"numa", d.numa},
          {"class", hex_class(d.pci_class)},
          {"vendor", d.vendor},
          {"device", d.device},
          {"subsystem_vendor", d.subsystem_vendor},
          {"subsystem_device", d.subsystem_device},
          {"link", to_json(d.link)},
          {"link_max", to_json(d.link_max)}};
}

json to_json(const Gpu& g) {
  return {{"index", g.index},
          {"uuid", g.uuid},
          {"bus_id", g.bus_id},
          {"name", g.name},
          {"memory_bytes", g.memory_bytes},
          {"numa", g.numa},
          {"pci", g.pci},
          {"sm", g.sm},
          {"gcn", g.gcn},
          {"gdr", g.gdr},
          {"nvlink_domain", g.nvlink_domain}};
}

json to_json(const Nic& n) {
  return {{"name", n.name}, {"bus_id", n.bus_id}, {"numa", n.numa},           {"gbps", n.gbps}, {"rdma", n.rdma},
          {"pci", n.pci},   {"port", n.port},     {"guid", n.guid},           {"interface", n.interface},
          {"gdr", n.gdr},   {"active", n.active}};
}

json to_json(const GpuLink& l) {
  return {{"kind", kLinkKinds[static_cast<size_t>(l.kind)]},
          {"gpu", l.gpu},
          {"end", kLinkEnds[static_cast<size_t>(l.end)]},
          {"peer", l.peer},
          {"peer_bus_id", l.peer_bus_id},
          {"count", l.count},
          {"gb_per_s_each", l.gb_per_s_each}};
}

json to_json(const Fabric& fabric) {
  return {{"switches", array_of(fabric.switches,
                                [](const FabricSwitch& s) -> json {
                                  return {{"name", s.name}, {"level", s.level}, {"parents", s.parents}};
                                })},
          {"ports", array_of(fabric.ports,
                             [](const FabricPort& p) -> json {
                               return {{"host", p.host}, {"nic", p.nic}, {"leaf", p.leaf}, {"gbps", p.gbps}};
                             })},
          {"blocks", array_of(fabric.blocks, [](const FabricBlock& b) -> json {
             return {{"name", b.name}, {"hosts", b.hosts}};
           })}};
}

std::string element(const char* key, size_t i, const char* field) {
  return std::string(key) + "[" + std::to_string(i) + "]" + (*field ? "." : "") + field;
}

/// An index that must be -1 or name one of `count` elements.
void check_index(Fields& fields, const std::string& key, int index, size_t count, const char* of) {
  if (index >= 0 && static_cast<size_t>(index) >= count) {
    fields.fail(key, "is " + std::to_string(index) + ", but there are only " + std::to_string(count) + " " + of);
  }
}

void check_cores(Fields& fields, const Machine& machine) {
  std::set<int> seen;
  for (size_t i = 0; i < machine.cores.size() && !fields.failed(); ++i) {
    const std::string key = element("cores", i, "cpus");
    if (machine.cores[i].cpus.empty()) return fields.fail(key, "must not be empty");
    for (const int cpu : machine.cores[i].cpus) {
      if (!seen.insert(cpu).second) return fields.fail(key, "CPU " + std::to_string(cpu) + " is listed twice");
    }
  }
}

/// What the types of the fields do not say. Machines that only look wrong (a link to itself, no cores in a recording
/// of devices) are let through: they are doctor's and placement's to judge.
void check(Fields& fields, const Machine& machine) {
  if (machine.host.empty()) fields.fail("host", "must not be empty");
  if (const Status size = check_size(machine); !size) fields.fail("", size.error().message);
  check_cores(fields, machine);
  for (size_t i = 0; i < machine.pci.size() && !fields.failed(); ++i) {
    const int parent = machine.pci[i].parent;
    if (parent >= 0 && static_cast<size_t>(parent) >= i) {
      fields.fail(element("pci", i, "parent"), "is " + std::to_string(parent) + "; parents come before their children");
    }
  }
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    check_index(fields, element("gpus", i, "pci"), machine.gpus[i].pci, machine.pci.size(), "PCI devices");
  }
  for (size_t i = 0; i < machine.nics.size(); ++i) {
    check_index(fields, element("nics", i, "pci"), machine.nics[i].pci, machine.pci.size(), "PCI devices");
  }
  for (size_t i = 0; i < machine.links.size() && !fields.failed(); ++i) {
    const GpuLink& link = machine.links[i];
    check_index(fields, element("links", i, "gpu"), link.gpu, machine.gpus.size(), "GPUs");
    if (link.end == LinkEnd::gpu) {
      check_index(fields, element("links", i, "peer"), link.peer, machine.gpus.size(), "GPUs");
    }
  }
}

void check(Fields& fields, const Fabric& fabric) {
  const auto& switches = fabric.switches;
  for (size_t i = 0; i < switches.size(); ++i) {
    for (size_t k = 0; k < switches[i].parents.size() && !fields.failed(); ++k) {
      const int parent = switches[i].parents[k];
      const std::string key = element("switches", i, "parents") + "[" + std::to_string(k) + "]";
      check_index(fields, key, parent, switches.size(), "switches");
      if (!fields.failed() && switches[static_cast<size_t>(parent)].level <= switches[i].level) {
        fields.fail(key, "is switch " + std::to_string(parent) + ", whose level is not above this one's");
      }
    }
  }
  for (size_t i = 0; i < fabric.ports.size() && !fields.failed(); ++i) {
    check_index(fields, element("ports", i, "leaf"), fabric.ports[i].leaf, switches.size(), "switches");
  }
}

void read_pci(Fields& f, PciDevice& device) {
  f.get("bus_id", device.bus_id);
  f.get("parent", device.parent, false, -1);
  f.get("numa", device.numa, false, -1);
  read_class(f, device.pci_class);
  f.get("vendor", device.vendor);
  f.get("device", device.device);
  f.get("subsystem_vendor", device.subsystem_vendor);
  f.get("subsystem_device", device.subsystem_device);
  read_link(f, "link", device.link);
  read_link(f, "link_max", device.link_max);
}

void read_gpu(Fields& f, Gpu& gpu) {
  f.get("index", gpu.index, true);
  f.get("uuid", gpu.uuid);
  f.get("bus_id", gpu.bus_id);
  f.get("name", gpu.name);
  f.get("memory_bytes", gpu.memory_bytes);
  f.get("numa", gpu.numa, false, -1);
  f.get("pci", gpu.pci, false, -1);
  f.get("sm", gpu.sm);
  f.get("gcn", gpu.gcn);
  f.get("gdr", gpu.gdr);
  f.get("nvlink_domain", gpu.nvlink_domain);
}

void read_nic(Fields& f, Nic& nic) {
  f.get("name", nic.name, true);
  f.get("bus_id", nic.bus_id);
  f.get("numa", nic.numa, false, -1);
  f.get("gbps", nic.gbps);
  f.get("rdma", nic.rdma);
  f.get("pci", nic.pci, false, -1);
  f.get("port", nic.port);
  f.get("guid", nic.guid);
  f.get("interface", nic.interface);
  f.get("gdr", nic.gdr);
  f.get("active", nic.active);
}

void read_gpu_link(Fields& f, GpuLink& link) {
  f.get("kind", link.kind, kLinkKinds);
  f.get("gpu", link.gpu, true);
  f.get("end", link.end, kLinkEnds);
  f.get("peer", link.peer, false, -1);
  f.get("peer_bus_id", link.peer_bus_id);
  f.get("count", link.count);
  f.get("gb_per_s_each", link.gb_per_s_each);
}

void read_machine(Fields& fields, Machine& machine) {
  fields.get("host", machine.host, true);
  fields.get("cores", machine.cores, true, [](Fields& f, Core& core) {
    f.get("index", core.index, true);
    f.get("package", core.package);
    f.get("numa", core.numa);
    f.get("cpus", core.cpus);
    std::sort(core.cpus.begin(), core.cpus.end());
  });
  fields.get("packages", machine.packages, false, [](Fields& f, Package& package) {
    f.get("index", package.index, true);
    f.get("arch", package.arch);
    f.get("vendor", package.vendor);
    f.get("family", package.family);
    f.get("model", package.model);
  });
  fields.get("numa", machine.numa, true, [](Fields& f, NumaNode& numa) {
    f.get("os_index", numa.os_index, true);
    f.get("package", numa.package);
    f.get("memory_bytes", numa.memory_bytes);
  });
  fields.get("pci", machine.pci, false, read_pci);
  fields.get("gpus", machine.gpus, false, read_gpu);
  fields.get("nics", machine.nics, false, read_nic);
  fields.get("links", machine.links, false, read_gpu_link);
  fields.get("notes", machine.notes);
  check(fields, machine);
}

void read_fabric(Fields& fields, Fabric& fabric) {
  fields.get("switches", fabric.switches, false, [](Fields& f, FabricSwitch& s) {
    f.get("name", s.name, true);
    f.get("level", s.level);
    f.get("parents", s.parents, false);
  });
  fields.get("ports", fabric.ports, false, [](Fields& f, FabricPort& port) {
    f.get("host", port.host, true);
    f.get("nic", port.nic);
    f.get("leaf", port.leaf, true);
    f.get("gbps", port.gbps);
  });
  fields.get("blocks", fabric.blocks, false, [](Fields& f, FabricBlock& block) {
    f.get("name", block.name, true);
    f.get("hosts", block.hosts);
  });
  check(fields, fabric);
}

}  // namespace

json to_json(const Machine& machine) {
  const auto one = [](const auto& value) { return to_json(value); };
  return {{"host", machine.host},
          {"packages", array_of(machine.packages, one)},
          {"cores", array_of(machine.cores, one)},
          {"numa", array_of(machine.numa, one)},
          {"pci", array_of(machine.pci, one)},
          {"gpus", array_of(machine.gpus, one)},
          {"nics", array_of(machine.nics, one)},
          {"links", array_of(machine.links, one)},
          {"notes", machine.notes}};
}

json to_json(const Cluster& cluster) {
  return {{"version", kVersion},
          {"nodes", array_of(cluster.nodes, [](const Machine& machine) { return to_json(machine); })},
          {"fabric", to_json(cluster.fabric)}};
}

Result<Machine> machine_from_json(const json& document) {
  std::optional<Error> error;
  Machine machine;
  Fields fields(document, "", error);
  if (!error) read_machine(fields, machine);
  if (error) return error->within("topology");
  return machine;
}

Result<Cluster> cluster_from_json(const json& document) {
  std::optional<Error> error;
  Cluster cluster;
  Fields fields(document, "", error);
  int version = 0;
  fields.get("version", version, true);
  if (!error && version != kVersion) {
    fields.fail("version",
                "is " + std::to_string(version) + "; this program reads version " + std::to_string(kVersion));
  }
  fields.get("nodes", cluster.nodes, true, read_machine);
  if (cluster.nodes.empty()) fields.fail("nodes", "must not be empty");
  fields.object("fabric", [&](Fields& f) { read_fabric(f, cluster.fabric); });
  if (error) return error->within("topology");
  return cluster;
}

}  // namespace mds::topology
