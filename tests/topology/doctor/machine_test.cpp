// The doctor on single machines: silent where nothing is wrong, and one fault gives that fault's finding alone.
#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "tests/topology/doctor/clean_machine.hpp"
#include "topology/doctor/doctor.hpp"
#include "tests/catch.hpp"

using namespace mds::topology;
using tests::clean_machine;
using tests::Joined;

namespace {

std::string text_of(const std::vector<Finding>& findings) { return to_json(findings).dump(1); }

std::set<std::string> codes_of(const std::vector<Finding>& findings) {
  std::set<std::string> codes;
  for (const Finding& finding : findings) codes.insert(finding.code);
  return codes;
}

/// Something to break, and what the doctor must say of it.
struct Fault {
  const char* code;
  Severity severity;
  Joined joined;
  std::function<void(Machine&, std::mt19937&)> inject;
};

size_t pick(size_t count, std::mt19937& random) { return std::uniform_int_distribution<size_t>(0, count - 1)(random); }

Gpu& some_gpu(Machine& machine, std::mt19937& random) { return machine.gpus[pick(machine.gpus.size(), random)]; }
Nic& some_nic(Machine& machine, std::mt19937& random) { return machine.nics[pick(machine.nics.size(), random)]; }
PciDevice& device_of(Machine& machine, int pci) { return machine.pci[static_cast<size_t>(pci)]; }
PciDevice& bridge_above(Machine& machine, const Gpu& gpu) {
  return device_of(machine, device_of(machine, gpu.pci).parent);
}
GpuLink& some_link(Machine& machine, std::mt19937& random) { return machine.links[pick(machine.links.size(), random)]; }

const std::vector<Fault>& link_faults() {
  static const std::vector<Fault> all{
      {"gpu-without-nvlink", Severity::fault, Joined::by_switches,
       [](Machine& m, auto& random) {
         const int gpu = some_gpu(m, random).index;
         std::erase_if(m.links, [&](const GpuLink& link) { return link.gpu == gpu; });
       }},
      {"gpu-without-nvlink", Severity::fault, Joined::mesh,
       [](Machine& m, auto& random) {
         const int gpu = some_gpu(m, random).index;
         std::erase_if(m.links, [&](const GpuLink& link) { return link.gpu == gpu || link.peer == gpu; });
       }},
      {"gpu-links-fewer", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) { some_link(m, random).count -= 2; }},
      {"link-asymmetric", Severity::fault, Joined::mesh,
       [](Machine& m, auto& random) { ++some_link(m, random).count; }},
      {"link-asymmetric", Severity::fault, Joined::mesh,
       [](Machine& m, auto& random) {
         m.links.erase(m.links.begin() + static_cast<long>(pick(m.links.size(), random)));
       }},
      {"link-to-itself", Severity::fault, Joined::by_switches,
       [](Machine& m, auto& random) {
         const Gpu& gpu = some_gpu(m, random);
         m.links.push_back({LinkKind::nvlink, gpu.index, LinkEnd::gpu, gpu.index, gpu.bus_id, 1, 20.6});
       }},
      {"link-to-unknown-device", Severity::fault, Joined::mesh,
       [](Machine& m, auto& random) {
         // Both ends of the cable: the other GPU's own count goes with it.
         const GpuLink link = some_link(m, random);
         for (GpuLink& one : m.links) {
           if ((one.gpu != link.gpu || one.peer != link.peer) && (one.gpu != link.peer || one.peer != link.gpu))
             continue;
           one.peer = -1;
           one.peer_bus_id = "0000:77:00.0";
         }
       }},
      {"gpu-link-slow", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) { some_link(m, random).gb_per_s_each = 12; }},
  };
  return all;
}

