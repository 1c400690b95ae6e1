// The plan: what every rank is told, for this machine and for machines that are not here.
#include "launcher/plan.hpp"

#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "launcher/plan_environment.hpp"
#include "tests/catch.hpp"
#include "tests/launcher/job/job_texts.hpp"
#include "topology/read/synthetic.hpp"

using namespace mds::launcher;
using namespace mds::launcher::tests;
using mds::topology::Axis;
using mds::topology::Cluster;
using mds::topology::Coordinates;

namespace {

Job job_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const JobFileResult result = parse_job(text, "job.toml", overrides);
  INFO(all_problems(result));
  REQUIRE(result.job.has_value());
  return *result.job;
}

Cluster machines(const std::string& description) {
  const auto cluster = mds::topology::synthetic_cluster(description);
  REQUIRE(cluster.ok());
  return *cluster;
}

Cluster virtual_nodes(const std::string& description, size_t nodes) {
  Cluster cluster = machines(description);
  cluster.nodes.assign(nodes, cluster.nodes.front());
  return cluster;
}

PlanInputs inputs() {
  PlanInputs out;
  out.run_folder = "/runs/x";
  out.run_id = "x";
  out.trainer_program = "/bin/mdstrain";
  out.base_env = {{"HOME", "/home/u"}, {"SECRET_TOKEN", "hunter2"}, {"NCCL_DEBUG", "INFO"}};
  return out;
}

LaunchPlan plan_of(const Job& job, const Cluster& cluster) {
  auto plan = make_plan(job, cluster, inputs());
  if (!plan) FAIL(plan.error().message);
  return *plan;
}

/// As the agent puts it together.
std::map<std::string, std::string> environment_of(const mds::agent::NodeStart& start, size_t local_rank = 0) {
  std::map<std::string, std::string> env = start.ranks.at(local_rank).env;
  env.insert(start.env.begin(), start.env.end());
  return env;
}

const std::string kPayload =
    "[job]\ndevices = \"cpu\"\nnodes = 2\nranks_per_node = 2\n[payload]\ncommand = [\"true\", \"x y\"]\n";

}  // namespace

TEST_CASE("every rank gets torchrun's environment") {
  const Job job = job_of(kPayload + "[restart]\nmax_restarts = 7\n[parallel]\ntensor = 2\n");
  const LaunchPlan plan = plan_of(job, virtual_nodes("cpu:packages=1,cores=4", 2));
  REQUIRE(plan.nodes.size() == 2);
  for (int node = 0; node < 2; ++node) {
    const mds::agent::NodeStart start = node_start(plan, node, 3, "127.0.0.1", 29511);
    CHECK(start.attempt == 3);
    REQUIRE(start.ranks.size() == 2);
    for (int local = 0; local < 2; ++local) {
      const auto& spec = start.ranks[static_cast<size_t>(local)];
      const auto env = environment_of(start, static_cast<size_t>(local));
      const std::string rank = std::to_string(2 * node + local);
      CHECK(std::to_string(spec.rank) == rank);
      const std::map<std::string, std::string> expected{{"RANK", rank},
                                                        {"LOCAL_RANK", std::to_string(local)},
                                                        {"WORLD_SIZE", "4"},
                                                        {"LOCAL_WORLD_SIZE", "2"},
                                                        {"GROUP_RANK", std::to_string(node)},
                                                        {"NODE_RANK", std::to_string(node)},
                                                        {"GROUP_WORLD_SIZE", "2"},
                                                        {"ROLE_RANK", rank},
                                                        {"ROLE_WORLD_SIZE", "4"},
                                                        {"ROLE_NAME", "default"},
                                                        {"MASTER_ADDR", "127.0.0.1"},
                                                        {"MASTER_PORT", "29511"},
                                                        {"TORCHELASTIC_RESTART_COUNT", "2"},
                                                        {"TORCHELASTIC_MAX_RESTARTS", "7"},
                                                        {"TORCHELASTIC_RUN_ID", "x"},
                                                        {"MDS_RUN_FOLDER", "/runs/x"},
                                                        {"MDS_RUN_ID", "x"},
                                                        {"MDS_ATTEMPT", "3"},
                                                        {"MDS_TP_RANK", std::to_string(local)},
                                                        {"MDS_DP_RANK", std::to_string(node)},
                                                        {"MDS_PP_RANK", "0"},
                                                        {"MDS_CP_RANK", "0"},
                                                        {"MDS_HOST_ADDRESS", "127.0.0.1"},
                                                        {"OMP_NUM_THREADS", "1"},
                                                        {"CUDA_VISIBLE_DEVICES", ""},
                                                        {"HOME", "/home/u"},
                                                        {"NCCL_DEBUG", "INFO"}};
      for (const auto& [name, value] : expected) {
        INFO(name);
        REQUIRE(env.count(name) == 1);
        CHECK(env.at(name) == value);
      }
      CHECK(spec.argv == std::vector<std::string>{"true", "x y"});
      CHECK(spec.log_path == "/runs/x/logs/rank-0000" + rank + ".log");
      CHECK(spec.cpus.size() == 1);
    }
  }
}

