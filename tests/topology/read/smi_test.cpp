// `nvidia-smi topo -m`: every variant of its text, and a machine in which the devices reach each other as it says.
#include <random>

#include "topology/paths.hpp"
#include "topology/read/read_machine.hpp"

#include "tests/catch.hpp"

using namespace mds::topology;

namespace {

Machine read(const std::string& text) {
  const auto machine = read_nvidia_smi(text, "host");
  INFO((machine ? "" : machine.error().message) << "\n" << text);
  REQUIRE(machine.ok());
  return *machine;
}

std::string gpu_class(const Machine& machine, size_t a, size_t b) {
  return to_string(find_paths(machine).between_gpus(a, b).kind);
}

std::string nic_class(const Machine& machine, size_t gpu, size_t nic) {
  return to_string(find_paths(machine).to_nic(gpu, nic).kind);
}

const char* const kDgx =
    "\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tNIC1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tNV18\tNV18\tNV18\tPIX\tSYS\t0-3,8-11\t0\t\tN/A\n"
    "GPU1\tNV18\t X \tNV18\tNV18\tPXB\tSYS\t0-3,8-11\t0\t\tN/A\n"
    "GPU2\tNV18\tNV18\t X \tNV18\tSYS\tNODE\t4-7,12-15\t1\t\tN/A\n"
    "GPU3\tNV18\tNV18\tNV18\t X \tSYS\tPHB\t4-7,12-15\t1\t\tN/A\n"
    "NIC0\tPIX\tPXB\tSYS\tSYS\t X \tSYS\t\t\t\t\n"
    "NIC1\tSYS\tSYS\tNODE\tPHB\tSYS\t X \t\t\t\t\n"
    "\nLegend:\n\n  X    = Self\n  SYS  = Connection traversing PCIe\n  NV#  = Connection traversing a bonded set\n"
    "\nNIC Legend:\n\n  NIC0: mlx5_0\n  NIC1: mlx5_4\n\n";

}  // namespace

TEST_CASE("smi: a whole machine") {
  const Machine m = read(kDgx);
  REQUIRE(m.gpus.size() == 4);
  CHECK(m.gpus[3].index == 3);
  CHECK(m.gpus[1].numa == 0);
  CHECK(m.gpus[2].numa == 1);
  REQUIRE(m.nics.size() == 2);
  CHECK(m.nics[0].name == "mlx5_0");
  CHECK(m.nics[1].name == "mlx5_4");
  CHECK(m.nics[1].numa == 1);
  CHECK(m.nics[1].rdma);
  CHECK(m.numa.size() == 2);
  REQUIRE(m.cores.size() == 8);
  CHECK(m.cores[0].cpus == std::vector<int>{0, 8});
  REQUIRE(m.links.size() == 4);  // 3 x 18 links are more than a GPU has: a switch
  CHECK(m.links[0].end == LinkEnd::nvswitch);
  CHECK(m.links[0].count == 18);
  CHECK(gpu_class(m, 0, 1) == "NVL");
  CHECK(nic_class(m, 0, 0) == "PIX");
  CHECK(nic_class(m, 1, 0) == "PXB");
  CHECK(nic_class(m, 2, 1) == "PHB");
  CHECK(nic_class(m, 3, 1) == "PHB");
  CHECK(nic_class(m, 2, 0) == "PXN");  // SYS by itself; NCCL relays over NVLink
  CHECK(m.notes.empty());
}

TEST_CASE("smi: blanks for tabs, lost escapes, prompts around it, carriage returns") {
  std::string text = kDgx;
  for (size_t at = 0; (at = text.find('\t', at)) != std::string::npos;) text.replace(at, 1, "    ");
  const Machine plain = read(kDgx);
  CHECK(read(text).links == plain.links);
  std::string pasted = text;
  for (size_t at = 0; (at = pasted.find('\x1b', at)) != std::string::npos;) pasted.erase(at, 1);
  CHECK(read(pasted).gpus == plain.gpus);
  CHECK(read("user@dgx:~$ nvidia-smi topo -m\n" + text).pci == plain.pci);
  for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 2) text.replace(at, 1, "\r\n");
  CHECK(read(text).nics == plain.nics);
}

TEST_CASE("smi: old headers, without NUMA nodes, with adapters by their names, SOC for SYS") {
  const Machine m = read(
      "\tGPU0\tGPU1\tmlx5_0\tCPU Affinity\n"
      "GPU0\t X \tSOC\tPHB\t0-9\n"
      "GPU1\tSOC\t X \tSOC\t10-19\n"
      "mlx5_0\tPHB\tSOC\t X \t\n");
  CHECK(gpu_class(m, 0, 1) == "SYS");
  CHECK(nic_class(m, 0, 0) == "PHB");
  CHECK(nic_class(m, 1, 0) == "SYS");
  CHECK(m.numa.size() == 2);
  CHECK(m.gpus[1].numa == 1);
  CHECK(m.cores.size() == 20);
  CHECK(m.notes.size() == 1);  // that the NUMA nodes are numbered by us
}