const std::vector<Fault>& device_faults() {
  static const std::vector<Fault> all{
      {"pci-link-narrow", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) { device_of(m, some_gpu(m, random).pci).link.width = 8; }},
      {"pci-link-slow", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) {
         PciDevice& device = device_of(m, some_gpu(m, random).pci);
         device.link.gtps = 16;
         device.link_max = {};
       }},
      {"pci-link-narrow", Severity::warning, Joined::not_at_all,
       [](Machine& m, auto&) {
         for (const Gpu& gpu : m.gpus) device_of(m, gpu.pci).link = device_of(m, gpu.pci).link_max = {32, 8};
       }},
      {"pci-link-unknown", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) { device_of(m, some_gpu(m, random).pci).link = {}; }},
      {"pci-link-impossible", Severity::fault, Joined::by_switches,
       [](Machine& m, auto& random) { device_of(m, some_nic(m, random).pci).link.width = 99; }},
      {"virtual-bridge", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) {
         bridge_above(m, some_gpu(m, random)).link = {2.5, 1};
       }},
      {"virtual-bridge", Severity::warning, Joined::mesh,
       [](Machine& m, auto&) {
         for (const Gpu& gpu : m.gpus) bridge_above(m, gpu).link = {2.5, 1};
       }},
      {"nic-slot-slow", Severity::warning, Joined::by_switches,
       [](Machine& m, auto&) {
         for (const Nic& nic : m.nics) device_of(m, nic.pci).link = device_of(m, nic.pci).link_max = {16, 8};
       }},
      {"duplicate-nic", Severity::fault, Joined::by_switches,
       [](Machine& m, auto& random) { m.nics.push_back(Nic(some_nic(m, random))); }},
      {"duplicate-nic", Severity::fault, Joined::by_switches,
       [](Machine& m, auto& random) {
         m.nics.push_back(Nic(some_nic(m, random)));
         m.nics.back().name = "mlx5_bond_0";
       }},
      {"nic-without-rate", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) { some_nic(m, random).gbps = 0; }},
      {"nic-slow", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) { some_nic(m, random).gbps = 100; }},
      {"nic-without-gdr", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) { some_nic(m, random).gdr = false; }},
      {"gpu-without-gdr", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) { some_gpu(m, random).gdr = false; }},
      {"gpus-unequal", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) { some_gpu(m, random).memory_bytes /= 2; }},
      {"gpu-order", Severity::note, Joined::by_switches,
       [](Machine& m, auto&) { std::swap(m.gpus.front().index, m.gpus.back().index); }},
      {"duplicate-gpu", Severity::fault, Joined::by_switches,
       [](Machine& m, auto&) { m.gpus.front().uuid = m.gpus.back().uuid; }},
      {"duplicate-bus-id", Severity::fault, Joined::by_switches,
       [](Machine& m, auto&) { m.pci.push_back(m.pci.front()), m.pci.back().parent = -1; }},
  };
  return all;
}

const std::vector<Fault>& node_faults() {
  static const std::vector<Fault> all{
      {"gpu-numa-missing", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) { some_gpu(m, random).numa = 77; }},
      {"gpu-numa-without-cores", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) {
         m.numa.push_back({77, 0, m.numa.front().memory_bytes});
         some_gpu(m, random).numa = 77;
       }},
      {"gpu-numa-without-memory", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) {
         m.numa.push_back({77, 0, 0});
         m.cores.push_back({static_cast<int>(m.cores.size()), 0, 77, {7700}});
         some_gpu(m, random).numa = 77;
       }},
      {"gpu-numa-unknown", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) {
         m.numa.push_back({77, 0, m.numa.front().memory_bytes});
         some_gpu(m, random).numa = -1;
       }},
      {"nic-numa-missing", Severity::warning, Joined::by_switches,
       [](Machine& m, auto& random) { some_nic(m, random).numa = 77; }},
      {"cores-fewer-than-gpus", Severity::warning, Joined::by_switches,
       [](Machine& m, auto&) {
         // One core on each NUMA node, and all GPUs on the first.
         std::set<int> seen;
         std::erase_if(m.cores, [&](const Core& core) { return !seen.insert(core.numa).second; });
         if (m.cores.size() < m.gpus.size()) return;
         m.cores.erase(m.cores.begin() + 1, m.cores.end());
         m.numa.resize(1);
         for (Gpu& gpu : m.gpus) gpu.numa = m.numa.front().os_index;
         for (Nic& nic : m.nics) nic.numa = m.numa.front().os_index;
       }},
      {"memory-imbalance", Severity::warning, Joined::by_switches,
       [](Machine& m, auto&) {
         m.numa.push_back({77, 0, m.numa.front().memory_bytes / 2});
         m.cores.push_back({static_cast<int>(m.cores.size()), 0, 77, {7700}});
       }},
      {"cores-numa-missing", Severity::warning, Joined::by_switches,
       [](Machine& m, auto&) {
         m.cores.push_back({static_cast<int>(m.cores.size()), 0, 77, {7700}});
       }},
      {"discovery", Severity::note, Joined::by_switches,
       [](Machine& m, auto&) { m.notes.push_back("something was left out"); }},
  };
  return all;
}

}  // namespace

