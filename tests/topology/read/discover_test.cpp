#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "tests/catch.hpp"
#include "tests/topology/read/fake_sys.hpp"
#include "topology/read/discover.hpp"
#include "topology/cluster.hpp"
#include "topology/placement.hpp"
#include "topology/read/sysfs.hpp"

using namespace mds;
using namespace mds::topology;

namespace {

constexpr size_t kCpusMax = 8192;

std::set<int> affinity() {
  cpu_set_t* mask = CPU_ALLOC(kCpusMax);
  REQUIRE(sched_getaffinity(0, CPU_ALLOC_SIZE(kCpusMax), mask) == 0);
  std::set<int> cpus;
  for (size_t cpu = 0; cpu < kCpusMax; ++cpu) {
    if (CPU_ISSET_S(cpu, CPU_ALLOC_SIZE(kCpusMax), mask)) cpus.insert(static_cast<int>(cpu));
  }
  CPU_FREE(mask);
  return cpus;
}

bool set_affinity(const std::set<int>& cpus) {
  cpu_set_t* mask = CPU_ALLOC(kCpusMax);
  CPU_ZERO_S(CPU_ALLOC_SIZE(kCpusMax), mask);
  for (const int cpu : cpus) CPU_SET_S(static_cast<size_t>(cpu), CPU_ALLOC_SIZE(kCpusMax), mask);
  const bool done = sched_setaffinity(0, CPU_ALLOC_SIZE(kCpusMax), mask) == 0;
  CPU_FREE(mask);
  return done;
}

std::set<int> cpus_of(const Machine& machine) {
  std::set<int> cpus;
  for (const Core& core : machine.cores) cpus.insert(core.cpus.begin(), core.cpus.end());
  return cpus;
}

/// "0-3,8" as the kernel writes sets.
std::set<int> parse_list(const std::string& text) {
  std::set<int> numbers;
  std::istringstream in(text);
  for (std::string item; std::getline(in, item, ',');) {
    const size_t dash = item.find('-');
    const int first = std::stoi(item), last = dash == std::string::npos ? first : std::stoi(item.substr(dash + 1));
    for (int i = first; i <= last; ++i) numbers.insert(i);
  }
  return numbers;
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string status_field(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(name + ":", 0) == 0) return line.substr(line.find_first_not_of(" \t", name.size() + 1));
  }
  return "";
}

}  // namespace

TEST_CASE("discovery agrees with the kernel about this machine") {
  const auto machine = discover_machine();
  REQUIRE(machine);
  CHECK(cpus_of(*machine) == affinity());
  CHECK(cpus_of(*machine) == parse_list(status_field("Cpus_allowed_list")));
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  CHECK(machine->host == host);

  std::set<int> numa;
  for (const NumaNode& node : machine->numa) numa.insert(node.os_index);
  if (std::filesystem::exists("/sys/devices/system/node/online")) {
    const auto allowed = parse_list(status_field("Mems_allowed_list"));
    std::set<int> expected;  // nodes without CPUs may hold a GPU's memory, which hwloc leaves out
    for (const int node : parse_list(first_line("/sys/devices/system/node/has_memory"))) {
      const bool has_cpus = !first_line("/sys/devices/system/node/node" + std::to_string(node) + "/cpulist").empty();
      if (has_cpus && allowed.count(node)) expected.insert(node);
    }
    CHECK(std::includes(numa.begin(), numa.end(), expected.begin(), expected.end()));
  }
  for (const Core& core : machine->cores) {
    const std::string cpu = "/sys/devices/system/cpu/cpu" + std::to_string(core.cpus.front());
    auto siblings = parse_list(first_line(cpu + "/topology/thread_siblings_list"));
    const auto mine = affinity();
    for (auto i = siblings.begin(); i != siblings.end();) i = mine.count(*i) ? std::next(i) : siblings.erase(i);
    CHECK(std::set<int>(core.cpus.begin(), core.cpus.end()) == siblings);
    CHECK((numa.empty() || std::filesystem::exists(cpu + "/node" + std::to_string(core.numa))));
  }
  for (const NumaNode& node : machine->numa) CHECK(node.memory_bytes > 0);
  for (const Nic& nic : machine->nics) {
    INFO(nic.name);
    CHECK(std::filesystem::exists((nic.rdma ? "/sys/class/infiniband/" : "/sys/class/net/") + nic.name));
    CHECK(nic.name != "lo");
  }
  for (const Gpu& gpu : machine->gpus) CHECK(std::filesystem::exists("/sys/bus/pci/devices/" + gpu.bus_id));
  CHECK(*machine_from_json(to_json(*machine)) == *machine);
}

