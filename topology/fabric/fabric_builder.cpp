#include "topology/fabric/fabric_builder.hpp"

#include <algorithm>
#include <tuple>

#include "topology/fabric/natural_order.hpp"

namespace mds::topology {
namespace {

bool port_less(const FabricPort& a, const FabricPort& b) {
  if (a.host != b.host) return natural_less(a.host, b.host);
  if (a.nic != b.nic) return natural_less(a.nic, b.nic);
  return std::tie(a.leaf, b.gbps) < std::tie(b.leaf, a.gbps);
}

constexpr size_t kNameBytesMax = 512;

template <typename T, typename Equal>
void drop_repeated(std::vector<T>& sorted, Equal equal) {
  sorted.erase(std::unique(sorted.begin(), sorted.end(), equal), sorted.end());
}

/// Names end up in terminals, pictures and JSON: printable ASCII, and not whole books of it.
Status check_names(const Fabric& fabric) {
  std::vector<std::string_view> names;
  for (const FabricSwitch& s : fabric.switches) names.push_back(s.name);
  for (const FabricPort& port : fabric.ports) {
    names.push_back(port.host);
    names.push_back(port.nic);
  }
  for (const FabricBlock& block : fabric.blocks) {
    names.push_back(block.name);
    names.insert(names.end(), block.hosts.begin(), block.hosts.end());
  }
  for (const std::string_view name : names) {
    if (name.size() > kNameBytesMax) {
      return bad_input("the name \"" + std::string(name.substr(0, 40)) + "...\" is longer than " +
                       std::to_string(kNameBytesMax) + " characters");
    }
    if (!std::all_of(name.begin(), name.end(), is_printable)) {
      return bad_input("the name \"" + printable(name) + "\" has characters that are not printable ASCII");
    }
  }
  return {};
}

}  // namespace

bool is_printable(char c) { return c >= 0x20 && c < 0x7f; }

std::string printable(std::string_view text) {
  std::string out(text);
  std::replace_if(
      out.begin(), out.end(), [](char c) { return !is_printable(c); }, '?');
  return out;
}

int FabricBuilder::switch_named(const std::string& name) {
  const auto [found, added] = by_name_.try_emplace(name, static_cast<int>(fabric_.switches.size()));
  if (added) fabric_.switches.push_back({name, 0, {}});
  return found->second;
}

void FabricBuilder::connect(int child, int parent) { fabric_.switches[child].parents.push_back(parent); }

Status FabricBuilder::add_port(FabricPort port) {
  if (++names_ > names_max_) return bad_input("more than 65,536 hosts");
  fabric_.ports.push_back(std::move(port));
  return {};
}

Status FabricBuilder::add_to_block(const std::string& name, const std::vector<std::string>& hosts) {
  if ((names_ += hosts.size()) > names_max_) return bad_input("more than 65,536 hosts");
  const auto [found, added] = blocks_by_name_.try_emplace(name, fabric_.blocks.size());
  if (added) fabric_.blocks.push_back({name, {}});
  FabricBlock& block = fabric_.blocks[found->second];
  block.hosts.insert(block.hosts.end(), hosts.begin(), hosts.end());
  return {};
}

Result<Fabric> FabricBuilder::finish() && {
  for (FabricSwitch& s : fabric_.switches) {
    std::sort(s.parents.begin(), s.parents.end());
    drop_repeated(s.parents, std::equal_to<>());
  }
  if (const Status names = check_names(fabric_); !names) return names.error();
  if (const Status levels = set_levels(fabric_.switches); !levels) return levels.error();
  std::sort(fabric_.ports.begin(), fabric_.ports.end(), port_less);
  drop_repeated(fabric_.ports, [](const FabricPort& a, const FabricPort& b) {
    return a.host == b.host && a.nic == b.nic && a.leaf == b.leaf;
  });
  for (FabricBlock& block : fabric_.blocks) {
    std::sort(block.hosts.begin(), block.hosts.end(), natural_less);
    drop_repeated(block.hosts, std::equal_to<>());
  }
  return std::move(fabric_);
}

Status set_levels(std::vector<FabricSwitch>& switches) {
  std::vector<int> children_left(switches.size()), ready;
  for (FabricSwitch& s : switches) {
    s.level = 0;
    for (const int parent : s.parents) ++children_left[parent];
  }
  for (size_t i = 0; i < switches.size(); ++i) {
    if (children_left[i] == 0) ready.push_back(static_cast<int>(i));
  }
  size_t done = 0;
  for (; done < ready.size(); ++done) {
    const FabricSwitch& s = switches[ready[done]];
    for (const int parent : s.parents) {
      switches[parent].level = std::max(switches[parent].level, s.level + 1);
      if (--children_left[parent] == 0) ready.push_back(parent);
    }
  }
  if (done == switches.size()) return {};
  const auto stuck = std::find_if(children_left.begin(), children_left.end(), [](int left) { return left > 0; });
  return bad_input("the switch \"" + switches[stuck - children_left.begin()].name + "\" stands above itself");
}

}  // namespace mds::topology
