#include "slurm/allocation.hpp"

#include <algorithm>
#include <cctype>

#include "slurm/host_list.hpp"

namespace mds::slurm {
namespace {

constexpr int kComponentsMax = 128;  // Slurm's own limit for a heterogeneous job

std::string text(const Environment& environment, const std::string& name) {
  const auto at = environment.find(name);
  return at == environment.end() ? "" : at->second;
}

/// The variable's number, `otherwise` when it is not set.
Result<int64_t> number(const Environment& environment, const std::string& name, int64_t otherwise) {
  const std::string digits = text(environment, name);
  if (digits.empty()) return otherwise;
  const bool valid =
      digits.size() <= 18 && std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c); });
  if (!valid) return bad_input(name + "=" + digits.substr(0, 40) + " is not a number; is this a Slurm job?");
  return std::stoll(digits);
}

/// SLURM_GPUS_PER_NODE is what was asked for; SLURM_GPUS_ON_NODE what this node has of it.
int gpus(const Environment& environment, const std::string& suffix) {
  for (const char* name : {"SLURM_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE"}) {
    if (const int count = gpu_count(text(environment, name + suffix)); count > 0) return count;
  }
  return 0;
}

Status add_component(const Environment& environment, const std::string& list, const std::string& suffix,
                     Allocation& out) {
  const auto hosts = expand_hosts(text(environment, list));
  if (!hosts) return hosts.error().within(list);
  const int first = static_cast<int>(out.hosts.size());
  out.components.push_back({first, static_cast<int>(hosts->size()), gpus(environment, suffix)});
  out.hosts.insert(out.hosts.end(), hosts->begin(), hosts->end());
  return {};
}

Status add_hosts(const Environment& environment, Allocation& out) {
  const auto components = number(environment, "SLURM_HET_SIZE", 0);
  if (!components) return components.error();
  if (*components > kComponentsMax) return bad_input("SLURM_HET_SIZE is more than " + std::to_string(kComponentsMax));
  for (int64_t n = 0; n < *components; ++n) {
    const std::string suffix = "_HET_GROUP_" + std::to_string(n);
    if (Status s = add_component(environment, "SLURM_JOB_NODELIST" + suffix, suffix, out); !s) return s;
  }
  if (*components > 0) return {};
  const bool is_new = environment.count("SLURM_JOB_NODELIST") != 0;
  return add_component(environment, is_new ? "SLURM_JOB_NODELIST" : "SLURM_NODELIST", "", out);
}

}  // namespace

int gpu_count(const std::string& text) {
  int count = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, comma - begin);
    const size_t colon = part.rfind(':');
    const std::string digits = colon == std::string::npos ? part : part.substr(colon + 1);
    const bool valid =
        !digits.empty() && digits.size() <= 4 && digits.find_first_not_of("0123456789") == std::string::npos;
    if (!valid) return 0;
    count += std::stoi(digits);
    begin = comma + 1;
  }
  return count;
}

Result<std::optional<Allocation>> read_allocation(const Environment& environment) {
  Allocation out;
  const bool is_new = environment.count("SLURM_JOB_ID") != 0;
  const auto job = number(environment, is_new ? "SLURM_JOB_ID" : "SLURM_JOBID", 0);
  const auto restarts = number(environment, "SLURM_RESTART_COUNT", 0);
  const auto end = number(environment, "SLURM_JOB_END_TIME", 0);
  const auto task = number(environment, "SLURM_PROCID", 0);
  for (const auto* field : {&job, &restarts, &end, &task}) {
    if (!*field) return field->error();
  }
  if (*job == 0) return std::optional<Allocation>();
  if (Status s = add_hosts(environment, out); !s) return s.error();
  if (out.hosts.empty()) return bad_input("SLURM_JOB_ID is set but SLURM_JOB_NODELIST names no node");
  out.job_id = *job;
  out.cluster = text(environment, "SLURM_CLUSTER_NAME");
  out.job_name = text(environment, "SLURM_JOB_NAME");
  const std::string array = text(environment, "SLURM_ARRAY_JOB_ID"), member = text(environment, "SLURM_ARRAY_TASK_ID");
  if (!array.empty() && !member.empty()) out.array_text = array + "_" + member;
  out.gpus_per_node = out.components.front().gpus_per_node;
  out.restart_count = static_cast<int>(std::min<int64_t>(*restarts, 1 << 20));
  if (*end > 0) out.end_time = *end;
  // The batch script's own environment has SLURM_PROCID, too, but no step.
  out.in_step = environment.count("SLURM_STEP_ID") != 0 && environment.count("SLURM_PROCID") != 0;
  out.task = out.in_step ? static_cast<int>(*task) : 0;
  return std::optional<Allocation>(std::move(out));
}

std::string run_label(const Allocation& allocation) {
  const std::string job = allocation.array_text.empty() ? std::to_string(allocation.job_id) : allocation.array_text;
  return allocation.cluster.empty() ? job : allocation.cluster + "-" + job;
}

}  // namespace mds::slurm
