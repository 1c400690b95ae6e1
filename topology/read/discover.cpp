// The live topology source: hwloc for cores and NUMA nodes, NVML for GPUs, /sys for network interfaces.
#include <hwloc.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string_view>

#include "topology/read/discover.hpp"
#include "topology/cluster.hpp"
#include "topology/read/gpus.hpp"
#include "topology/read/nics.hpp"
#include "topology/read/sysfs.hpp"

namespace mds::topology {
namespace {

struct Destroy {
  void operator()(hwloc_topology* topology) const { hwloc_topology_destroy(topology); }
};
using Topology = std::unique_ptr<hwloc_topology, Destroy>;

/// hwloc loads all its plug-ins (OpenCL, GL, libxml, ...) in the first hwloc_topology_init, whatever is disabled
/// later: a millisecond warm, tens of them cold. Only an environment variable keeps it from that. What it has loaded it
/// keeps as long as a topology exists, hence the one that lives for ever. The variable is put back, because ranks
/// inherit the environment.
void load_hwloc_without_plugins() {
  static std::once_flag once;
  std::call_once(once, [] {
    constexpr const char* kVariable = "HWLOC_PLUGINS_PATH";
    const char* const set = std::getenv(kVariable);
    const std::optional<std::string> before = set ? std::optional<std::string>(set) : std::nullopt;
    setenv(kVariable, "/nonexistent", 1);
    static hwloc_topology_t holder = nullptr;
    if (hwloc_topology_init(&holder) != 0) holder = nullptr;
    before ? setenv(kVariable, before->c_str(), 1) : unsetenv(kVariable);
  });
}

/// Packages, cores and NUMA nodes, among them those that we may not use, so that they can be counted.
Result<Topology> load_topology() {
  load_hwloc_without_plugins();
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return system_error("hwloc_topology_init", errno);
  Topology topology(raw);
  // x86 would visit every CPU in turn to ask what Linux has told already; the others open GPU libraries.
  constexpr std::array kSlow{"x86", "opencl", "cuda", "nvml", "gl", "levelzero", "rsmi"};
  for (const char* component : kSlow) {
    hwloc_topology_set_components(raw, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, component);
  }
  hwloc_topology_set_all_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_NONE);
  hwloc_topology_set_type_filter(raw, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL);
  hwloc_topology_set_type_filter(raw, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
  unsigned long flags = HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED;
#if HWLOC_API_VERSION >= 0x00020800
  flags |= HWLOC_TOPOLOGY_FLAG_NO_DISTANCES | HWLOC_TOPOLOGY_FLAG_NO_MEMATTRS | HWLOC_TOPOLOGY_FLAG_NO_CPUKINDS;
#endif
  hwloc_topology_set_flags(raw, flags);
  if (hwloc_topology_load(raw) != 0) return system_error("hwloc_topology_load", errno);
  return topology;
}

/// CPUs of the calling thread's affinity mask; the kernel has already taken the cpuset into account.
Result<std::set<int>> allowed_cpus() {
  for (size_t count = 1024; count <= (1 << 20); count *= 2) {
    std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> mask(CPU_ALLOC(count), [](cpu_set_t* set) { CPU_FREE(set); });
    const size_t bytes = CPU_ALLOC_SIZE(count);
    if (sched_getaffinity(0, bytes, mask.get()) == 0) {
      std::set<int> cpus;
      for (size_t cpu = 0; cpu < count; ++cpu) {
        if (CPU_ISSET_S(cpu, bytes, mask.get())) cpus.insert(static_cast<int>(cpu));
      }
      return cpus;
    }
    if (errno != EINVAL) return system_error("sched_getaffinity", errno);  // EINVAL: the kernel's mask is larger
  }
  return internal("sched_getaffinity: the kernel's CPU mask is larger than a million CPUs");
}

/// NUMA nodes that the cpuset lets us allocate from; nothing where the kernel does not say (no NUMA, seccomp).
std::optional<std::set<int>> allowed_numa_nodes() {
  constexpr size_t kWordBits = sizeof(unsigned long) * CHAR_BIT;
  std::array<unsigned long, 4096 / kWordBits> mask{};  // the kernel wants room for its MAX_NUMNODES, 1024 at most
  if (syscall(SYS_get_mempolicy, nullptr, mask.data(), mask.size() * kWordBits, nullptr, MPOL_F_MEMS_ALLOWED) != 0) {
    return std::nullopt;
  }
  std::set<int> nodes;
  for (size_t i = 0; i < mask.size() * kWordBits; ++i) {
    if (mask[i / kWordBits] >> (i % kWordBits) & 1) nodes.insert(static_cast<int>(i));
  }
  return nodes;
}

/// As NCCL calls it.
std::string architecture() {
  utsname names{};
  if (uname(&names) != 0) return "";
  return std::string_view(names.machine) == "aarch64" ? "arm64" : names.machine;
}

int number_info(hwloc_obj_t object, const char* name) {
  const char* const value = hwloc_obj_get_info_by_name(object, name);
  return value ? std::clamp(std::atoi(value), 0, 1 << 20) : 0;
}

void read_packages(hwloc_topology_t topology, Machine& machine) {
  for (hwloc_obj_t object = nullptr; (object = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PACKAGE, object));) {
    Package package;
    package.index = static_cast<int>(object->logical_index);
    package.arch = architecture();
    const char* const vendor = hwloc_obj_get_info_by_name(object, "CPUVendor");
    package.vendor = vendor ? vendor : "";
    package.family = number_info(object, "CPUFamilyNumber");
    package.model = number_info(object, "CPUModelNumber");
    machine.packages.push_back(std::move(package));
  }
}

int package_of(hwloc_obj_t object) {
  while (object && object->type != HWLOC_OBJ_PACKAGE) object = object->parent;
  return object ? static_cast<int>(object->logical_index) : 0;
}

/// The first NUMA node attached to the object or to the nearest one above it.
int numa_of(hwloc_obj_t object) {
  for (; object; object = object->parent) {
    hwloc_obj_t memory = object->memory_first_child;
    while (memory && memory->type != HWLOC_OBJ_NUMANODE) memory = memory->memory_first_child;  // a memory-side cache
    if (memory) return static_cast<int>(memory->os_index);
  }
  return 0;
}

/// Cores with at least one CPU that we may use, and only those CPUs of them.
void read_cores(hwloc_topology_t topology, const std::set<int>& allowed, Machine& machine) {
  // Some virtual machines tell of no cores: then each CPU is one.
  const bool has_cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0;
  const hwloc_obj_type_t type = has_cores ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
  size_t seen = 0;
  for (hwloc_obj_t object = nullptr; (object = hwloc_get_next_obj_by_type(topology, type, object));) {
    ++seen;
    Core core;
    for (int cpu = hwloc_bitmap_first(object->cpuset); cpu >= 0; cpu = hwloc_bitmap_next(object->cpuset, cpu)) {
      if (allowed.count(cpu)) core.cpus.push_back(cpu);
    }
    if (core.cpus.empty()) continue;
    core.index = static_cast<int>(object->logical_index);
    core.package = package_of(object);
    core.numa = numa_of(object);
    machine.cores.push_back(std::move(core));
  }
  if (machine.cores.size() < seen) {
    machine.notes.push_back("the affinity mask or cpuset leaves " + std::to_string(machine.cores.size()) + " of " +
                            std::to_string(seen) + " cores");
  }
}

void read_numa_nodes(hwloc_topology_t topology, Machine& machine) {
  const auto allowed = allowed_numa_nodes();
  size_t seen = 0;
  for (hwloc_obj_t object = nullptr; (object = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, object));) {
    if (object->subtype && std::string_view(object->subtype) == "GPUMemory") continue;  // Grace, POWER9
    ++seen;
    const int os_index = static_cast<int>(object->os_index);
    if (allowed && !allowed->count(os_index)) continue;
    machine.numa.push_back({os_index, package_of(object->parent), object->attr->numanode.local_memory});
  }
  std::sort(machine.numa.begin(), machine.numa.end(),
            [](const NumaNode& a, const NumaNode& b) { return a.os_index < b.os_index; });
  if (machine.numa.size() < seen) {
    machine.notes.push_back("the cpuset leaves " + std::to_string(machine.numa.size()) + " of " + std::to_string(seen) +
                            " NUMA nodes");
  }
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  if (gethostname(name, sizeof name - 1) != 0 || !name[0]) return "localhost";
  return name;
}

}  // namespace

Result<Machine> discover_machine(const DiscoverOptions& options) {
  auto topology = load_topology();
  if (!topology) return topology.error();
  const auto cpus = allowed_cpus();
  if (!cpus) return cpus.error();

  Machine machine;
  machine.host = host_name();
  read_packages(topology->get(), machine);
  read_cores(topology->get(), *cpus, machine);
  read_numa_nodes(topology->get(), machine);
  if (machine.cores.empty()) return internal("hwloc found none of the CPUs that this process may use");
  FoundGpus found;
  if (options.gpus) {
    found = discover_gpus(options.links, machine.notes);
    const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
    if (visible) found = visible_gpus(found, visible, machine.notes);
  }
  machine.gpus = std::move(found.gpus);
  machine.links = std::move(found.links);
  machine.nics = discover_nics("/sys", machine.notes);
  sysfs::add_pci_tree("/sys", found.functions, machine);
  return machine;
}

}  // namespace mds::topology
