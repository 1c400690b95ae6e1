#include "launcher/requeue.hpp"

#include <cstdio>
#include <filesystem>
#include <vector>

#include "launcher/backend_child.hpp"

namespace mds::launcher {

namespace {

/// The newest folder of this run.
std::string newest_folder(const std::string& output_dir, const std::string& job_name, const std::string& run_id) {
  std::string newest;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(output_dir, error)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name.starts_with(job_name + "-") && name.ends_with("-" + run_id) &&
                      std::filesystem::exists(entry.path() / "events.jsonl", error);
    if (ours && entry.path().string() > newest) newest = entry.path().string();  // the time comes first in what differs
  }
  return newest;
}

}  // namespace

JobIdentity job_identity(const slurm::Allocation& allocation, const std::string& continued_job,
                         const std::string& output_dir, const std::string& job_name) {
  JobIdentity identity;
  identity.run_id = slurm::run_label(allocation);
  const std::string cluster = allocation.cluster.empty() ? "" : allocation.cluster + "-";
  if (!continued_job.empty()) identity.run_id = cluster + continued_job;
  if (!continued_job.empty() || allocation.restart_count > 0) {
    identity.resume = newest_folder(output_dir, job_name, identity.run_id);
  }
  return identity;
}

void requeue(const slurm::Allocation& allocation) {
  const std::string id = std::to_string(allocation.job_id);
  const auto say = [](const std::string& text) { std::fprintf(stderr, "mdslaunch: %s\n", text.c_str()); };
  const auto scontrol = program_in_path("scontrol");
  if (!scontrol) return say("the job is not queued again: " + scontrol.error().message);
  const auto job = output_of({*scontrol, "--oneliner", "show", "job", id});
  const bool goes_on = job && job->find(" JobState=RUNNING ") != std::string::npos;
  const bool may = job && job->find(" Requeue=1 ") != std::string::npos;
  if (!goes_on || !may)
    return say("job " + id + (goes_on ? " may not be queued again (--requeue)" : " has been ended"));
  say("job " + id + " is queued again");  // said first: Slurm may end us before scontrol has returned
  if (const auto done = output_of({*scontrol, "requeue", id}); !done) say("it is not: " + done.error().message);
}

}  // namespace mds::launcher