TEST_CASE("a clean machine has no findings", "[doctor]") {
  const unsigned seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 300; ++i) {
    for (const Joined joined : {Joined::not_at_all, Joined::mesh, Joined::by_switches}) {
      const Machine machine = clean_machine(random, joined);
      const auto findings = examine(machine);
      INFO(text_of(findings) << to_json(machine).dump());
      REQUIRE(findings.empty());
    }
  }
}

TEST_CASE("one fault gives its finding and no other", "[doctor]") {
  const unsigned seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (const auto* faults : {&link_faults(), &device_faults(), &node_faults()}) {
    for (const Fault& fault : *faults) {
      for (int i = 0; i < 40; ++i) {
        Machine machine = clean_machine(random, fault.joined);
        fault.inject(machine, random);
        const auto findings = examine(machine);
        INFO("injected " << fault.code << ", found " << text_of(findings));
        REQUIRE(codes_of(findings) == std::set<std::string>{fault.code});
        const bool right = std::all_of(findings.begin(), findings.end(),
                                       [&](const Finding& finding) { return finding.severity == fault.severity; });
        REQUIRE(right);
        for (const Finding& finding : findings) {
          REQUIRE_FALSE(finding.subject.empty());
          REQUIRE_FALSE(finding.remedy.empty());
          REQUIRE(finding.host == "made-up");
        }
      }
    }
  }
}

TEST_CASE("findings name the part and the figures", "[doctor]") {
  std::mt19937 random(7);
  Machine machine = clean_machine(random, Joined::by_switches);
  const Gpu& gpu = machine.gpus[1];
  machine.pci[static_cast<size_t>(gpu.pci)].link.width = 8;
  const auto findings = examine(machine);
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].subject == "gpu 1 (" + gpu.bus_id + ")");
  CHECK(findings[0].message.find("32 GT/s x8 (31.5 GB/s)") != std::string::npos);
  CHECK(findings[0].message.find("32 GT/s x16 (63 GB/s)") != std::string::npos);
  const auto json = to_json(findings);
  CHECK(json[0]["severity"] == "warning");
  CHECK(json[0]["code"] == "pci-link-narrow");
}

TEST_CASE("the doctor takes whatever a recording may hold", "[doctor]") {
  // Indices out of range, loops in the tree and empty names: findings, but no crash.
  Machine machine;
  machine.host = "x";
  machine.gpus.push_back({});
  machine.gpus.push_back({});
  machine.gpus[0].pci = 99;
  machine.gpus[1].pci = 0;
  machine.pci.push_back({"", 0, 5, 0, "", "", "", "", {-1, -1}, {}});
  machine.nics.push_back({"", "", -5, -1, true});
  machine.links.push_back({LinkKind::xgmi, 40, LinkEnd::gpu, 41, "", -1, -1});
  machine.links.push_back({LinkKind::xgmi, 0, LinkEnd::gpu, 41, "", -1, -1});
  CHECK_FALSE(examine(machine).empty());
  CHECK(examine(Machine{}).size() == 1);
  CHECK(examine(Cluster{}).empty());
}

TEST_CASE("a GPU at rest is a note", "[doctor]") {
  std::mt19937 random(11);
  Machine machine = clean_machine(random, Joined::by_switches);
  PciDevice& gpu = device_of(machine, machine.gpus[0].pci);
  gpu.link.gtps = 2.5;  // link_max says 32
  auto findings = examine(machine);
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].code == "pci-link-resting");
  CHECK(findings[0].severity == Severity::note);
  gpu.link.width = 8;  // lanes are not given up to save power
  findings = examine(machine);
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].code == "pci-link-narrow");
  CHECK(findings[0].severity == Severity::warning);
}