TEST_CASE("every variable of a plan is documented, and the contract is not the user's to set") {
  const Job job = job_of(kPayload);
  std::set<std::string> documented;
  for (const RankVariable& variable : rank_variables()) CHECK(documented.insert(variable.name).second);
  PlanInputs bare = inputs();
  bare.base_env.clear();
  for (const char* machine : {"cpu:cores=4", "dgx-h100 x2"}) {
    auto plan =
        make_plan(job, std::string(machine) == "cpu:cores=4" ? virtual_nodes(machine, 2) : machines(machine), bare);
    REQUIRE(plan.ok());
    const mds::agent::NodeStart start = node_start(*plan, 0, 1, "h", 1);
    for (const auto& [name, value] : environment_of(start)) {
      INFO(name << "=" << value);
      CHECK(documented.count(name) == 1);
    }
  }
  CHECK(is_contract_variable("RANK"));
  CHECK(is_contract_variable("MDS_ANYTHING"));
  CHECK(is_contract_variable("TORCHELASTIC_ERROR_FILE"));
  CHECK_FALSE(is_contract_variable("OMP_NUM_THREADS"));
  CHECK_FALSE(is_contract_variable("RANKS"));
}

TEST_CASE("our own environment is passed on without the contract's variables") {
  setenv("RANK", "17", 1);
  setenv("MDS_PROBE", "1", 1);
  setenv("PROBE_OF_THIS_TEST", "a=b", 1);
  const auto env = inherited_environment();
  CHECK(env.count("RANK") == 0);
  CHECK(env.count("MDS_PROBE") == 0);
  CHECK(env.at("PROBE_OF_THIS_TEST") == "a=b");
  unsetenv("RANK");
  unsetenv("MDS_PROBE");
}

TEST_CASE("the user's job.env has the last word over tuning variables") {
  const Job job = job_of(kPayload + "[job.env]\nOMP_NUM_THREADS = \"5\"\nNCCL_SOCKET_IFNAME = \"eth7\"\n");
  const LaunchPlan plan = plan_of(job, virtual_nodes("cpu:cores=4", 2));
  const auto env = environment_of(node_start(plan, 0, 1, "127.0.0.1", 1));
  CHECK(env.at("OMP_NUM_THREADS") == "5");
  CHECK(env.at("NCCL_SOCKET_IFNAME") == "eth7");
  CHECK(env.at("GLOO_SOCKET_IFNAME") == "lo");
}

TEST_CASE("MPI programs on several nodes that are one machine are told so") {
  const auto variables = [](const std::string& more, const std::string& exported = "") {
    PlanInputs given = inputs();
    if (!exported.empty()) given.base_env["OMPI_MCA_reachable"] = exported;
    const auto plan = make_plan(job_of(kPayload + more), virtual_nodes("cpu:cores=4", 2), given);
    REQUIRE(plan.ok());
    return environment_of(node_start(*plan, 0, 1, "127.0.0.1", 1));
  };
  CHECK(variables("mpi = true\n").at("OMPI_MCA_reachable") == "weighted");
  CHECK(variables("mpi = true\n").at("UCX_POSIX_USE_PROC_LINK") == "n");
  CHECK(variables("mpi = true\n", "netlink").at("OMPI_MCA_reachable") == "netlink");
  CHECK(variables("").count("OMPI_MCA_reachable") == 0);
}

