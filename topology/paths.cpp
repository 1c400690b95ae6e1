#include "topology/paths.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "topology/paths_graph.hpp"

namespace mds::topology {
namespace {

/// Like PathClass's own order, but a way over C2C and the host's PCI counts as P2C.
PathClass merge(PathClass a, PathClass b) {
  const auto [low, high] = std::minmax(a, b);
  return high == PathClass::phb && low == PathClass::c2c ? PathClass::p2c : high;
}

Path join(const Path& first, const Path& second) {
  return {merge(first.kind, second.kind), std::min(first.gb_per_s, second.gb_per_s), first.hops + second.hops};
}

size_t mirror_bits(size_t value, size_t power) {
  size_t mirror = 0;
  for (size_t bit = 1, other = power >> 1; bit < power; bit <<= 1, other >>= 1) {
    if (value & bit) mirror |= other;
  }
  return mirror;
}

/// The indices of the paths of the highest bandwidth, among these the best class (ncclTopoGetLocal).
std::vector<size_t> nearest(const Path* paths, size_t count) {
  std::vector<size_t> best;
  double gb_per_s = 0;
  PathClass kind = PathClass::dis;
  for (size_t i = 0; i < count; ++i) {
    const Path& path = paths[i];
    if (path.gb_per_s > gb_per_s || (path.gb_per_s == gb_per_s && path.kind < kind)) {
      gb_per_s = path.gb_per_s;
      kind = path.kind;
      best.clear();
    }
    if (path.gb_per_s == gb_per_s && path.kind == kind) best.push_back(i);
  }
  return best;
}

/// ncclTopoComputePaths: the graph's own paths first, then what NCCL does not send directly.
class PathFinder {
 public:
  explicit PathFinder(const Machine& machine)
      : machine_(machine), graph_(build_graph(machine)), gpus_(machine.gpus.size()), nics_(machine.nics.size()) {}

  Paths find() {
    if (gpus_ == 0) return {};
    search_all();
    send_over_host_where_gpus_cannot_talk();
    find_nvlink_peers();
    mark_c2c_to_nics();
    find_relays_to_nics();
    return {gpus_, nics_, std::move(gpu_gpu_), std::move(gpu_nic_)};
  }

 private:
  Path& between(size_t from, size_t to) { return gpu_gpu_[from * gpus_ + to]; }
  Path& to_nic(size_t gpu, size_t nic) { return gpu_nic_[gpu * nics_ + nic]; }
  Path& from_nic(size_t nic, size_t gpu) { return nic_gpu_[nic * gpus_ + gpu]; }
  const Path& gpu_to_cpu(size_t gpu, size_t cpu) const { return gpu_cpu_[gpu * graph_.cpus.size() + cpu]; }
  const Path& nic_to_cpu(size_t nic, size_t cpu) const { return nic_cpu_[nic * graph_.cpus.size() + cpu]; }
  const Path& cpu_to_gpu(size_t cpu, size_t gpu) const { return cpu_gpu_[cpu * gpus_ + gpu]; }
  const Path& cpu_to_nic(size_t cpu, size_t nic) const { return cpu_nic_[cpu * nics_ + nic]; }