TEST_CASE("discovery heeds the affinity mask of the thread that asks") {
  const auto all = affinity();
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  std::set<int> some;
  for (const int cpu : all) {
    if (random() % 2) some.insert(cpu);
  }
  if (some.empty()) some.insert(*all.begin());
  Result<Machine> machine = internal("not run");
  bool bound = false;
  std::thread([&] {
    bound = set_affinity(some);
    machine = discover_machine();
  }).join();
  REQUIRE(bound);
  REQUIRE(machine);
  CHECK(cpus_of(*machine) == some);
  CHECK(affinity() == all);
  if (machine->cores.size() < discover_machine()->cores.size()) {
    REQUIRE_FALSE(machine->notes.empty());
    CHECK(machine->notes[0].find("affinity mask or cpuset leaves") != std::string::npos);
  }
}

TEST_CASE("discovery leaves the environment as it was, and threads may ask at the same time") {
  const char* const before = std::getenv("HWLOC_PLUGINS_PATH");
  REQUIRE(discover_machine());
  const char* const after = std::getenv("HWLOC_PLUGINS_PATH");
  CHECK((before ? std::string(before) : "unset") == (after ? std::string(after) : "unset"));

  std::vector<Machine> machines(4);
  std::vector<std::thread> threads;
  for (Machine& machine : machines) {
    threads.emplace_back([&machine] {
      for (int i = 0; i < 5; ++i) machine = *discover_machine();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Machine& machine : machines) CHECK(cpus_of(machine) == affinity());
}

TEST_CASE("packages, hardware threads and NUMA nodes are read as hwloc gives them") {
  // hwloc's own synthetic machine with our CPU numbers: two packages of N cores with two threads each.
  const auto allowed = affinity();
  const int cores = *allowed.rbegin() / 4 + 1;
  const std::string description = "pack:2 [numa] core:" + std::to_string(cores) + " pu:2";
  INFO(description);
  setenv("HWLOC_SYNTHETIC", description.c_str(), 1);
  const auto machine = discover_machine();
  unsetenv("HWLOC_SYNTHETIC");
  REQUIRE(machine);
  CHECK(cpus_of(*machine) == allowed);
  for (const Core& core : machine->cores) {
    CHECK(core.index == core.cpus.front() / 2);
    CHECK(core.index == core.cpus.back() / 2);
    CHECK(core.package == core.index / cores);
    CHECK(core.numa == core.package);
  }
  const auto memory = parse_list(status_field("Mems_allowed_list"));
  for (const NumaNode& node : machine->numa) {
    CHECK(node.package == node.os_index);
    CHECK(memory.count(node.os_index));
  }
  if (static_cast<int>(machine->cores.size()) == 2 * cores) return;
  REQUIRE_FALSE(machine->notes.empty());
  CHECK(machine->notes[0].find("leaves " + std::to_string(machine->cores.size()) + " of " + std::to_string(2 * cores) +
                               " cores") != std::string::npos);
}

TEST_CASE("a placement on this machine stays inside of the affinity mask") {
  const auto machine = discover_machine();
  REQUIRE(machine);
  PlacementRequest request{*RankGrid::make(2, 1, 2, 1), 2, DeviceKind::cpu, true};
  const auto placement = place(Cluster{{*machine, *machine}}, request);
  REQUIRE(placement);
  const auto allowed = affinity();
  for (const RankPlacement& rank : placement->ranks) {
    for (const int cpu : rank.cpus) CHECK(allowed.count(cpu));
    CHECK(rank.shares_cores == (machine->cores.size() < 4));
  }
}

TEST_CASE("the PCI tree of GPUs and NICs is read with links as trained and as both ends could") {
  FakeSys sys;
  const std::string root = "pci0000:00", port = root + "/0000:00:01.0", up = port + "/0000:01:00.0";
  sys.pci(up + "/0000:02:00.0", "0000:03:00.0", "0x030200", 1, "2.5 GT/s PCIe", "16");
  sys.pci(up + "/0000:02:01.0", "0000:04:00.0", "0x020700", 1, "32.0 GT/s PCIe", "8");
  sys.pci(up, "0000:02:00.0", "0x060400", 1, "32.0 GT/s PCIe", "16");
  sys.pci(up, "0000:02:01.0", "0x060400", 1, "32.0 GT/s PCIe", "16");
  sys.pci(port, "0000:01:00.0", "0x060400", 1, "Unknown", "255");
  sys.pci(root, "0000:00:01.0", "0x060400", 1, "32.0 GT/s PCIe", "16");
  sys.file("devices/" + up + "/0000:02:01.0/max_link_speed", "16.0 GT/s PCIe");  // the slower end
  Machine machine;
  machine.gpus.push_back({0, "", "0000:03:00.0", "", 0, -1});
  machine.gpus.push_back({1, "", "0000:77:00.0", "", 0, -1});  // unknown to /sys
  machine.nics.push_back({"mlx5_0", "0000:04:00.0", -1, 400, true});
  machine.nics.push_back({"tap", "", -1, 0, false});
  machine.links.push_back({LinkKind::c2c, 0, LinkEnd::cpu, -1, "", 1, 372});
  std::vector<PciDevice> functions(2);
  functions[1].bus_id = "0000:77:00.0";
  functions[1].link = functions[1].link_max = {32, 16};
  sysfs::add_pci_tree(sys.root(), functions, machine);

  REQUIRE(machine.pci.size() == 7);
  std::vector<std::string> ids;
  std::vector<int> parents;
  for (const PciDevice& device : machine.pci) ids.push_back(device.bus_id), parents.push_back(device.parent);
  CHECK(ids == std::vector<std::string>{"0000:00:01.0", "0000:01:00.0", "0000:02:00.0", "0000:03:00.0",
                                        "0000:77:00.0", "0000:02:01.0", "0000:04:00.0"});
  CHECK(parents == std::vector<int>{-1, 0, 1, 2, -1, 1, 5});
  CHECK(machine.pci[1].link == PciLink{});
  CHECK(machine.pci[3].link == PciLink{2.5, 16});
  CHECK(machine.pci[3].link_max == PciLink{32, 16});
  CHECK(machine.pci[6].link == PciLink{32, 8});
  CHECK(machine.pci[6].link_max == PciLink{16, 16});
  CHECK(machine.pci[3].pci_class == 0x030200);
  CHECK(machine.pci[4].link == PciLink{32, 16});
  CHECK(machine.gpus[0].pci == 3);
  CHECK(machine.gpus[0].numa == 1);
  CHECK(machine.gpus[1].pci == 4);
  CHECK(machine.nics[0].pci == 6);
  CHECK(machine.nics[0].numa == 1);
  CHECK(machine.nics[1].pci == -1);
  CHECK(machine.links[0].peer == 1);
  CHECK(machine.notes == std::vector<std::string>{"/sys hides the PCI tree and NUMA node of 1 of 2 GPUs (a virtual "
                                                  "machine?)"});
}

TEST_CASE("the discovery that every start pays is quick") {
  REQUIRE(discover_machine());  // loads libraries
  auto least = std::chrono::nanoseconds::max();
  for (int i = 0; i < 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    REQUIRE(discover_machine());
    least = std::min<std::chrono::nanoseconds>(least, std::chrono::steady_clock::now() - begin);
  }
  CHECK(std::chrono::duration<double, std::milli>(least).count() < 30);
}

TEST_CASE("this machine has packages with a maker") {
  const auto machine = discover_machine();
  REQUIRE(machine);
  CHECK_FALSE(machine->packages.empty());
  for (const Package& package : machine->packages) CHECK_FALSE(package.arch.empty());
  for (const Core& core : machine->cores) CHECK(core.package < static_cast<int>(machine->packages.size()));
#ifdef __x86_64__
  CHECK_FALSE(machine->packages[0].vendor.empty());
  CHECK(machine->packages[0].family > 0);
#endif
}