TEST_CASE("smi: virtual machines and single GPUs") {
  Machine m = read(
      "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"
      "GPU0\t X \tNV18\t0-31\tN/A\t\tN/A\nGPU1\tNV18\t X \t0-31\tN/A\t\tN/A\n");
  CHECK(gpu_class(m, 0, 1) == "NVL");
  CHECK(m.cores.size() == 32);
  CHECK(m.gpus[0].numa == 0);
  CHECK(find_paths(m).between_gpus(0, 1).gb_per_s == Approx(18 * nvlink_gb_per_s(0)));
  m = read(
      "        GPU0    CPU Affinity    NUMA Affinity   GPU NUMA ID\nGPU0     X      0-15    0               N/A\n");
  CHECK(m.gpus.size() == 1);
  CHECK(m.cores.size() == 16);
  m = read("\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tPHB\tN/A\nGPU1\tPHB\t X \tN/A\n");
  CHECK(m.cores.empty());
  CHECK(gpu_class(m, 0, 1) == "PHB");
  m = read("\tGPU0\tGPU1\nGPU0\t X \tSYS\nGPU1\tSYS\t X \n");  // nothing but the matrix
  CHECK(gpu_class(m, 0, 1) == "SYS");
}

TEST_CASE("smi: NVLink meshes, bridges and pairs") {
  // Four A100 as in Perlmutter: 3 x 4 links are those that a GPU has.
  Machine m = read(
      "\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity\n"
      "GPU0\t X \tNV4\tNV4\tNV4\t48-63\t3\nGPU1\tNV4\t X \tNV4\tNV4\t32-47\t2\n"
      "GPU2\tNV4\tNV4\t X \tNV4\t16-31\t1\nGPU3\tNV4\tNV4\tNV4\t X \t0-15\t0\n");
  CHECK(m.links.size() == 12);
  CHECK(find_paths(m).between_gpus(0, 3) == Path{PathClass::nvl, 80, 1});
  CHECK(m.gpus[0].numa == 3);
  m = read(
      "\tGPU0\tGPU1\tGPU2\tGPU3\nGPU0\t X \tNV4\tSYS\tSYS\nGPU1\tNV4\t X \tSYS\tSYS\n"
      "GPU2\tSYS\tSYS\t X \tNV4\nGPU3\tSYS\tSYS\tNV4\t X \n");
  CHECK(gpu_class(m, 0, 1) == "NVL");
  CHECK(gpu_class(m, 1, 2) == "SYS");
}

TEST_CASE("smi: what is wrong is named with its line") {
  const auto refusal = [](const std::string& text) {
    const auto machine = read_nvidia_smi(text, "host");
    REQUIRE_FALSE(machine.ok());
    return machine.error().message;
  };
  CHECK(refusal("").find("column names") != std::string::npos);
  CHECK(refusal("\tGPU0\tGPU1\nGPU0\t X \tNV4\n").find("ends before the row of GPU1") != std::string::npos);
  CHECK(refusal("\tGPU0\tGPU1\nGPU0\t X \tFOO\nGPU1\tNV4\t X \n").starts_with("line 2: \"FOO\" between GPU0 and GPU1"));
  CHECK(refusal("\tGPU0\tGPU1\nGPU0\t X \n").starts_with("line 2: the row of GPU0 has 1 cells of 2"));
  CHECK(refusal("\tGPU0\tGPU1\nGPU1\t X \tNV1\n").starts_with("line 2: \"GPU1\" where the row of GPU0"));
}

TEST_CASE("smi: a matrix that no tree can have is told of") {
  const Machine m = read("\tGPU0\tGPU1\tGPU2\nGPU0\t X \tPIX\tSYS\nGPU1\tPIX\t X \tPIX\nGPU2\tSYS\tPIX\t X \n");
  CHECK_FALSE(m.notes.empty());
}

TEST_CASE("smi: random machines give the classes that they were printed from") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    // Devices sit on NUMA nodes, there at a top switch or none, and below that at a switch or none.
    struct Place {
      int numa, top, inner;
    };
    std::vector<Place> places;
    std::vector<std::string> names;
    const int gpus = 1 + static_cast<int>(random() % 6), nics = static_cast<int>(random() % 5);
    for (int i = 0; i < gpus + nics; ++i) {
      const int numa = static_cast<int>(random() % 2), top = static_cast<int>(random() % 2);
      places.push_back({numa, 2 * numa + top, 4 * numa + 2 * top + static_cast<int>(random() % 2)});
      names.push_back(i < gpus ? "GPU" + std::to_string(i) : "mlx5_" + std::to_string(i - gpus));
    }
    const auto cell = [&](size_t a, size_t b) -> std::string {
      if (a == b) return "X";
      if (places[a].inner == places[b].inner) return "PIX";
      if (places[a].top == places[b].top) return "PXB";
      if (places[a].numa == places[b].numa) return round % 2 ? "PHB" : "NODE";
      return "SYS";
    };
    std::string text;
    for (const std::string& name : names) text += "\t" + name;
    text += "\tCPU Affinity\tNUMA Affinity\n";
    for (size_t a = 0; a < names.size(); ++a) {
      text += names[a];
      for (size_t b = 0; b < names.size(); ++b) text += "\t" + cell(a, b);
      if (a < static_cast<size_t>(gpus)) text += places[a].numa ? "\t8-15\t1" : "\t0-7\t0";
      text += "\n";
    }
    INFO("seed " << seed << "\n" << text);
    const Machine m = read(text);
    const auto expected = [&](size_t a, size_t b) {
      const std::string printed = cell(a, b);
      return printed == "NODE" ? "PHB" : printed;
    };
    for (size_t a = 0; a < static_cast<size_t>(gpus); ++a) {
      for (size_t b = 0; b < names.size(); ++b) {
        if (a == b) continue;
        const bool gpu = b < static_cast<size_t>(gpus);
        REQUIRE((gpu ? gpu_class(m, a, b) : nic_class(m, a, b - static_cast<size_t>(gpus))) == expected(a, b));
      }
    }
    for (const std::string& note : m.notes) REQUIRE(note.find("stands for the unknown one") != std::string::npos);
  }
}
