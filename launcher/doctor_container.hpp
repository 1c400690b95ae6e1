// Doctor's look at containers: what this machine lacks for starting them, and what an image lacks for a job's ranks.
#pragma once

#include <string>
#include <vector>

#include "launcher/job.hpp"
#include "topology/doctor/doctor.hpp"

namespace mds::launcher {

/// What the checks of a machine look at, so that tests can make one up.
struct ContainerFacts {
  std::string root;                   ///< in front of /proc, /sys and /dev: "" on a real machine
  bool privileged = false;            ///< this process may make namespaces whatever the settings are
  std::vector<std::string> runtimes;  ///< names of those whose programs are in PATH
  bool squashfuse = false;            ///< squashfuse_ll, or squashfuse, is in PATH
  bool runc = false;
};
ContainerFacts read_container_facts();

/// Codes: no-container-runtime, user-namespaces-off, user-namespaces-apparmor, fuse-missing, squashfuse-missing,
/// cgroup-v1. Warnings where `wanted` (a job asks for a container), else notes.
std::vector<topology::Finding> examine_container_host(const ContainerFacts& facts, const std::string& host,
                                                      bool wanted);

/// What an image's files say.
struct ImageFacts {
  std::string runtime;         ///< that was entered
  std::string libc;            ///< newest symbol version of its C library, "2.36"; empty: not found
  std::string libc_needed;     ///< the newest that programs of this build ask for
  bool libibverbs = false;
  std::string lacks;           ///< program of the ranks that it has not got; empty: it has it, or that is unknown
};
/// Codes: image-without-verbs (a warning where the machine has RDMA adapters), image-libc-old, image-lacks-program.
std::vector<topology::Finding> examine_image(const ImageFacts& facts, const topology::Machine& machine);

/// Stages the job's image, starts each runtime that the job allows with it, and looks inside: the findings of all that.
/// Blocks. Codes: those of examine_image, image-unusable, runtime-fails, runtime-works (a note).
std::vector<topology::Finding> try_job_container(const Job& job, const topology::Machine& machine);

}  // namespace mds::launcher