TEST_CASE("the user's own OMP_NUM_THREADS wins over the plan's") {
  PlanInputs exported = inputs();
  exported.base_env["OMP_NUM_THREADS"] = "3";
  const auto plan = make_plan(job_of(kPayload), virtual_nodes("cpu:cores=4", 2), exported);
  REQUIRE(plan.ok());
  CHECK(environment_of(node_start(*plan, 0, 1, "127.0.0.1", 1)).at("OMP_NUM_THREADS") == "3");
}

TEST_CASE("threads are counted in cores, not in hardware threads") {
  const Job job = job_of("[job]\nranks_per_node = 2\n[payload]\ncommand = [\"true\"]\n");
  const LaunchPlan plan = plan_of(job, machines("cpu:packages=2,cores=8,threads=2"));
  for (const auto& spec : plan.nodes[0].ranks) {
    CHECK(spec.env.at("OMP_NUM_THREADS") == "8");
    CHECK(spec.cpus.size() == 16);
  }
}

TEST_CASE("every rank of a GPU node sees all of its node's GPUs, its own at LOCAL_RANK") {
  const Job job = job_of("[job]\nnodes = 2\ngpus_per_node = 4\n[payload]\ncommand = [\"true\"]\n");
  const Cluster cluster = machines("dgx-h100 x2");
  const LaunchPlan plan = plan_of(job, cluster);
  for (const PlannedNode& node : plan.nodes) {
    for (const auto& spec : node.ranks) {
      const auto& placed = plan.placement.ranks[static_cast<size_t>(spec.rank)];
      std::vector<std::string> devices;
      std::string word;
      for (const char c : spec.env.at("CUDA_VISIBLE_DEVICES") + ",") {
        if (c == ',') {
          devices.push_back(word);
          word.clear();
        } else {
          word += c;
        }
      }
      REQUIRE(devices.size() == 4);
      const auto& gpus = cluster.nodes[static_cast<size_t>(placed.node)].gpus;
      CHECK(devices[static_cast<size_t>(spec.local_rank)] ==
            std::to_string(gpus[static_cast<size_t>(placed.gpu)].index));
      CHECK(spec.env.at("CUDA_DEVICE_ORDER") == "PCI_BUS_ID");
      CHECK(spec.env.at("NCCL_IB_HCA").substr(0, 1) == "=");
      CHECK(spec.env.count("NCCL_SOCKET_IFNAME") == 0);
    }
  }
}

TEST_CASE("plan --json says what it promises and keeps the user's environment to itself") {
  const Job job = job_of(valid_text());
  const Cluster cluster = virtual_nodes("cpu:cores=4", 2);
  const auto json = to_json(plan_of(job, cluster), job, cluster);
  CHECK(json.at("version") == 1);
  CHECK(json.at("world_size") == 4);
  CHECK(json.at("step_time").at("total").get<double>() > 0);
  CHECK(json.at("reasons").size() > 2);
  REQUIRE(json.at("ranks").size() == 4);
  for (const auto& rank : json.at("ranks")) {
    for (const char* field : {"rank", "host", "node", "local_rank", "tp", "pp", "dp", "cp", "device", "cores",
                              "memory_nodes", "nics", "env", "argv"}) {
      INFO(field);
      CHECK(rank.contains(field));
    }
    CHECK(rank.at("memory").at("total").get<int64_t>() > 0);
  }
  CHECK(json.dump().find("hunter2") == std::string::npos);
}

TEST_CASE("a job that cannot be placed or does not fit is infeasible") {
  const Job two = job_of(kPayload);
  const auto one_node = make_plan(two, machines("cpu:cores=4"), inputs());
  REQUIRE_FALSE(one_node.ok());
  CHECK(one_node.error().code == mds::ErrorCode::infeasible);
  const Job large = job_of(
      "[job]\ngpus_per_node = 8\n[model]\npreset = \"llama-70b\"\n[data]\nformat = \"random\"\n"
      "[training]\nsteps = 1\nseq_len = 8192\nglobal_batch_size = 8\nprecision = \"bf16\"\n");
  const auto too_large = make_plan(large, machines("dgx-h100"), inputs());
  REQUIRE_FALSE(too_large.ok());
  CHECK(too_large.error().code == mds::ErrorCode::infeasible);
  CHECK(too_large.error().message.find("GiB") != std::string::npos);
}
