// Slurm's topology.yaml (25.05 and later): https://slurm.schedmd.com/topology.yaml.html
#include "topology/fabric/fabric_formats.hpp"

namespace mds::topology {
namespace {

Result<std::string> text_of(const YamlNode& object, const char* key, bool required) {
  const YamlNode* value = object.find(key);
  if (!value || value->is_null()) {
    if (required) return at_line(object.line, std::string("expected \"") + key + ":\" with a name");
    return std::string();
  }
  if (value->kind == YamlNode::Kind::scalar) return value->scalar;
  if (value->kind == YamlNode::Kind::map) return at_line(value->line, std::string(key) + ": expected names");
  std::string joined;
  for (const YamlNode& item : value->items) {
    if (item.kind != YamlNode::Kind::scalar || item.is_null()) return at_line(item.line, "expected a name");
    joined += (joined.empty() ? "" : ",") + item.scalar;
  }
  return joined;
}

/// The list under `key` of `topology`; its elements are maps. Absent or null: nothing.
Result<std::vector<const YamlNode*>> maps_of(const YamlNode& topology, const char* key) {
  std::vector<const YamlNode*> maps;
  const YamlNode* list = topology.find(key);
  if (!list || list->is_null()) return maps;
  if (list->kind != YamlNode::Kind::list) return at_line(list->line, std::string(key) + ": expected a list");
  for (const YamlNode& item : list->items) {
    if (item.kind != YamlNode::Kind::map) return at_line(item.line, std::string("expected an entry of ") + key);
    maps.push_back(&item);
  }
  return maps;
}

Result<Fabric> read_tree(const YamlNode& tree, std::vector<std::string>& notes) {
  const auto maps = maps_of(tree, "switches");
  if (!maps) return maps.error();
  std::vector<SlurmSwitch> switches;
  for (const YamlNode* map : *maps) {
    const auto name = text_of(*map, "switch", true);
    const auto children = text_of(*map, "children", false);
    const auto nodes = text_of(*map, "nodes", false);
    for (const auto* field : {&name, &children, &nodes}) {
      if (!*field) return field->error();
    }
    switches.push_back({*name, *children, *nodes, map->line});
  }
  FabricBuilder builder;
  if (const Status added = add_slurm_switches(builder, switches, notes); !added) return added.error();
  return std::move(builder).finish();
}

/// Blocks, and rings: hosts that belong together without a switch being named.
Result<Fabric> read_groups(const YamlNode& groups, const char* list, const char* name_key) {
  const auto maps = maps_of(groups, list);
  if (!maps) return maps.error();
  FabricBuilder builder;
  for (const YamlNode* map : *maps) {
    const auto name = text_of(*map, name_key, true);
    if (!name) return name.error();
    const YamlNode* nodes = map->find("nodes");
    const auto hosts = nodes ? yaml_hosts(*nodes, builder.names_left()) : std::vector<std::string>();
    if (!hosts) return hosts.error();
    if (const Status added = builder.add_to_block(*name, *hosts); !added)
      return at_line(map->line, added.error().message);
  }
  return std::move(builder).finish();
}

Result<Fabric> read_topology(const YamlNode& topology, std::vector<std::string>& notes) {
  if (const YamlNode* tree = topology.find("tree")) return read_tree(*tree, notes);
  if (const YamlNode* block = topology.find("block")) return read_groups(*block, "blocks", "block");
  if (const YamlNode* ring = topology.find("ring")) return read_groups(*ring, "rings", "ring");
  if (topology.find("flat")) {
    notes.push_back("Slurm's default topology is flat: it says nothing about who is near whom");
    return Fabric{};
  }
  return at_line(topology.line, "expected one of tree:, block:, ring: and flat: in a topology of Slurm");
}

}  // namespace

Result<Fabric> read_slurm_yaml(const YamlNode& root, std::vector<std::string>& notes) {
  if (root.kind != YamlNode::Kind::list || root.items.empty()) {
    return at_line(root.line, "expected a list of topologies (\"- topology: NAME\")");
  }
  const YamlNode* chosen = nullptr;
  for (const YamlNode& topology : root.items) {
    if (topology.kind != YamlNode::Kind::map) return at_line(topology.line, "expected \"topology: NAME\"");
    const auto wanted = text_of(topology, "cluster_default", false);
    if (!wanted) return wanted.error();
    if (!chosen && (*wanted == "true" || *wanted == "True" || *wanted == "TRUE" || *wanted == "yes"))
      chosen = &topology;
  }
  if (!chosen) chosen = &root.items.front();
  const auto name = text_of(*chosen, "topology", true);
  if (!name) return name.error();
  if (root.items.size() > 1) {
    notes.push_back("of " + std::to_string(root.items.size()) + " topologies the default one, \"" + *name +
                    "\", was read");
  }
  return read_topology(*chosen, notes);
}

}  // namespace mds::topology