  void search_all() {
    const size_t cpus = graph_.cpus.size();
    gpu_gpu_.resize(gpus_ * gpus_);
    gpu_nic_.resize(gpus_ * nics_);
    nic_gpu_.resize(nics_ * gpus_);
    gpu_cpu_.resize(gpus_ * cpus);
    nic_cpu_.resize(nics_ * cpus);
    cpu_gpu_.resize(cpus * gpus_);
    cpu_nic_.resize(cpus * nics_);
    relay_.assign(gpus_ * nics_, -1);
    // search() gives the paths *to* its base from all others.
    const auto collect = [&](int base, const std::vector<int>& from, std::vector<Path>& out, size_t column,
                             size_t row) {
      const std::vector<Path> paths = search(graph_, base);
      for (size_t i = 0; i < from.size(); ++i) out[i * row + column] = paths[static_cast<size_t>(from[i])];
      return paths;
    };
    const auto pick = [](const std::vector<Path>& paths, const std::vector<int>& from, std::vector<Path>& out,
                         size_t column, size_t row) {
      for (size_t i = 0; i < from.size(); ++i) out[i * row + column] = paths[static_cast<size_t>(from[i])];
    };
    for (size_t c = 0; c < cpus; ++c) {
      pick(collect(graph_.cpus[c], graph_.gpus, gpu_cpu_, c, cpus), graph_.nets, nic_cpu_, c, cpus);
    }
    for (size_t g = 0; g < gpus_; ++g) {
      const auto paths = collect(graph_.gpus[g], graph_.gpus, gpu_gpu_, g, gpus_);
      pick(paths, graph_.cpus, cpu_gpu_, g, gpus_);
      pick(paths, graph_.nets, nic_gpu_, g, gpus_);
    }
    for (size_t n = 0; n < nics_; ++n) {
      pick(collect(graph_.nets[n], graph_.gpus, gpu_nic_, n, nics_), graph_.cpus, cpu_nic_, n, nics_);
    }
    for (size_t g = 0; g < gpus_; ++g) local_cpu_.push_back(nearest_cpu(g));
  }

  size_t nearest_cpu(size_t gpu) const {
    size_t best = 0;
    int hops = 0;
    for (size_t c = 0; c < graph_.cpus.size(); ++c) {
      const int distance = gpu_to_cpu(gpu, c).hops;
      if (distance > 0 && (hops == 0 || distance < hops)) {
        best = c;
        hops = distance;
      }
    }
    return best;
  }

  /// Beyond PXB NCCL copies through host memory; on AMD's processors two GPUs talk directly at any distance.
  void send_over_host_where_gpus_cannot_talk() {
    const bool amd = !machine_.packages.empty() && machine_.packages.front().vendor == "AuthenticAMD";
    const PathClass direct_max = amd && gpus_ <= 2 ? PathClass::sys : PathClass::pxb;
    for (size_t to = 0; to < gpus_; ++to) {
      for (size_t from = 0; from < gpus_; ++from) {
        if (between(from, to).kind <= direct_max) continue;
        const size_t cpu = local_cpu_[to];
        between(from, to) = join(gpu_to_cpu(from, cpu), cpu_to_gpu(cpu, to));
      }
    }
  }

  void find_nvlink_peers() {
    nvlink_.resize(gpus_);
    for (size_t from = 0; from < gpus_; ++from) {
      for (size_t to = 0; to < gpus_; ++to) nvlink_[from] = nvlink_[from] || between(from, to).kind == PathClass::nvl;
    }
  }

  void mark_c2c_to_nics() {
    for (size_t n = 0; n < nics_; ++n) {
      for (size_t g = 0; g < gpus_; ++g) {
        const size_t cpu = local_cpu_[g];
        if (merge(gpu_to_cpu(g, cpu).kind, nic_to_cpu(n, cpu).kind) != PathClass::p2c) continue;
        to_nic(g, n).kind = std::min(PathClass::p2c, to_nic(g, n).kind);
        from_nic(n, g).kind = std::min(PathClass::p2c, from_nic(n, g).kind);
      }
    }
  }

  /// True if the NIC can read (or write) this GPU's memory (ncclTopoCheckGdr).
  bool direct_memory(size_t gpu, size_t nic, bool read) {
    const Gpu& device = machine_.gpus[gpu];
    if (!machine_.nics[nic].gdr || !device.gdr) return false;
    // Before Ampere reads are only worth it where NVLink keeps PCI free.
    if (read && device.sm > 0 && device.sm < 80 && gpus_ > 1 && !nvlink_[gpu]) return false;
    PathClass distance = to_nic(gpu, nic).kind;
    if (distance == PathClass::pxn) distance = to_nic(static_cast<size_t>(relay_[gpu * nics_ + nic]), nic).kind;
    return distance <= PathClass::p2c;
  }

