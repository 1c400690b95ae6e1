#include "topology/nics.hpp"

#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "tests/catch.hpp"
#include "topology/sysfs.hpp"

using namespace mds;
using namespace mds::topology;
namespace fs = std::filesystem;

namespace {

/// A little sysfs in a temporary folder.
class FakeSys {
 public:
  FakeSys() {
    std::string pattern = fs::temp_directory_path() / "sys-XXXXXX";
    root_ = mkdtemp(pattern.data());
    fs::create_directories(root_ / "class/net");
  }
  ~FakeSys() { fs::remove_all(root_); }
  const fs::path& root() const { return root_; }

  void file(const fs::path& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << "\n";
  }

  /// Links `path` to a PCI device, which may have children (virtio) between.
  void device(const fs::path& path, const std::string& bus_id, int numa, const std::string& child = "") {
    const fs::path pci = fs::path("devices/pci0000:00") / bus_id;
    file(pci / "numa_node", std::to_string(numa));
    fs::create_directories(root_ / pci / child);
    fs::create_directories((root_ / path).parent_path());
    fs::create_directory_symlink(root_ / pci / child, root_ / path);
  }

  void interface(const std::string& name, const std::string& state, const std::string& speed, int type = 1) {
    file("class/net/" + name + "/operstate", state);
    file("class/net/" + name + "/type", std::to_string(type));
    if (!speed.empty()) file("class/net/" + name + "/speed", speed);
  }

  void rdma(const std::string& name, const std::string& state, const std::string& rate) {
    file("class/infiniband/" + name + "/ports/1/state", state);
    file("class/infiniband/" + name + "/ports/1/rate", rate);
  }

 private:
  fs::path root_;
};

}  // namespace

TEST_CASE("network devices are read with rate, NUMA node and bus id") {
  FakeSys sys;
  sys.interface("lo", "unknown", "", 772);
  sys.interface("docker0", "up", "10000");
  sys.interface("eth0", "up", "100000");
  sys.device("class/net/eth0/device", "0000:3b:00.0", 1);
  sys.interface("eth1", "down", "100000");
  sys.device("class/net/eth1/device", "0000:3b:00.1", 1);
  sys.interface("eth2", "up", "-1");
  sys.device("class/net/eth2/device", "10000:00:03.0", -1, "virtio2");
  sys.file("class/net/bonding_masters", "bond0");
  sys.rdma("mlx5_10", "4: ACTIVE", "400 Gb/sec (4X NDR)");
  sys.device("class/infiniband/mlx5_10/device", "0000:9a:00.0", 0);
  sys.rdma("mlx5_9", "4: ACTIVE", "2.5 Gb/sec (1X SDR)");
  sys.rdma("mlx5_11", "1: DOWN", "40 Gb/sec (4X QDR)");
  std::vector<std::string> notes;
  const auto nics = discover_nics(sys.root(), notes);
  CHECK(nics == std::vector<Nic>{{"mlx5_9", "", -1, 2.5, true},
                                 {"mlx5_10", "0000:9a:00.0", 0, 400, true},
                                 {"eth0", "0000:3b:00.0", 1, 100, false},
                                 {"eth2", "10000:00:03.0", -1, 0, false}});
  CHECK(notes == std::vector<std::string>{"RDMA device mlx5_11 is left out: none of its ports is active"});
}

TEST_CASE("a bond stands for its members") {
  FakeSys sys;
  for (const char* name : {"eth0", "eth1"}) {
    sys.interface(name, "up", "25000");
    sys.device("class/net/" + std::string(name) + "/device", std::string("0000:3b:00.") + (name + 3), 0);
    fs::create_directory_symlink(sys.root() / "class/net/bond0", sys.root() / "class/net" / name / "master");
  }
  sys.interface("bond0", "up", "50000");
  sys.file("class/net/bond0/bonding/slaves", "eth0 eth1");
  std::vector<std::string> notes;
  CHECK(discover_nics(sys.root(), notes) == std::vector<Nic>{{"bond0", "", -1, 50, false}});
}

TEST_CASE("virtual interfaces count only where there is nothing else") {
  FakeSys sys;
  std::vector<std::string> notes;
  sys.interface("lo", "unknown", "", 772);
  CHECK(discover_nics(sys.root(), notes).empty());
  CHECK(notes == std::vector<std::string>{"no network interface is up but loopback"});
  notes.clear();
  sys.interface("veth7", "up", "10000");
  CHECK(discover_nics(sys.root(), notes) == std::vector<Nic>{{"veth7", "", -1, 10, false}});
  CHECK(notes.empty());
  CHECK(discover_nics("/nonexistent", notes).empty());
}

TEST_CASE("bus ids are written as the kernel writes them") {
  CHECK(sysfs::kernel_bus_id("00000000:3B:00.0") == "0000:3b:00.0");
  CHECK(sysfs::kernel_bus_id("00010000:3B:00.0") == "00010000:3b:00.0");
  CHECK(sysfs::kernel_bus_id("0000:3b:00.0") == "0000:3b:00.0");
  CHECK_FALSE(sysfs::read("/nonexistent"));
  CHECK_FALSE(sysfs::read_number("/proc/self/comm"));
}
