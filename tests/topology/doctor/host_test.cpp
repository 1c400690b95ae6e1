// The doctor on the host's own settings, with a made-up /sys and /proc.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "topology/doctor/host_checks.hpp"
#include "tests/catch.hpp"

using namespace mds::topology;
namespace fs = std::filesystem;

namespace {

/// A folder that stands for the root of a host, gone at the end.
class FakeRoot {
 public:
  FakeRoot() : path_(fs::temp_directory_path() / ("mds-host-" + std::to_string(::getpid()))) {
    fs::create_directories(path_);
  }
  ~FakeRoot() { fs::remove_all(path_); }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;

  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  std::string path() const { return path_.string(); }

 private:
  const fs::path path_;
};

Machine gpu_machine() {
  Machine machine;
  machine.host = "here";
  machine.numa = {{0, 0, 1}, {1, 0, 1}};
  machine.gpus.resize(2);
  machine.nics.push_back({"mlx5_0", "0000:01:00.0", 0, 400, true});
  return machine;
}

std::set<std::string> codes(const HostFacts& facts, const Machine& machine) {
  std::set<std::string> codes;
  for (const Finding& finding : examine_host(facts, machine)) {
    CHECK_FALSE(finding.remedy.empty());
    codes.insert(finding.code);
  }
  return codes;
}

/// The configuration space of a bridge with one extended capability, ACS, and its control register.
std::string space_with_acs(uint8_t control) {
  std::string space(4096, '\0');
  space[0x100] = 0x01;  // Advanced Error Reporting, and where the next capability is
  space[0x103] = 0x14;
  space[0x140] = 0x0d;
  space[0x146] = static_cast<char>(control);
  return space;
}

}  // namespace

TEST_CASE("a host of which nothing can be read has no findings", "[doctor]") {
  const FakeRoot root;
  HostFacts facts;
  facts.root = root.path();
  CHECK(codes(facts, gpu_machine()).empty());
  CHECK(codes(facts, Machine{}).empty());
}

TEST_CASE("each setting of the host is found", "[doctor]") {
  const FakeRoot root;
  HostFacts facts;
  facts.root = root.path();
  SECTION("limits") {
    facts.shm_bytes = 64 << 20;
    facts.memlock_bytes = 64 << 10;
    facts.open_files = 1024;
    facts.clock_synchronised = false;
    CHECK(codes(facts, gpu_machine()) ==
          std::set<std::string>{"shm-small", "memlock-low", "nofile-low", "clock-unsynchronised"});
    CHECK(codes(facts, Machine{}).count("memlock-low") == 0);  // only RDMA registers memory
  }
  SECTION("good limits") {
    facts.shm_bytes = uint64_t{16} << 30;
    facts.open_files = 65536;
    facts.clock_synchronised = true;
    CHECK(codes(facts, gpu_machine()).empty());
  }
  SECTION("driver without a GPU") {
    root.write("proc/driver/nvidia/version", "NVRM version: 580\n");
    CHECK(codes(facts, Machine{}) == std::set<std::string>{"driver-without-gpu"});
    CHECK(codes(facts, gpu_machine()) == std::set<std::string>{"peermem-missing"});
    root.write("sys/module/nvidia_peermem/refcnt", "0\n");
    CHECK(codes(facts, gpu_machine()).empty());
  }
  SECTION("a GPU without a driver") {
    root.write("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n");
    root.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n");
    root.write("sys/bus/pci/devices/0000:02:00.0/class", "0x030000\n");  // the board's own graphics
    root.write("sys/bus/pci/devices/0000:02:00.0/vendor", "0x1a03\n");
    CHECK(codes(facts, Machine{}) == std::set<std::string>{"gpu-without-driver"});
  }
  SECTION("frequency governor") {
    root.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
    root.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_driver", "acpi-cpufreq\n");
    CHECK(codes(facts, gpu_machine()) == std::set<std::string>{"cpu-powersave"});
    root.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_driver", "intel_pstate\n");
    root.write("sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference", "balance_performance\n");
    CHECK(codes(facts, gpu_machine()).empty());
    root.write("sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference", "power\n");
    CHECK(codes(facts, gpu_machine()) == std::set<std::string>{"cpu-powersave"});
  }
  SECTION("memory") {
    root.write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
    root.write("proc/sys/kernel/numa_balancing", "1\n");
    CHECK(codes(facts, gpu_machine()) == std::set<std::string>{"hugepages-off", "numa-balancing-on"});
    root.write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    root.write("proc/sys/kernel/numa_balancing", "0\n");
    CHECK(codes(facts, gpu_machine()).empty());
  }
  SECTION("ways between devices") {
    root.write("sys/bus/pci/devices/0000:00:01.0/class", "0x060400\n");
    root.write("sys/bus/pci/devices/0000:00:01.0/config", space_with_acs(0x1d));
    root.write("sys/kernel/iommu_groups/0/type", "DMA-FQ\n");
    CHECK(codes(facts, gpu_machine()) == std::set<std::string>{"pci-acs-on", "iommu-translates"});
    root.write("sys/bus/pci/devices/0000:00:01.0/config", space_with_acs(0x01));  // redirects nothing
    root.write("sys/kernel/iommu_groups/0/type", "identity\n");
    CHECK(codes(facts, gpu_machine()).empty());
    root.write("sys/bus/pci/devices/0000:00:01.0/config", std::string(256, '\x0d'));  // what others than root may read
    CHECK(codes(facts, gpu_machine()).empty());
  }
}

TEST_CASE("the facts of this host can be read", "[doctor]") {
  const HostFacts facts = read_host_facts();
  CHECK(facts.root.empty());
  CHECK(facts.open_files > 0);
  CHECK_NOTHROW(examine_host(facts, Machine{}));
}
