// Which machines a job gets, by its file and by the Slurm job around it.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "launcher/job_file.hpp"
#include "launcher/requeue.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;
using Names = std::vector<std::string>;

namespace {

Surroundings in_slurm(int nodes, int gpus = 0) {
  mds::slurm::Allocation allocation;
  allocation.cluster = "test";
  allocation.job_id = 42;
  for (int n = 0; n < nodes; ++n) allocation.hosts.push_back("n" + std::to_string(n));
  allocation.components = {{0, nodes, gpus}};
  allocation.gpus_per_node = gpus;
  Surroundings surroundings;
  surroundings.allocation = allocation;
  return surroundings;
}

JobFileResult parsed(const std::string& keys, const Surroundings& surroundings = {}) {
  return parse_job("[job]\n" + keys + "[payload]\ncommand = [\"true\"]\n", "job.toml", {}, surroundings);
}

Job job(const std::string& keys, const Surroundings& surroundings = {}) {
  const auto result = parsed(keys, surroundings);
  for (const JobProblem& problem : result.problems) UNSCOPED_INFO(format(problem));
  REQUIRE(result.job.has_value());
  return *result.job;
}

std::string problem(const std::string& keys, const Surroundings& surroundings = {}) {
  const auto result = parsed(keys, surroundings);
  REQUIRE(result.problems.size() == 1);
  return result.problems[0].message;
}

}  // namespace

TEST_CASE("a back end is chosen by where the job is") {
  CHECK(job("ranks_per_node = 1\n").backend == Backend::local);
  CHECK(job("ranks_per_node = 1\nhosts = [\"localhost\"]\n").backend == Backend::local);
  const Job far = job("ranks_per_node = 1\nhosts = [\"gpu[01-03]\", \"login\"]\n");
  CHECK(far.backend == Backend::ssh);
  CHECK(far.node_names == Names{"gpu01", "gpu02", "gpu03", "login"});
  CHECK(far.nodes == 4);
  CHECK(job("ranks_per_node = 1\nbackend = \"mpi\"\nhosts = [\"a\", \"b\"]\n").backend == Backend::mpi);
  const Job inside = job("ranks_per_node = 1\n", in_slurm(3));
  CHECK(inside.backend == Backend::slurm);
  CHECK(inside.nodes == 3);
  CHECK(inside.node_names == Names{"n0", "n1", "n2"});
  CHECK(job("ranks_per_node = 1\nbackend = \"local\"\n", in_slurm(3)).backend == Backend::local);
}

TEST_CASE("a Slurm job gives nodes and GPUs that the file leaves open") {
  const Job inside = job("name = \"x\"\n", in_slurm(2, 8));
  CHECK(inside.ranks_per_node == 8);
  CHECK(inside.device == mds::topology::DeviceKind::cuda);
  CHECK(job("nodes = 2\nranks_per_node = 1\n", in_slurm(3)).nodes == 2);
  CHECK(problem("nodes = 4\nranks_per_node = 1\n", in_slurm(3)).find("the Slurm job has 3") != std::string::npos);
  CHECK(problem("hosts = [\"a\"]\nranks_per_node = 1\n", in_slurm(3)).find("leave it out") != std::string::npos);
}

TEST_CASE("include and exclude, as DeepSpeed has them") {
  const std::string hosts = "ranks_per_node = 1\nhosts = [\"w[1-4]\"]\n";
  CHECK(job(hosts + "include = \"w2@w4\"\n").node_names == Names{"w2", "w4"});
  CHECK(job(hosts + "exclude = \"w2\"\n").node_names == Names{"w1", "w3", "w4"});
  CHECK(problem(hosts + "exclude = \"w9\"\n").find("w9") != std::string::npos);
  CHECK(problem(hosts + "include = \"w1:0,1\"\n").find("slots") != std::string::npos);
  CHECK(problem(hosts + "include = \"w1\"\nexclude = \"w2\"\n").find("exclude each other") != std::string::npos);
  CHECK(problem("ranks_per_node = 1\nhosts = [\"a b\"]\n").find("' '") != std::string::npos);
}

TEST_CASE("a requeued job finds its folder, and a new one none") {
  namespace fs = std::filesystem;
  const fs::path runs = fs::temp_directory_path() / ("mds-requeue-" + std::to_string(getpid()));
  for (const char* name : {"train-20260101-000000-test-42", "train-20260102-000000-test-42",
                           "train-20260103-000000-test-142", "other-20260104-000000-test-42"}) {
    fs::create_directories(runs / name);
    std::ofstream(runs / name / "events.jsonl") << "\n";
  }
  mds::slurm::Allocation allocation = *in_slurm(1).allocation;
  CHECK(job_identity(allocation, "", runs, "train").run_id == "test-42");
  CHECK(job_identity(allocation, "", runs, "train").resume.empty());
  allocation.restart_count = 1;
  CHECK(job_identity(allocation, "", runs, "train").resume == (runs / "train-20260102-000000-test-42").string());
  CHECK(job_identity(allocation, "", runs, "third").resume.empty());
  allocation.restart_count = 0;
  CHECK(job_identity(allocation, "142", runs, "train").resume == (runs / "train-20260103-000000-test-142").string());
  fs::remove_all(runs);
}