  /// The GPU that NCCL has serve this NIC: the first whose channels, spread over its nearest NICs, come to it
  /// (ncclTopoGetLocalGpu and ncclTopoGetLocalNet). -1 if none does.
  int serving_gpu(size_t nic) {
    int found = -1;
    size_t first_channel = 64;  // NCCL's MAXCHANNELS
    for (const size_t gpu : nearest(&from_nic(nic, 0), gpus_)) {
      const std::vector<size_t>& nets = nearest_nics(gpu);
      const auto place = std::find(nets.begin(), nets.end(), nic);
      if (place == nets.end()) continue;
      const size_t sharers = std::max<size_t>(nearest(&from_nic(nets.front(), 0), gpus_).size(), 1);
      const size_t spread = (nets.size() + sharers - 1) / sharers;
      const auto device = static_cast<size_t>(std::max(machine_.gpus[gpu].index, 0));
      const size_t start = (nets.size() & (nets.size() - 1)) == 0 ? mirror_bits(device, nets.size()) : device;
      const size_t index = static_cast<size_t>(place - nets.begin());
      const size_t channel = (index + nets.size() - start % nets.size()) % nets.size();
      if (channel < spread && channel < first_channel) {
        found = static_cast<int>(gpu);
        first_channel = channel;
      }
    }
    return found;
  }

  const std::vector<size_t>& nearest_nics(size_t gpu) {
    if (nearest_nics_.empty()) nearest_nics_.resize(gpus_);
    if (nearest_nics_[gpu].empty()) nearest_nics_[gpu] = nearest(&to_nic(gpu, 0), nics_);
    return nearest_nics_[gpu];
  }

  void set_to_nic(size_t gpu, size_t nic, const Path& path) {
    to_nic(gpu, nic) = path;
    if (!nearest_nics_.empty()) nearest_nics_[gpu].clear();
    changed_ = true;
  }

  /// PXN: a GPU hands what it sends to an NVLink peer that is close to the NIC; and the host where the NIC cannot
  /// reach GPU memory.
  void find_relays_to_nics() {
    for (size_t n = 0; n < nics_; ++n) {
      int server = -1;
      changed_ = true;
      for (size_t g = 0; g < gpus_; ++g) {
        const bool relays = machine_.nics[n].gdr && nvlink_[g];
        if (relays && changed_) {
          server = serving_gpu(n);
          changed_ = false;
        }
        if (relays && server >= 0 && static_cast<size_t>(server) != g &&
            relay_is_better(static_cast<size_t>(server), g, n)) {
          const auto peer = static_cast<size_t>(server);
          Path path = join(between(g, peer), to_nic(peer, n));
          path.kind = PathClass::pxn;
          relay_[g * nics_ + n] = server;
          set_to_nic(g, n, path);
        }
        if (to_nic(g, n).kind < PathClass::phb && !direct_memory(g, n, false)) {
          const size_t cpu = local_cpu_[g];
          from_nic(n, g) = join(nic_to_cpu(n, cpu), cpu_to_gpu(cpu, g));
          set_to_nic(g, n, join(gpu_to_cpu(g, cpu), cpu_to_nic(cpu, n)));
        }
      }
    }
  }

  bool relay_is_better(size_t peer, size_t gpu, size_t nic) {
    const Path& relayed = to_nic(peer, nic);
    const Path& own = to_nic(gpu, nic);
    return relayed.kind <= PathClass::p2c && direct_memory(peer, nic, true) &&
           between(peer, gpu).kind <= PathClass::nvl && (relayed.gb_per_s > own.gb_per_s || own.kind > PathClass::pxn);
  }

