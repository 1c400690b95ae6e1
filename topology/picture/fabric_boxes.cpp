// Nodes, leaves and spines as boxes in boxes.
#include <algorithm>
#include <map>
#include <set>

#include "topology/fabric/host_ranges.hpp"
#include "topology/picture/placement_picture.hpp"

namespace mds::topology::picture {
namespace {

using Switches = std::set<int>;  // indices into Fabric::switches

std::string name_of(const Fabric& fabric, const Switches& switches) {
  if (switches.empty()) return "";
  std::vector<std::string> names;
  for (const int one : switches) names.push_back(fabric.switches[static_cast<size_t>(one)].name);
  const int level = fabric.switches[static_cast<size_t>(*switches.begin())].level;
  const bool several = switches.size() > 1;
  std::string noun = level == 0   ? (several ? "leaves " : "leaf ")
                     : level == 1 ? (several ? "spines " : "spine ")
                                  : (several ? "switches " : "switch ");
  for (const char* said : {"leaf", "spine", "switch", "core", "group"}) {
    if (names.front().starts_with(said)) noun.clear();  // not "leaf leaf-3"
  }
  return noun + fold_hosts(std::move(names));
}

Switches parents_of(const Fabric& fabric, const Switches& switches) {
  Switches parents;
  for (const int one : switches) {
    for (const int parent : fabric.switches[static_cast<size_t>(one)].parents) parents.insert(parent);
  }
  return parents;
}

struct Group {
  FabricBox box;
  Switches switches;
};

/// Puts groups under the same switches into one box, level by level, until there is none above.
std::vector<FabricBox> nested(const Fabric& fabric, std::vector<Group> groups) {
  size_t levels = 0;
  for (const FabricSwitch& one : fabric.switches) levels = std::max(levels, static_cast<size_t>(one.level) + 1);
  for (size_t level = 1; level < levels; ++level) {
    std::vector<Group> above;
    std::map<Switches, size_t> place;
    for (Group& group : groups) {
      const Switches parents = parents_of(fabric, group.switches);
      if (parents.empty()) {
        above.push_back(std::move(group));
        continue;
      }
      const auto [known, is_new] = place.try_emplace(parents, above.size());
      if (is_new) above.push_back({{name_of(fabric, parents), {}, {}}, parents});
      above[known->second].box.inside.push_back(std::move(group.box));
    }
    groups = std::move(above);
  }
  std::vector<FabricBox> boxes;
  for (Group& group : groups) boxes.push_back(std::move(group.box));
  return boxes;
}

/// What keeps nodes together where no switch is known: a block, or an NVLink domain.
std::string block_of(const std::map<std::string, std::string>& blocks, const Machine& machine) {
  if (const auto block = blocks.find(machine.host); block != blocks.end()) return "block " + block->second;
  for (const Gpu& gpu : machine.gpus) {
    if (!gpu.nvlink_domain.empty()) return "NVLink domain " + gpu.nvlink_domain;
  }
  return "";
}

}  // namespace

std::vector<FabricBox> fabric_boxes(const Cluster& cluster, const Placement& placement) {
  const Fabric& fabric = cluster.fabric;
  std::map<std::string, Switches> leaves;
  for (const FabricPort& port : fabric.ports) {
    if (port.leaf >= 0 && port.leaf < static_cast<int>(fabric.switches.size())) leaves[port.host].insert(port.leaf);
  }
  std::map<std::string, std::string> blocks;
  for (const FabricBlock& block : fabric.blocks) {
    for (const std::string& host : block.hosts) blocks.try_emplace(host, block.name);
  }
  std::vector<Group> groups;
  std::map<std::pair<Switches, std::string>, size_t> place;
  for (size_t i = 0; i < placement.nodes.size(); ++i) {
    const Machine& machine = cluster.nodes[static_cast<size_t>(placement.nodes[i].node)];
    const auto found = leaves.find(machine.host);
    const Switches own = found == leaves.end() ? Switches{} : found->second;
    const std::string block = own.empty() ? block_of(blocks, machine) : "";
    const auto [known, is_new] = place.try_emplace({own, block}, groups.size());
    if (is_new) groups.push_back({{own.empty() ? block : name_of(fabric, own), {}, {}}, own});
    groups[known->second].box.nodes.push_back(static_cast<int>(i));
  }
  return nested(fabric, std::move(groups));
}

}  // namespace mds::topology::picture
