// The SLURM_* environment, as recorded from sbatch, salloc, srun, arrays and heterogeneous jobs.
#include "slurm/allocation.hpp"

#include "tests/catch.hpp"

using namespace mds::slurm;

namespace {

Allocation allocation(const Environment& environment) {
  const auto read = read_allocation(environment);
  REQUIRE(read.ok());
  REQUIRE(read->has_value());
  return **read;
}

const Environment kBatch{{"SLURM_JOB_ID", "1234"},
                         {"SLURM_JOB_NODELIST", "n[1-4]"},
                         {"SLURM_CLUSTER_NAME", "test"},
                         {"SLURM_JOB_NUM_NODES", "4"},
                         {"SLURM_PROCID", "0"},
                         {"SLURM_JOB_NAME", "train"},
                         {"SLURM_TASKS_PER_NODE", "1(x4)"},
                         {"PATH", "/bin"}};

}  // namespace

TEST_CASE("no Slurm job, no allocation") {
  const auto read = read_allocation({{"PATH", "/bin"}, {"SLURM_CONF", "/etc/slurm.conf"}});
  REQUIRE(read.ok());
  CHECK_FALSE(read->has_value());
}

TEST_CASE("a batch job") {
  const Allocation a = allocation(kBatch);
  CHECK(a.job_id == 1234);
  CHECK(a.hosts == std::vector<std::string>{"n1", "n2", "n3", "n4"});
  CHECK(a.components == std::vector<Component>{{0, 4, 0}});
  CHECK_FALSE(a.in_step);
  CHECK(a.restart_count == 0);
  CHECK_FALSE(a.end_time.has_value());
  CHECK(run_label(a) == "test-1234");
}

TEST_CASE("GPUs, restarts, end time, arrays and steps") {
  Environment env = kBatch;
  env["SLURM_GPUS_PER_NODE"] = "a100:4";
  env["SLURM_GPUS_ON_NODE"] = "8";
  env["SLURM_RESTART_COUNT"] = "2";
  env["SLURM_JOB_END_TIME"] = "1795421816";
  env["SLURM_ARRAY_JOB_ID"] = "1200";
  env["SLURM_ARRAY_TASK_ID"] = "7";
  env["SLURM_STEP_ID"] = "0";
  env["SLURM_PROCID"] = "3";
  const Allocation a = allocation(env);
  CHECK(a.gpus_per_node == 4);
  CHECK(a.restart_count == 2);
  CHECK(a.end_time == 1795421816);
  CHECK(run_label(a) == "test-1200_7");
  CHECK(a.in_step);
  CHECK(a.task == 3);
}

TEST_CASE("a heterogeneous job has its components one after the other") {
  Environment env = kBatch;
  env["SLURM_HET_SIZE"] = "2";
  env["SLURM_JOB_NODELIST_HET_GROUP_0"] = "big[1-2]";
  env["SLURM_JOB_NODELIST_HET_GROUP_1"] = "small7";
  env["SLURM_GPUS_PER_NODE_HET_GROUP_0"] = "8";
  env["SLURM_GPUS_ON_NODE_HET_GROUP_1"] = "2";
  const Allocation a = allocation(env);
  CHECK(a.hosts == std::vector<std::string>{"big1", "big2", "small7"});
  CHECK(a.components == std::vector<Component>{{0, 2, 8}, {2, 1, 2}});
}

TEST_CASE("a broken environment names its variable") {
  const std::pair<const char*, const char*> broken[] = {{"SLURM_JOB_ID", "12x"},       {"SLURM_JOB_NODELIST", "n[1-"},
                                                        {"SLURM_RESTART_COUNT", "-1"}, {"SLURM_JOB_NODELIST", ""},
                                                        {"SLURM_HET_SIZE", "100000"},  {"SLURM_PROCID", "one"}};
  for (const auto& [name, value] : broken) {
    INFO(name << "=" << value);
    Environment env = kBatch;
    env[name] = value;
    const auto read = read_allocation(env);
    REQUIRE(!read.ok());
    CHECK(read.error().message.find(name) != std::string::npos);
  }
}

TEST_CASE("counts of GPUs") {
  CHECK(gpu_count("4") == 4);
  CHECK(gpu_count("a100:4") == 4);
  CHECK(gpu_count("a100:2,h100:2") == 4);
  CHECK(gpu_count("gpu:a100:8") == 8);
  for (const char* none : {"", "a100", "x:", "4x", "-1", "99999999999"}) CHECK(gpu_count(none) == 0);
}