  const Machine& machine_;
  const Graph graph_;
  const size_t gpus_, nics_;
  std::vector<Path> gpu_gpu_, gpu_nic_, nic_gpu_, gpu_cpu_, nic_cpu_, cpu_gpu_, cpu_nic_;  // row-major [from x to]
  std::vector<size_t> local_cpu_;                  // of each GPU, index into graph_.cpus
  std::vector<int> relay_;                         // [gpus x nics]: the GPU in between, for PXN
  std::vector<bool> nvlink_;                       // of each GPU: it has a direct NVLink peer
  std::vector<std::vector<size_t>> nearest_nics_;  // of each GPU; empty: to be found anew
  bool changed_ = true;                            // a path changed since the serving GPU was found
};

}  // namespace

const char* to_string(PathClass path) {
  static constexpr const char* kNames[] = {"LOC", "NVL", "NVB", "C2C", "PIX", "PXB",
                                           "P2C", "PXN", "PHB", "SYS", "NET", "DIS"};
  return kNames[static_cast<size_t>(path)];
}

Paths find_paths(const Machine& machine) { return PathFinder(machine).find(); }

double nvlink_gb_per_s(int sm) {
  if (sm >= 100) return 40.1;
  if (sm >= 90) return 20.6;
  if (sm == 86) return 12.0;
  if (sm >= 60 && sm < 70) return 18.0;
  return 20.0;
}

double xgmi_gb_per_s(std::string_view gcn) {
  if (gcn.starts_with("gfx94") || gcn.starts_with("gfx95")) return 48.0;
  return gcn.starts_with("gfx90a") ? 36.0 : 24.0;
}

double pci_gb_per_s(const PciLink& link) {
  struct Generation {
    double gtps, speed;  // speed in 100 Mbit/s a lane, after encoding
  };
  static constexpr Generation kGenerations[] = {{2.5, 15}, {5, 30}, {8, 60}, {16, 120}, {32, 240}, {64, 480}};
  double speed = 60;
  for (const Generation& generation : kGenerations) {
    if (link.gtps == generation.gtps) speed = generation.speed;
  }
  return (link.width > 0 ? link.width : 16) * speed / 80;
}

double socket_gb_per_s(const Package& package) {
  const std::string& arch = package.arch;
  if (arch.starts_with("ppc64")) return 32;
  if (arch.starts_with("arm") || arch.starts_with("aarch64")) return 6;
  if (package.vendor == "AuthenticAMD") return 16;
  if (package.vendor == "GenuineIntel") {
    if (package.family != 6 || package.model < 0x55) return 6;  // Broadwell and before: QPI
    if (package.model < 0x8f) return 10;                        // Skylake to Ice Lake
    return package.model < 0xcf ? 22 : 40;                      // Sapphire Rapids, Emerald Rapids
  }
  if (package.vendor == "CentaurHauls" || package.vendor == "  Shanghai  ") {
    return package.family == 7 && package.model == 0x5b ? 9 : 6;
  }
  return 5000;
}

nlohmann::json to_json(const Paths& paths, const Machine& machine) {
  nlohmann::json gpu_gpu = nlohmann::json::array(), gpu_nic = nlohmann::json::array();
  const auto entry = [](int from, nlohmann::json to, const Path& path) -> nlohmann::json {
    return {{"from", from},
            {"to", std::move(to)},
            {"class", to_string(path.kind)},
            {"gb_per_s", path.gb_per_s},
            {"hops", path.hops}};
  };
  for (size_t g = 0; g < paths.gpus; ++g) {
    const int from = machine.gpus[g].index;
    for (size_t p = 0; p < paths.gpus; ++p) {
      if (p != g) gpu_gpu.push_back(entry(from, machine.gpus[p].index, paths.between_gpus(g, p)));
    }
    for (size_t n = 0; n < paths.nics; ++n) {
      gpu_nic.push_back(entry(from, machine.nics[n].name, paths.to_nic(g, n)));
    }
  }
  return {{"gpu_gpu", std::move(gpu_gpu)}, {"gpu_nic", std::move(gpu_nic)}};
}

}  // namespace mds::topology
