// The doctor on recordings of real machines: what is clean stays silent, what is odd is named, and why.
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/topology/recordings.hpp"
#include "topology/doctor/doctor.hpp"
#include "topology/read/open_topology.hpp"
#include "tests/catch.hpp"

using namespace mds::topology;
using namespace mds::topology::tests;

namespace {

/// What is known to be odd about a recording. None of these is a warning or a fault.
const std::map<std::string, std::set<std::string>> kNotes{
    // Virtual machines: device lists without links, cores and rates.
    {"azure-ndv2-topo.xml", {"links-unseen", "nic-without-rate", "gpu-far-from-nics"}},  // one NIC for two NUMA nodes
    {"azure-ndv5-topo.xml", {"links-unseen", "nic-without-rate"}},
    {"vm-2xh200.xml", {"nvswitch-hidden", "links-unseen", "pci-link-unknown", "cores-unknown"}},
    // Ports of Broadcom's virtual switches report 5 GT/s towards the CPU, all eight of them.
    {"oci-H100-topology.xml", {"pci-uplink-slow"}},
    // Cards for 16 GT/s in a server with 8 GT/s.
    {"rccl-topo_4p1h.xml", {"pci-uplink-slow"}},
    // One NIC for eight GPUs on two sockets; the driver does not count along the bus.
    {"rccl-topo_8p6l_1nic.xml", {"gpu-order", "gpu-far-from-nics"}},
    {"rccl-topo_8p_rome.xml", {"gpu-order", "gpu-far-from-nics"}},
    // hwloc has no rates of InfiniBand ports.
    {"prrte-turin-4gpu-nvml.xml", {"nic-without-rate", "nic-port-down"}},
    {"prrte-turin-4gpu.xml", {"nic-without-rate", "nic-port-down", "links-unseen"}},
    // GPUs hang on their CPU by NVLink, which the recording does not show; PCI is there for control, with two lanes.
    {"mpibind-coral-lassen.xml", {"nic-without-rate", "links-unseen", "pci-uplink-slow"}},
    // The GPUs were at rest, and only the bridges show it. One adapter for two sockets.
    {"mpibind-g4dnmetal.xml", {"nic-without-rate", "pci-uplink-slow", "gpu-far-from-nics"}},
};

}  // namespace

TEST_CASE("recorded machines give no false alarm", "[doctor][recordings]") {
  for (const char* folder : {"nccl", "hwloc"}) {
    for (const auto& file : recordings(folder)) {
      const auto cluster = open_topology(file.string());
      REQUIRE(cluster.ok());
      const auto findings = examine(*cluster);
      INFO(file << " " << to_json(findings).dump(1));
      const auto known = kNotes.find(file.filename().string());
      for (const Finding& finding : findings) {
        REQUIRE(finding.severity == Severity::note);
        if (finding.code == "discovery") continue;  // what the reader says of the format
        REQUIRE(known != kNotes.end());
        REQUIRE(known->second.count(finding.code) == 1);
      }
    }
  }
}

TEST_CASE("what a virtual machine hides is said, with the remedy", "[doctor][recordings]") {
  for (const auto& file : recordings("nccl")) {
    if (file.filename() != "vm-2xh200.xml") continue;
    const auto cluster = open_topology(file.string());
    REQUIRE(cluster.ok());
    bool hidden = false;
    for (const Finding& finding : examine(*cluster)) {
      hidden |= finding.code == "pci-link-unknown" && finding.remedy.find("NCCL_TOPO_FILE") != std::string::npos;
    }
    CHECK(hidden);
  }
}

TEST_CASE("faults put into a recorded machine are found", "[doctor][recordings]") {
  for (const auto& file : recordings("nccl")) {
    if (file.filename() != "oci-H100-topology.xml") continue;
    const auto cluster = open_topology(file.string());
    REQUIRE(cluster.ok());
    const Machine& clean = cluster->nodes.front();
    const auto codes_after = [&](auto change) {
      Machine machine = clean;
      change(machine);
      std::set<std::string> codes;
      for (const Finding& finding : examine(machine)) {
        if (finding.severity != Severity::note) codes.insert(finding.code);
      }
      return codes;
    };
    const auto bridge = static_cast<size_t>(clean.pci[static_cast<size_t>(clean.gpus[3].pci)].parent);
    CHECK(codes_after([&](Machine& m) { m.pci[bridge].link = {2.5, 1}; }) == std::set<std::string>{"virtual-bridge"});
    CHECK(codes_after([&](Machine& m) { std::erase_if(m.links, [](auto& link) { return link.gpu == 5; }); }) ==
          std::set<std::string>{"gpu-without-nvlink"});
    CHECK(codes_after([&](Machine& m) { m.nics.push_back(Nic(m.nics[2])); }) == std::set<std::string>{"duplicate-nic"});
    CHECK(codes_after([&](Machine& m) { m.nics[7].gbps = 0; }) == std::set<std::string>{"nic-without-rate"});
  }
}
