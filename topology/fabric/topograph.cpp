// Models of NVIDIA's topograph (https://github.com/NVIDIA/topograph, tests/models). The format has grown; all of its
// shapes are read: switches as a list with "name" or as a map; nodes on switches; blocks with a switch, nodes and
// labels or annotations; capacity_blocks that switches name; nodes with attributes.
#include <set>

#include "topology/fabric/fabric_formats.hpp"
#include "topology/fabric/host_ranges.hpp"

namespace mds::topology {
namespace {

/// Whether a label says to which NVLink domain a node belongs ("accelerator.topology.test/domain",
/// "network.topology.nvidia.com/accelerator", "accelerated.topology.nvidia.com/level-0", "nvidia.com/gpu.clique").
bool names_domain(std::string_view key) {
  for (const char* part : {"accelerat", "nvlink", "clique"}) {
    if (key.find(part) != std::string_view::npos) return true;
  }
  return false;
}

class Reader {
 public:
  explicit Reader(std::vector<std::string>& notes) : notes_(notes) {}

  Result<Fabric> read(const YamlNode& root) {
    if (root.kind != YamlNode::Kind::map) return at_line(root.line, "expected \"switches:\" and \"blocks:\"");
    using Section = Status (Reader::*)(const std::string&, const YamlNode&);
    const std::pair<const char*, Section> sections[]{{"switches", &Reader::read_switch},
                                                     {"capacity_blocks", &Reader::read_block},
                                                     {"blocks", &Reader::read_block},
                                                     {"nodes", &Reader::read_node}};
    for (const auto& [key, section] : sections) {
      const YamlNode* list = root.find(key);
      if (!list || list->is_null()) continue;
      if (const Status done = each(*list, section); !done) return done.error();
    }
    for (const std::string& block : wanted_blocks_) {
      if (!switch_of_block_.contains(block)) continue;
      notes_.push_back("the capacity block \"" + block + "\" is named by a switch and defined nowhere");
    }
    return std::move(builder_).finish();
  }

 private:
  /// Calls `section` with name and value of every element: of a map by its keys, of a list by "name".
  Status each(const YamlNode& list, Status (Reader::*section)(const std::string&, const YamlNode&)) {
    if (list.kind == YamlNode::Kind::scalar) return at_line(list.line, "expected a list or a map");
    for (const auto& [name, value] : list.fields) {
      if (const Status done = (this->*section)(name, value); !done) return done;
    }
    for (const YamlNode& item : list.items) {
      if (item.kind != YamlNode::Kind::map) return at_line(item.line, "expected an entry with keys");
      const YamlNode* name = item.find("name");
      if (name && name->kind != YamlNode::Kind::scalar) return at_line(name->line, "name: expected a name");
      if (const Status done = (this->*section)(name ? name->scalar : "", item); !done) return done;
    }
    return {};
  }

  Result<std::vector<std::string>> names(const YamlNode& object, const char* key) {
    const YamlNode* value = object.find(key);
    if (!value) return std::vector<std::string>();
    return yaml_hosts(*value, builder_.names_left());
  }

  Status read_switch(const std::string& name, const YamlNode& value) {
    if (name.empty()) return at_line(value.line, "a switch without a name");
    const int self = builder_.switch_named(name);
    const auto children = names(value, "switches"), blocks = names(value, "capacity_blocks"),
               hosts = names(value, "nodes");
    for (const auto* list : {&children, &blocks, &hosts}) {
      if (!*list) return list->error();
    }
    for (const std::string& child : *children) {
      const auto [parent, added] = parent_of_.try_emplace(child, name);
      if (!added && parent->second != name) {
        return at_line(value.line,
                       "the switch \"" + child + "\" has two parents, \"" + parent->second + "\" and \"" + name + "\"");
      }
      builder_.connect(builder_.switch_named(child), self);
    }
    for (const std::string& block : *blocks) {
      switch_of_block_[block] = name;
      wanted_blocks_.insert(block);
    }
    return hang(*hosts, name, value.line);
  }

  Status read_block(const std::string& name, const YamlNode& value) {
    const auto hosts = names(value, "nodes");
    if (!hosts) return hosts.error();
    std::string leaf;
    if (const YamlNode* on = value.find("switch"); on && on->kind == YamlNode::Kind::scalar) leaf = on->scalar;
    if (const auto named = switch_of_block_.find(name); leaf.empty() && named != switch_of_block_.end()) {
      leaf = named->second;
    }
    wanted_blocks_.erase(name);
    if (const Status done = hang(*hosts, leaf, value.line); !done) return done;
    return domains(value, *hosts);
  }

  Status read_node(const std::string& name, const YamlNode& value) {
    if (name.empty()) return at_line(value.line, "a node without a name");
    return domains(value, {name});
  }

  Status hang(const std::vector<std::string>& hosts, const std::string& leaf, int line) {
    if (leaf.empty()) return {};
    const int index = builder_.switch_named(leaf);
    for (const std::string& host : hosts) {
      // A node may stand both under its switch and in a block on it.
      if (!hung_.insert({host, leaf}).second) continue;
      if (const Status done = builder_.add_port({host, "", index, 0}); !done)
        return at_line(line, done.error().message);
    }
    return {};
  }

  /// NVLink domains, wherever this entry says them.
  Status domains(const YamlNode& value, const std::vector<std::string>& hosts) {
    std::vector<const YamlNode*> places{&value};
    for (const char* key : {"annotations", "labels", "attributes", "metadata"}) {
      if (const YamlNode* place = value.find(key)) places.push_back(place);
    }
    for (const YamlNode* place : places) {
      for (const auto& [key, domain] : place->fields) {
        if (domain.kind != YamlNode::Kind::scalar || domain.is_null() || !names_domain(key)) continue;
        // Two labels may use the same value for different things (a rack, a domain of racks): each has its own block.
        const auto [label, added] = label_of_domain_.try_emplace(domain.scalar, key);
        const bool own = added || label->second == key;
        const std::string name = own ? domain.scalar : key + "=" + domain.scalar;
        if (const Status done = builder_.add_to_block(name, hosts); !done)
          return at_line(domain.line, done.error().message);
      }
    }
    return {};
  }

  std::vector<std::string>& notes_;
  FabricBuilder builder_;
  std::map<std::string, std::string> parent_of_, switch_of_block_, label_of_domain_;
  std::set<std::string> wanted_blocks_;
  std::set<std::pair<std::string, std::string>> hung_;
};

}  // namespace

Result<Fabric> read_topograph(const YamlNode& root, std::vector<std::string>& notes) {
  return Reader(notes).read(root);
}

}  // namespace mds::topology
