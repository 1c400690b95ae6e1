#include "topology/read/nics.hpp"

#include "tests/catch.hpp"
#include "tests/topology/read/fake_sys.hpp"
#include "topology/read/sysfs.hpp"

using namespace mds;
using namespace mds::topology;
using Notes = std::vector<std::string>;

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
  sys.interface("enx0", "up", "100");
  sys.device("class/net/enx0/device", "0000:01:00.3", 0, "usb1/1-9");
  sys.file("class/net/bonding_masters", "bond0");
  sys.rdma("mlx5_10", "4: ACTIVE", "400 Gb/sec (4X NDR)");
  sys.device("class/infiniband/mlx5_10/device", "0000:9a:00.0", 0);
  sys.rdma("mlx5_9", "4: ACTIVE", "2.5 Gb/sec (1X SDR)");
  sys.rdma("mlx5_11", "1: DOWN", "40 Gb/sec (4X QDR)");
  Notes notes;
  const auto nics = discover_nics(sys.root(), notes);
  Nic down{"mlx5_11", "", -1, 0, true};
  down.active = false;
  CHECK(nics == std::vector<Nic>{{"mlx5_9", "", -1, 2.5, true},
                                 {"mlx5_10", "0000:9a:00.0", 0, 400, true},
                                 down,
                                 {"eth0", "0000:3b:00.0", 1, 100, false},
                                 {"eth2", "10000:00:03.0", -1, 0, false}});
  CHECK(notes == Notes{"RDMA device mlx5_11 is down: none of its ports is active"});
}

TEST_CASE("an RDMA device has its kernel interface with it, and its port, guid and way to GPU memory") {
  FakeSys sys;
  sys.rdma("mlx5_0", "4: ACTIVE", "200 Gb/sec (4X HDR)");
  sys.file("class/infiniband/mlx5_0/node_guid", "b8e9:2403:00ba:a4c8");
  sys.device("class/infiniband/mlx5_0/device", "0000:3b:00.0", 1);
  sys.interface("ib0", "up", "200000", 32);
  sys.device("class/net/ib0/device", "0000:3b:00.0", 1);
  sys.file("devices/pci0000:00/0000:3b:00.0/net/ib0/address", "x");
  // An adapter with two ports of one function: the second is up.
  sys.rdma("mlx4_0", "1: DOWN", "10 Gb/sec (4X SDR)", 1);
  sys.rdma("mlx4_0", "4: ACTIVE", "56 Gb/sec (4X FDR)", 2);
  sys.file("class/infiniband/mlx4_0/node_guid", "0000:0000:0000:0000");
  sys.device("class/infiniband/mlx4_0/device", "0000:5e:00.0", 0);
  for (const char* name : {"ib1", "ib2"}) {
    sys.interface(name, "up", "56000", 32);
    sys.device("class/net/" + std::string(name) + "/device", "0000:5e:00.0", 0);
    sys.file("devices/pci0000:00/0000:5e:00.0/net/" + std::string(name) + "/address", "x");
    sys.file("class/net/" + std::string(name) + "/dev_port", name == std::string("ib1") ? "0" : "1");
  }
  Notes notes;
  const auto closed = discover_nics(sys.root(), notes);
  REQUIRE(closed.size() == 2);
  CHECK_FALSE(closed[0].gdr);
  sys.file("module/nvidia_peermem/version", "1");
  const auto nics = discover_nics(sys.root(), notes);
  CHECK(nics == std::vector<Nic>{{"mlx4_0", "0000:5e:00.0", 0, 56, true, -1, 2, "", "ib2", true},
                                 {"mlx5_0", "0000:3b:00.0", 1, 200, true, -1, 1, "0xb8e9240300baa4c8", "ib0", true}});
  CHECK(notes.empty());
}

TEST_CASE("a bond stands for its members, and belongs to the RDMA device that it is made of") {
  FakeSys sys;
  for (const char* name : {"eth0", "eth1"}) {
    sys.interface(name, "up", "25000");
    sys.device("class/net/" + std::string(name) + "/device", std::string("0000:3b:00.") + (name + 3), 0);
    sys.link("class/net/bond0", "class/net/" + std::string(name) + "/master");
  }
  sys.interface("bond0", "up", "50000");
  sys.file("class/net/bond0/bonding/slaves", "eth0 eth1");
  Notes notes;
  CHECK(discover_nics(sys.root(), notes) == std::vector<Nic>{{"bond0", "", -1, 50, false}});

  sys.rdma("mlx5_bond_0", "4: ACTIVE", "50 Gb/sec (2X EDR)");
  sys.device("class/infiniband/mlx5_bond_0/device", "0000:3b:00.0", 0);
  sys.file("devices/pci0000:00/0000:3b:00.0/net/eth0/address", "x");
  const auto nics = discover_nics(sys.root(), notes);
  REQUIRE(nics.size() == 1);
  CHECK(nics[0].name == "mlx5_bond_0");
  CHECK(nics[0].interface == "bond0");
}

TEST_CASE("virtual interfaces count only where there is nothing else") {
  FakeSys sys;
  Notes notes;
  sys.interface("lo", "unknown", "", 772);
  CHECK(discover_nics(sys.root(), notes).empty());
  CHECK(notes == Notes{"no network interface is up but loopback"});
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
