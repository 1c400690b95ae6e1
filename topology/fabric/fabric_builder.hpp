// Collects what a fabric file says, name by name, and makes a Fabric of it. Used by the readers of trees.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "topology/fabric/fabric.hpp"
#include "topology/fabric/host_ranges.hpp"
#include "topology/result.hpp"

namespace mds::topology {

class FabricBuilder {
 public:
  /// Of several fabrics that are merged.
  explicit FabricBuilder(size_t fabrics = 1) : names_max_(fabrics * kHostsMax) {}

  /// The index of the switch with this name, which is made where it is new.
  int switch_named(const std::string& name);
  bool has_switch(const std::string& name) const { return by_name_.contains(name); }
  void connect(int child, int parent);
  /// Errors: bad_input beyond 65,536 hosts in ports and blocks.
  Status add_port(FabricPort port);
  /// Adds hosts to the block with this name, which is made where it is new. Errors: as add_port.
  Status add_to_block(const std::string& name, const std::vector<std::string>& hosts);
  /// For expand_hosts_within(): how many names all host lists of the file may still expand to, used or not.
  size_t& names_left() { return names_left_; }

  /// Levels (a leaf has no switch below; a parent stands above its highest child), everything in its order, no port and
  /// no host of a block twice. Errors: bad_input naming a switch that is above itself, or a name that is no printable
  /// ASCII or longer than 512 characters.
  Result<Fabric> finish() &&;

 private:
  Fabric fabric_;
  std::map<std::string, int> by_name_;
  std::map<std::string, size_t> blocks_by_name_;
  const size_t names_max_;
  size_t names_ = 0;               // of hosts in ports and blocks
  size_t names_left_ = 4'000'000;  // a dump of Slurm's repeats all nodes on each level
};

bool is_printable(char c);  ///< ASCII, neither a control character nor a tab
/// The same with '?' for what is not printable.
std::string printable(std::string_view text);

/// Sets `level` of all switches from their parents. Errors: bad_input naming a switch that is above itself.
Status set_levels(std::vector<FabricSwitch>& switches);

}  // namespace mds::topology
