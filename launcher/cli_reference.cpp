// docs/reference.md, from the tables that the parser, the planner and the command line use.
#include "launcher/cli.hpp"
#include "launcher/job_file.hpp"
#include "launcher/plan_environment.hpp"

namespace mds::launcher {
namespace {

std::string environment_markdown() {
  std::string out =
      "## What a rank sees\n\n"
      "torchrun's contract, so that a program written for it runs unchanged. With the local back end the rest of your "
      "own environment is passed on. `job.env` may set anything but the variables marked with *.\n\n"
      "| Variable | Meaning |\n|---|---|\n";
  for (const RankVariable& variable : rank_variables()) {
    out += "| `" + variable.name + "`" + (variable.contract ? " *" : "") + " | " + variable.doc + " |\n";
  }
  return out;
}

constexpr const char* kPlanJson =
    "## `plan --json`\n\n"
    "One object, version 1. Later versions add fields; `version` changes when one is removed or changes its "
    "meaning.\n\n"
    "| Field | Meaning |\n|---|---|\n"
    "| `version` | 1 |\n"
    "| `job` | name of the job |\n"
    "| `world_size` | ranks in all |\n"
    "| `parallel` | `tensor`, `pipeline`, `data`, `context`: sizes of the axes; `order`: the fastest varying first |\n"
    "| `ranks` | one object a rank, by rank: see below |\n"
    "| `step_time` | seconds of a step, an estimate: `total`, its parts `matrix`, `attention`, `elementwise`, "
    "`recompute`, `tensor`, `context`, `pipeline`, `bubble`, `data`, `optimizer`, `offload`, the largest of them "
    "(`dominant`), `tokens_per_second` and `mfu`; `null` for a program of your own (then with `step_time_reason`) or a "
    "device whose rates are not known |\n"
    "| `reasons` | sentences: why ranks are where they are, and what \"auto\" came to |\n\n"
    "| Field of a rank | Meaning |\n|---|---|\n"
    "| `rank`, `host`, `node`, `local_rank` | where it runs; `node` counts (virtual) nodes |\n"
    "| `tp`, `pp`, `dp`, `cp` | coordinates on the axes |\n"
    "| `device` | `\"cpu\"` or `\"cuda:N\"`, where N is the driver's number |\n"
    "| `gpu` | on a GPU: `index` (N), `uuid`, `bus_id`, `name` |\n"
    "| `cores` | the kernel's numbers of the hardware threads that it is bound to |\n"
    "| `shares_cores` | true if there are fewer cores than ranks |\n"
    "| `memory_nodes` | NUMA nodes that its memory is bound to; empty: not bound |\n"
    "| `nics` | network interfaces, nearest first |\n"
    "| `argv` | program and arguments |\n"
    "| `env` | variables of the plan; not your own environment, nor what changes with each attempt |\n"
    "| `memory` | estimate in bytes, of `mdstrain` only: `parameters`, `gradients`, `optimizer`, `activations` kept "
    "between the passes, `buffers` that a pass needs for itself (`tensors` is their sum: what `memory_bytes_max` in "
    "report.json counts), `runtime` (the driver's context, NCCL), `total`; `host` and `nvme` for what is offloaded "
    "|\n\n"
    "The formulas stand in topology/cost/memory.hpp and step_time.hpp; [the guide](guide.md) says how far to trust "
    "them.\n";

}  // namespace

std::string reference_markdown() {
  return "# Reference\n\n"
         "Made by `mdslaunch reference` from the tables that the programs use; not edited by hand.\n\n" +
         commands_markdown() + "\n" + job_reference_markdown() + environment_markdown() + "\n" + kPlanJson;
}

}  // namespace mds::launcher
