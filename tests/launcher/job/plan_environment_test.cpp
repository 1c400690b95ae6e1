// What NCCL is told: adapters, interface, rails, and a topology where a virtual machine hides its own.
#include <algorithm>

#include "launcher/plan.hpp"
#include "launcher/plan_environment_nccl.hpp"
#include "tests/catch.hpp"
#include "tests/launcher/job/job_texts.hpp"
#include "topology/read/read_machine.hpp"
#include "topology/read/synthetic.hpp"

using namespace mds::launcher;
using namespace mds::launcher::tests;
using mds::topology::Cluster;
using mds::topology::Machine;
using mds::topology::Nic;

namespace {

Cluster machines(const std::string& description) { return *mds::topology::synthetic_cluster(description); }

LaunchPlan plan_of(const Cluster& cluster, const std::string& parallel = "", const Environment& exported = {}) {
  const std::string text = "[job]\nnodes = " + std::to_string(cluster.nodes.size()) +
                           "\ngpus_per_node = 8\n[parallel]\n" + parallel + "[payload]\ncommand = [\"true\"]\n";
  const JobFileResult job = parse_job(text, "job.toml", {});
  INFO(all_problems(job));
  REQUIRE(job.job);
  PlanInputs inputs;
  inputs.run_folder = "/runs/x";
  inputs.base_env = exported;
  auto plan = make_plan(*job.job, cluster, inputs);
  if (!plan) FAIL(plan.error().message);
  return *plan;
}

std::string variable(const LaunchPlan& plan, int rank, const std::string& name) {
  for (const PlannedNode& node : plan.nodes) {
    for (const auto& spec : node.ranks) {
      if (spec.rank != rank) continue;
      const auto found = spec.env.find(name);
      return found == spec.env.end() ? "(unset)" : found->second;
    }
  }
  return "(no such rank)";
}

Nic interface_of(const char* name, double gbps, const char* bus_id = "0000:99:00.0") {
  Nic nic;
  nic.name = name;
  nic.gbps = gbps;
  nic.bus_id = bus_id;
  return nic;
}

}  // namespace

TEST_CASE("NCCL_IB_HCA: exact names with ports, the rank's own first, the same set for all ranks of a node") {
  Cluster cluster = machines("dgx-h100 x2");
  for (Machine& node : cluster.nodes) {
    Nic storage;
    storage.name = "mlx5_99";
    storage.rdma = true;
    storage.gbps = 100;
    node.nics.push_back(storage);
    node.nics.front().port = 2;
  }
  const LaunchPlan plan = plan_of(cluster);
  CHECK(variable(plan, 0, "NCCL_IB_HCA").rfind("=mlx5_0:2,", 0) == 0);
  CHECK(variable(plan, 9, "NCCL_IB_HCA").rfind("=mlx5_3:1,", 0) == 0);
  CHECK(variable(plan, 0, "NCCL_IB_HCA").find("mlx5_99") == std::string::npos);
  const auto sorted = [&](int rank) {
    std::string text = variable(plan, rank, "NCCL_IB_HCA");
    std::sort(text.begin(), text.end());
    return text;
  };
  for (int rank = 1; rank < 16; ++rank) CHECK(sorted(rank) == sorted(0));
}

TEST_CASE("adapters without verbs or without a name are not in NCCL_IB_HCA") {
  for (const char* name : {"cxi0", "rdmap197s0", ""}) {
    Cluster cluster = machines("dgx-h100 x2");
    for (Machine& node : cluster.nodes) {
      node.nics.resize(1);
      node.nics[0].name = name;
    }
    INFO(name);
    CHECK(variable(plan_of(cluster), 0, "NCCL_IB_HCA") == "(unset)");
  }
}

TEST_CASE("NCCL_SOCKET_IFNAME: an interface that all nodes have, not a rail's, hardware first, then the fastest") {
  Cluster cluster = machines("dgx-h100 x2");
  for (Machine& node : cluster.nodes) {
    node.nics[0].interface = "ib0";
    node.nics.push_back(interface_of("eno1", 10));
    node.nics.push_back(interface_of("eno2", 100));
    node.nics.push_back(interface_of("veth9", 0, ""));
  }
  cluster.nodes[0].nics.push_back(interface_of("only-here", 400));
  LaunchPlan plan = plan_of(cluster);
  CHECK(variable(plan, 0, "NCCL_SOCKET_IFNAME") == "=eno2");
  CHECK(variable(plan, 15, "GLOO_SOCKET_IFNAME") == "eno2");
  for (Machine& node : cluster.nodes) std::erase_if(node.nics, [](const Nic& nic) { return !nic.rdma; });
  CHECK(variable(plan_of(cluster), 0, "NCCL_SOCKET_IFNAME") == "=ib0");
  cluster.nodes[1].nics[0].interface = "ib7";
  plan = plan_of(cluster);
  CHECK(variable(plan, 0, "NCCL_SOCKET_IFNAME") == "(unset)");
  CHECK(std::count_if(plan.placement.reasons.begin(), plan.placement.reasons.end(), [](const std::string& reason) {
          return reason.find("no network interface has the same name on all nodes") == 0;
        }) == 1);
}

