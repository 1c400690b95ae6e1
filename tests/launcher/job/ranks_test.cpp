// What runs where: devices, hosts, nodes and sizes of the axes, as a job file says them.
#include <unistd.h>

#include <cstdlib>

#include "tests/catch.hpp"
#include "tests/launcher/job/job_texts.hpp"

using namespace mds::launcher;
using namespace mds::launcher::tests;
using mds::topology::DeviceKind;

namespace {

Job payload_job(const std::string& text, const std::vector<std::string>& overrides = {},
                const std::string& file = "job.toml") {
  const JobFileResult result = parse_job(text + "[payload]\ncommand = [\"true\"]\n", file, overrides);
  INFO(text << all_problems(result));
  REQUIRE(result.job.has_value());
  return *result.job;
}

struct TemporaryFile {
  std::filesystem::path path;
  explicit TemporaryFile(const std::string& text) {
    std::string name = (std::filesystem::temp_directory_path() / "mds-job-XXXXXX").string();
    close(mkstemp(name.data()));
    path = name;
    std::ofstream(path) << text;
  }
  ~TemporaryFile() { std::filesystem::remove(path); }
};

}  // namespace

TEST_CASE("a payload without devices runs one CPU rank on one node") {
  const Job job = payload_job("");
  CHECK(job.device == DeviceKind::cpu);
  CHECK(job.nodes * job.ranks_per_node == 1);
  CHECK(job.name == "job");
  CHECK(job.backend == Backend::local);
  CHECK(job.payload == std::vector<std::string>{"true"});
}

TEST_CASE("gpus_per_node means a GPU job with one rank a GPU") {
  const Job job = payload_job("[job]\nnodes = 2\ngpus_per_node = 8\n[parallel]\ntensor = 4\n");
  CHECK(job.device == DeviceKind::cuda);
  CHECK(job.ranks_per_node == 8);
  CHECK(job.trainer.cuda);
  CHECK(job.trainer.parallel.data == 4);
}

TEST_CASE("overrides win over the file and make what is not there") {
  const Job job = payload_job("[job]\nranks_per_node = 2\nnodes = 1\n",
                              {"job.nodes=3", "parallel.tensor=2", "job.name=2026", "job.env.FLAGS=-a=b c",
                               "restart.max_restarts=0", "job.env.A.B=true"});
  CHECK(job.nodes == 3);
  CHECK(job.trainer.parallel.tensor == 2);
  CHECK(job.trainer.parallel.data == 3);
  CHECK(job.name == "2026");
  CHECK(job.env.at("FLAGS") == "-a=b c");
  CHECK(job.env.at("A.B") == "true");
  CHECK(job.restart.max_restarts == 0);
}

TEST_CASE("an override may change a preset and take back auto") {
  const std::string text = valid_text() + "micro_batch_size = 3\n";
  CHECK_FALSE(parse_job(text, "job.toml", {}).job.has_value());
  const JobFileResult result =
      parse_job(text, "job.toml", {"training.micro_batch_size=auto", "parallel.data=\"auto\""});
  INFO(all_problems(result));
  REQUIRE(result.job.has_value());
  CHECK(result.job->trainer.training.micro_batch_size == 4);
}

TEST_CASE("hosts give the nodes, and slots the ranks") {
  const Job listed = payload_job("[job]\nhosts = [\"localhost\", \"localhost\"]\nranks_per_node = 2\n");
  CHECK(listed.nodes == 2);
  const TemporaryFile hostfile("localhost slots=3\nlocalhost slots=3\n");
  const Job from_file = payload_job("[job]\nhosts = \"" + hostfile.path.string() + "\"\n");
  CHECK(from_file.nodes == 2);
  CHECK(from_file.ranks_per_node == 3);
  CHECK(from_file.hosts.size() == 2);
}

TEST_CASE("relative paths start at the job file's folder, those of --set at the working folder") {
  const std::string text = valid_text();
  const std::string file = kSource + "/docs/examples/some.toml";
  const JobFileResult in_file =
      parse_job(text + "[checkpoint]\nkeep = 1\n", file,
                {"data.format=text", "model.vocab_size=256", "data.path=" + kSource + "/docs"});
  INFO(all_problems(in_file));
  REQUIRE(in_file.job.has_value());
  CHECK(in_file.job->trainer.data.sources.at(0).path == kSource + "/docs");
  std::string relative = text;
  relative.replace(relative.find("format = \"random\""), 17, "path = \"../examples\"");
  const JobFileResult beside = parse_job(relative, file, {});
  INFO(all_problems(beside));
  REQUIRE(beside.job.has_value());
  CHECK(beside.job->trainer.data.sources.at(0).path == kSource + "/docs/examples");
  CHECK_FALSE(parse_job(text, file, {"data.format=text", "data.path=no-such-folder-here"}).job.has_value());
}

TEST_CASE("an odd file name still gives a usable job name") {
  CHECK(payload_job("", {}, "/x/my job (1).toml").name == "my-job--1-");
  CHECK(payload_job("", {}, "/x/.toml").name == "job.toml");
  CHECK(payload_job("", {}, "/x/" + std::string(300, 'y') + ".toml").name.size() == 64);
}
