// Requeue: a Slurm job that is started again goes on in the run folder of its first time.
#pragma once

#include <optional>
#include <string>

#include "launcher/surroundings.hpp"

namespace mds::launcher {

/// What a run in this Slurm job is called and where it goes on.
struct JobIdentity {
  std::string run_id;  ///< last part of the run folder's name, the same each time: "cluster-1234"
  std::string resume;  ///< the folder to go on in; empty: none is there
};

/// `continued_job`: the first job of a chain whose run this one continues, as MDS_CONTINUE_JOB says; empty: none.
JobIdentity job_identity(const slurm::Allocation& allocation, const std::string& continued_job,
                         const std::string& output_dir, const std::string& job_name);

/// Puts the Slurm job back into the queue, unless Slurm or somebody has ended it meanwhile (scancel, time limit). Says
/// on standard error what it did.
void requeue(const slurm::Allocation& allocation);

}  // namespace mds::launcher
