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
    "| `step_time` | `null` in this version, with `step_time_reason` |\n"
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
    "| `memory` | estimate in bytes, of `mdstrain` only: `parameters`, `gradients`, `optimizer`, `activations`, "
    "`total` |\n\n"
    "The estimate, for a rank that holds n parameters of e bytes (4 with fp32, 2 with bf16):\n\n"
    "- parameters: n e; gradients: 4n, accumulated in fp32.\n"
    "- optimizer: 8n for AdamW's two moments and, with bf16, 4n for fp32 masters, divided by the replicas from ZeRO 1 "
    "on.\n"
    "- activations, after Korthikanti et al., arXiv 2205.05198, without dropout and with attention that keeps no "
    "scores: for b samples of s tokens, width h, t tensor ranks, q and k the widths of query and key heads and f of "
    "the MLP, one layer keeps s b e (4h/u + (2q + 2k + m f)/t), where m is 3 for LLaMA and otherwise 2, and u is t "
    "with sequence parallelism and otherwise 1. Selective recomputation makes that 2h/u and m - 1, full recomputation "
    "s b e h/u in all. The last stage adds s b (2h e/u + 4V/t) for vocabulary V. All times the micro batches in "
    "flight: min(stages - stage, micro batches), with GPipe all of them.\n";

}  // namespace

std::string reference_markdown() {
  return "# Reference\n\n"
         "Made by `mdslaunch reference` from the tables that the programs use; not edited by hand.\n\n" +
         commands_markdown() + "\n" + job_reference_markdown() + environment_markdown() + "\n" + kPlanJson;
}

}  // namespace mds::launcher
