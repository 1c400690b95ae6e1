// Random clusters for tests: nodes with GPUs whose links differ, on fabrics with leaves of random sizes.
#pragma once

#include <algorithm>
#include <random>
#include <string>

#include "topology/cluster.hpp"
#include "topology/rank_grid.hpp"

namespace mds::topology::tests {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  template <typename T>
  const T& of(const std::vector<T>& values) {
    return values[static_cast<size_t>(pick(0, static_cast<int>(values.size()) - 1))];
  }
  std::mt19937_64& engine() { return engine_; }

 private:
  std::mt19937_64 engine_;
};

/// Two NUMA nodes of 8 cores; each pair of GPUs has 0 to 3 NVLinks; one NIC for each GPU.
inline Machine random_machine(Random& random, int gpus) {
  Machine machine;
  for (int core = 0; core < 16; ++core) machine.cores.push_back({core, core / 8, core / 8, {core, core + 16}});
  machine.packages = {{0, "x86_64", "GenuineIntel", 6, 143}, {1, "x86_64", "GenuineIntel", 6, 143}};
  machine.numa = {{0, 0, uint64_t{64} << 30}, {1, 1, uint64_t{64} << 30}};
  for (int i = 0; i < gpus; ++i) {
    Gpu gpu;
    gpu.index = i;
    gpu.numa = i * 2 / gpus;
    gpu.sm = 80;
    gpu.bus_id = "0000:" + std::to_string(10 + i) + ":00.0";
    machine.gpus.push_back(gpu);
    Nic nic;
    nic.name = "mlx5_" + std::to_string(i);
    nic.numa = gpu.numa;
    nic.gbps = 200;
    nic.rdma = true;
    machine.nics.push_back(nic);
  }
  for (int a = 0; a < gpus; ++a) {
    for (int b = 0; b < a; ++b) {
      const int links = random.pick(0, 3);
      if (links == 0) continue;
      machine.links.push_back({LinkKind::nvlink, a, LinkEnd::gpu, b, machine.gpus[b].bus_id, links, 20});
      machine.links.push_back({LinkKind::nvlink, b, LinkEnd::gpu, a, machine.gpus[a].bus_id, links, 20});
    }
  }
  return machine;
}

/// `nodes` nodes of one kind under leaves of random sizes, these under a spine each or under one; cables of two speeds.
/// Which node hangs on which leaf is random, too.
inline Cluster random_cluster(Random& random, int nodes, int gpus) {
  Cluster cluster;
  const Machine machine = random_machine(random, gpus);
  const int leaves = random.pick(1, std::min(nodes, 4)), spines = random.pick(1, 2);
  for (int leaf = 0; leaf < leaves; ++leaf) {
    cluster.fabric.switches.push_back({"leaf" + std::to_string(leaf), 0, {leaves + random.pick(0, spines - 1)}});
  }
  for (int spine = 0; spine < spines; ++spine) {
    cluster.fabric.switches.push_back({"spine" + std::to_string(spine), 1, {leaves + spines}});
  }
  cluster.fabric.switches.push_back({"core", 2, {}});
  const bool uneven = random.pick(0, 1) == 1;
  for (int node = 0; node < nodes; ++node) {
    cluster.nodes.push_back(machine);
    cluster.nodes.back().host = "node" + std::to_string(random.pick(0, 999)) + "-" + std::to_string(node);
    const double gbps = uneven && random.pick(0, 2) == 0 ? 100 : 200;
    cluster.fabric.ports.push_back({cluster.nodes.back().host, "", random.pick(0, leaves - 1), gbps});
  }
  std::sort(cluster.fabric.ports.begin(), cluster.fabric.ports.end(),
            [](const FabricPort& a, const FabricPort& b) { return a.host < b.host; });
  return cluster;
}

/// Sizes of tensor, context, data and pipeline whose product is `ranks`, in random order.
inline RankGrid random_grid(Random& random, int ranks) {
  int sizes[4] = {1, 1, 1, 1};
  for (int factor = 2, left = ranks; left > 1;) {
    if (left % factor == 0) {
      sizes[random.pick(0, 3)] *= factor;
      left /= factor;
    } else {
      ++factor;
    }
  }
  std::vector<std::string> axes{"tp", "cp", "dp", "pp"};
  if (random.pick(0, 2) == 0) std::shuffle(axes.begin(), axes.end(), random.engine());
  return *RankGrid::make(sizes[0], sizes[1], sizes[2], sizes[3],
                         axes[0] + "-" + axes[1] + "-" + axes[2] + "-" + axes[3]);
}

}  // namespace mds::topology::tests
