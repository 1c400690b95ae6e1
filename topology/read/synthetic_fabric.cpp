#include <algorithm>
#include <charconv>
#include <cstdio>

#include "topology/fabric/fabric_builder.hpp"
#include "topology/read/synthetic.hpp"

namespace mds::topology {
namespace {

struct FabricShape {
  int leaf = 0, spine = 0, rails = 1, spines = 2;
};

Result<FabricShape> shape_from(std::string_view keys) {
  FabricShape shape;
  const std::pair<std::string_view, int*> known[]{
      {"leaf=", &shape.leaf}, {"spine=", &shape.spine}, {"rails=", &shape.rails}, {"spines=", &shape.spines}};
  while (!keys.empty()) {
    const std::string_view item = keys.substr(0, keys.find(','));
    keys.remove_prefix(std::min(item.size() + 1, keys.size()));
    bool read = false;
    for (const auto& [key, value] : known) {
      if (!item.starts_with(key)) continue;
      const std::string_view number = item.substr(key.size());
      const auto [end, failed] = std::from_chars(number.data(), number.data() + number.size(), *value);
      const int max = value == &shape.rails || value == &shape.spines ? 64 : 100'000;
      read = failed == std::errc() && end == number.data() + number.size() && *value >= 1 && *value <= max;
    }
    if (!read) {
      return bad_input("fabric: \"" + std::string(item) +
                       "\" is not one of leaf=NODES, spine=LEAVES, rails=N, spines=N (both at most 64)");
    }
  }
  if (shape.leaf == 0) return bad_input("fabric: say how many nodes hang on a leaf, for example fabric:leaf=8");
  return shape;
}

std::string numbered(const char* what, int number) {
  char text[32];
  std::snprintf(text, sizeof text, "%s-%03d", what, number);
  return text;
}

/// The ports that training uses: RDMA where there is any.
std::vector<const Nic*> fabric_nics(const Machine& machine) {
  std::vector<const Nic*> rdma, all;
  for (const Nic& nic : machine.nics) {
    all.push_back(&nic);
    if (nic.rdma) rdma.push_back(&nic);
  }
  return rdma.empty() ? all : rdma;
}

}  // namespace

Status add_synthetic_fabric(Cluster& cluster, std::string_view keys) {
  const auto shape = shape_from(keys);
  if (!shape) return shape.error();
  const auto nodes = static_cast<int>(cluster.nodes.size());
  const int units = (nodes + shape->leaf - 1) / shape->leaf, spine = shape->spine > 0 ? shape->spine : units;
  const int groups = (units + spine - 1) / spine;
  FabricBuilder builder;
  const auto leaf = [&](int unit, int rail) {
    return builder.switch_named(numbered("leaf", unit) + (shape->rails > 1 ? "-rail" + std::to_string(rail) : ""));
  };
  const auto upper = [&](int group, int k) {
    return builder.switch_named(numbered("spine", group) + "-" + std::to_string(k));
  };
  const auto core = [&](int k) { return builder.switch_named(numbered("core", k)); };
  for (int unit = 0; unit < units && units * shape->rails > 1; ++unit) {
    for (int rail = 0; rail < shape->rails; ++rail) {
      for (int k = 0; k < shape->spines; ++k) builder.connect(leaf(unit, rail), upper(unit / spine, k));
    }
  }
  for (int group = 0; group < groups && groups > 1; ++group) {
    for (int k = 0; k < shape->spines; ++k) {
      for (int c = 0; c < shape->spines; ++c) builder.connect(upper(group, k), core(c));
    }
  }
  for (int node = 0; node < nodes; ++node) {
    const Machine& machine = cluster.nodes[node];
    const auto nics = fabric_nics(machine);
    if (shape->rails > std::max<int>(1, static_cast<int>(nics.size()))) {
      return bad_input("fabric: rails=" + std::to_string(shape->rails) + ", but " + machine.host + " has " +
                       std::to_string(nics.size()) + " NICs");
    }
    for (size_t i = 0; i < nics.size(); ++i) {
      const int on = leaf(node / shape->leaf, static_cast<int>(i) % shape->rails);
      if (const Status added = builder.add_port({machine.host, nics[i]->name, on, nics[i]->gbps}); !added) return added;
    }
    if (!nics.empty()) continue;
    if (const Status added = builder.add_port({machine.host, "", leaf(node / shape->leaf, 0), 0}); !added) return added;
  }
  auto fabric = std::move(builder).finish();
  if (!fabric) return fabric.error();
  cluster.fabric = *std::move(fabric);
  return {};
}

}  // namespace mds::topology