TEST_CASE("NCCL_CROSS_NIC: 0 on rails, not set elsewhere") {
  CHECK(variable(plan_of(machines("dgx-h100 x4 fabric:leaf=2,spine=2,rails=8")), 0, "NCCL_CROSS_NIC") == "0");
  CHECK(variable(plan_of(machines("dgx-h100 x4 fabric:leaf=2,spine=2")), 0, "NCCL_CROSS_NIC") == "(unset)");
  CHECK(variable(plan_of(machines("dgx-h100 x4")), 0, "NCCL_CROSS_NIC") == "(unset)");
  CHECK(variable(plan_of(machines("dgx-h100")), 0, "NCCL_CROSS_NIC") == "(unset)");
  Cluster swapped = machines("dgx-h100 x4 fabric:leaf=2,spine=2,rails=8");
  std::swap(swapped.fabric.ports[0].leaf, swapped.fabric.ports[1].leaf);
  CHECK(variable(plan_of(swapped), 0, "NCCL_CROSS_NIC") == "(unset)");
}

TEST_CASE("NCCL_TOPO_FILE: only where a recording of a virtual machine makes up for what that hides") {
  LaunchPlan plan = plan_of(machines("dgx-h100 x2"));
  CHECK(variable(plan, 0, "NCCL_TOPO_FILE") == "(unset)");
  CHECK(plan.files.empty());

  Cluster cluster = machines("dgx-h100 x2");
  for (Machine& node : cluster.nodes) {
    for (auto& device : node.pci) {
      if (device.parent < 0) device.vendor = "0x0000";
    }
  }
  plan = plan_of(cluster);
  REQUIRE(plan.files.size() == 1);  // equal machines share it
  CHECK(variable(plan, 15, "NCCL_TOPO_FILE") == "/runs/x/" + plan.files.begin()->first);
  const auto machine = mds::topology::read_nccl_xml(plan.files.begin()->second, "again");
  REQUIRE(machine);
  CHECK(machine->gpus.size() == 8);
}

TEST_CASE("what the user exported goes before the plan's, except where all ranks are on one machine") {
  const Environment exported{{"NCCL_IB_HCA", "mlx5"}, {"NCCL_SOCKET_IFNAME", "bond0"}, {"NCCL_DEBUG", "INFO"}};
  const LaunchPlan plan = plan_of(machines("dgx-h100 x2"), "", exported);
  CHECK(variable(plan, 3, "NCCL_IB_HCA") == "mlx5");
  const auto start = node_start(plan, 1, 1, "h", 1);
  CHECK(start.env.at("NCCL_SOCKET_IFNAME") == "bond0");
  CHECK(start.env.at("NCCL_DEBUG") == "INFO");
  CHECK(variable(plan_of(machines("dgx-h100"), "", exported), 0, "NCCL_SOCKET_IFNAME") == "lo");
}

TEST_CASE("GPUs are named by UUID where all are known, else by index") {
  Cluster cluster = machines("dgx-h100 x2");
  for (auto& gpu : cluster.nodes[0].gpus) gpu.uuid = "GPU-" + std::to_string(gpu.index);
  cluster.nodes[1].gpus[0].uuid = "GPU-x";
  const LaunchPlan plan = plan_of(cluster);
  CHECK(variable(plan, 0, "CUDA_VISIBLE_DEVICES") == "GPU-0,GPU-1,GPU-2,GPU-3,GPU-4,GPU-5,GPU-6,GPU-7");
  CHECK(variable(plan, 8, "CUDA_VISIBLE_DEVICES") == "0,1,2,3,4,5,6,7");
}

TEST_CASE("NODE_RANK follows the ranks, PlannedNode::node the cluster") {
  Cluster cluster = machines("dgx-h100 x4 fabric:leaf=2,spine=2");
  std::swap(cluster.nodes[1], cluster.nodes[2]);  // now leaves alternate: 0, 2 | 1, 3
  const LaunchPlan plan = plan_of(cluster, "tensor = 8\npipeline = 2\n");
  REQUIRE(plan.nodes.size() == 4);
  for (int node = 0; node < 4; ++node) {
    CHECK(plan.nodes[node].node == node);
    for (const auto& spec : node_start(plan, node, 1, "h", 1).ranks) {
      const int node_rank = std::stoi(spec.env.at("NODE_RANK"));
      CHECK(spec.rank == 8 * node_rank + spec.local_rank);
      CHECK(plan.placement.nodes[node_rank].node == node);
    }
  }
  CHECK(plan.placement.nodes[1].node == 2);
}
