// mdslaunch topo and doctor: what they print, and with which exit code they end.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <pugixml.hpp>
#include <regex>
#include <set>

#include "launcher/commands/commands.hpp"
#include "launcher/topo_text.hpp"
#include "topology/read/open_topology.hpp"
#include "tests/catch.hpp"

using namespace mds;
using namespace mds::launcher;
namespace fs = std::filesystem;

namespace {

const std::string kSource = MDS_SOURCE_DIR;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A folder for files of a test, gone at the end.
class Scratch {
 public:
  Scratch()
      : path_(fs::temp_directory_path() / ("mds-topo-" + std::to_string(::getpid()) + "-" + std::to_string(++made_))) {
    fs::create_directories(path_);
  }
  ~Scratch() { fs::remove_all(path_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(file(name)) << text;
    return file(name);
  }

 private:
  static inline int made_ = 0;
  const fs::path path_;
};

/// What a command does: exit code, standard output and standard error.
struct Done {
  int code;
  std::string out, err;
};

Done run(int (*command)(const Arguments&), const std::vector<std::pair<std::string, std::string>>& options) {
  const Scratch scratch;
  Arguments arguments;
  for (const auto& [name, value] : options) arguments.options[name].push_back(value);
  std::fflush(stdout);
  std::fflush(stderr);
  const int out = dup(1), err = dup(2);
  const int to_out = open(scratch.file("out").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  const int to_err = open(scratch.file("err").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  dup2(to_out, 1);
  dup2(to_err, 2);
  const int code = command(arguments);
  std::fflush(stdout);
  std::fflush(stderr);
  dup2(out, 1);
  dup2(err, 2);
  for (const int fd : {out, err, to_out, to_err}) close(fd);
  return {code, read_file(scratch.file("out")), read_file(scratch.file("err"))};
}

}  // namespace

TEST_CASE("topo shows a tree and the paths") {
  const Done done = run(topo_command, {{"input", "dgx-h100 x4 fabric:leaf=2"}});
  CHECK(done.code == 0);
  for (const char* part : {"dgx-h100-[0000-0003]: 4 nodes alike", "NUMA node 1: package 1", "CPUs 0-55,112-167",
                           "gpu 7", "NVIDIA H100 80GB HBM3", "18 NVLink to NVSwitch", "400 Gbit/s", "NVL 370.8",
                           "PIX 48", "2 switches of level 0"}) {
    INFO(part << " in\n" << done.out);
    CHECK(contains(done.out, part));
  }
}

TEST_CASE("topo --json has the paths of every node and is read again") {
  const Scratch scratch;
  const Done done = run(topo_command, {{"input", "gh200 x2"}, {"json", ""}});
  CHECK(done.code == 0);
  const auto json = nlohmann::json::parse(done.out);
  CHECK(json["version"] == 1);
  REQUIRE(json["nodes"].size() == 2);
  CHECK(json["nodes"][1]["paths"]["gpu_nic"].size() == 1);
  const auto again = topology::open_topology(scratch.write("cluster.json", done.out));
  REQUIRE(again);
  CHECK(*again == *topology::open_topology("gh200 x2"));
}

TEST_CASE("topo writes files that it reads again") {
  const Scratch scratch;
  const std::string nccl = scratch.file("nccl.xml"), hwloc = scratch.file("hwloc.xml"), svg = scratch.file("a.svg");
  const Done done =
      run(topo_command, {{"input", "dgx-a100"}, {"write-nccl", nccl}, {"write-hwloc", hwloc}, {"svg", svg}});
  CHECK(done.code == 0);
  CHECK(pugi::xml_document().load_file(svg.c_str()));
  for (const std::string& file : {nccl, hwloc}) {
    const auto again = topology::open_topology(file);
    INFO(file << (again ? "" : again.error().message));
    REQUIRE(again);
    CHECK(again->nodes[0].gpus.size() == 8);
  }
  const Done refused =
      run(topo_command, {{"input", "dgx-a100"}, {"input", "cpu"}, {"write-nccl", scratch.file("two.xml")}});
  CHECK(refused.code == 2);
  CHECK(contains(refused.err, "2 different ones"));
}

TEST_CASE("what is no topology is one error with exit code 2") {
  const Scratch scratch;
  for (const std::string& text : {std::string(), std::string("hello\n"), std::string("<html><body/></html>"),
                                  std::string("{\"version\": 1"), std::string("\0\1\2\xff", 4)}) {
    const std::string file = scratch.write("it", text);
    for (const auto command : {topo_command, doctor_command}) {
      const Done done = run(command, {{"input", file}});
      INFO("\"" << text << "\": " << done.err);
      CHECK(done.code == 2);
      CHECK(done.out.empty());
      CHECK(std::count(done.err.begin(), done.err.end(), '\n') == 1);
      CHECK(contains(done.err, file));
    }
  }
  const Done missing = run(topo_command, {{"input", scratch.file("not-there.xml")}});
  CHECK(missing.code == 2);
}

TEST_CASE("doctor ends with 1 where there is a fault") {
  const Scratch scratch;
  auto cluster = *topology::open_topology("dgx-h100");
  const Done clean = run(doctor_command, {{"topology", scratch.write("a.json", to_json(cluster).dump())}});
  CHECK(clean.code == 0);
  CHECK(clean.out == "no findings\n");

  cluster.nodes[0].gpus[3].numa = 9;
  const Done warned = run(doctor_command, {{"input", scratch.write("b.json", to_json(cluster).dump())}});
  CHECK(warned.code == 0);
  CHECK(contains(warned.out, "1 warning\n  gpu-numa-missing  dgx-h100-0000: gpu 3"));
  CHECK(contains(warned.out, "      remedy: "));

  std::erase_if(cluster.nodes[0].links, [](const auto& link) { return link.gpu == 1; });
  const std::string file = scratch.write("c.json", to_json(cluster).dump());
  const Done faulty = run(doctor_command, {{"input", file}});
  CHECK(faulty.code == 1);
  CHECK(faulty.out.find("1 fault") < faulty.out.find("1 warning"));
  CHECK_FALSE(contains(faulty.out, "\x1b"));
  const Done json = run(doctor_command, {{"input", file}, {"json", ""}});
  CHECK(json.code == 1);
  const auto findings = nlohmann::json::parse(json.out);
  CHECK(findings["version"] == 1);
  CHECK(findings["findings"][0]["code"] == "gpu-without-nvlink");
}

TEST_CASE("doctor and topo look at this machine") {
  CHECK(run(topo_command, {}).code == 0);
  const Done done = run(doctor_command, {{"json", ""}});
  CHECK(done.code <= 1);
  CHECK(nlohmann::json::parse(done.out)["findings"].is_array());
}

TEST_CASE("colours are used where they are asked for") {
  const topology::Finding finding{topology::Severity::fault, "a-code", "host", "gpu 0", "is broken", "mend it"};
  CHECK(contains(findings_text({finding}, true), "\x1b[1;31m"));
  CHECK(findings_text({finding}, false) == "1 fault\n  a-code  host: gpu 0: is broken\n      remedy: mend it\n");
}

TEST_CASE("docs/topology.md has every code of the doctor") {
  const std::string page = read_file(kSource + "/docs/topology.md");
  const std::set<std::string> others{"amd-pstate-epp", "nvidia-peermem", "rocm-smi"};
  const std::regex code("\"([a-z]+(?:-[a-z]+)+)\"");
  size_t found = 0;
  for (const auto& entry : fs::directory_iterator(kSource + "/topology/doctor")) {
    if (entry.path().extension() != ".cpp") continue;
    const std::string text = read_file(entry.path());
    for (std::sregex_iterator it(text.begin(), text.end(), code), end; it != end; ++it) {
      const std::string name = (*it)[1];
      if (others.count(name) > 0) continue;
      INFO(name << " in " << entry.path());
      CHECK(contains(page, name));
      ++found;
    }
  }
  CHECK(found > 50);
}
