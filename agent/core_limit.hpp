// Core limit: a process that holds the job's key writes no core file; what it starts may write its own.
#pragma once

#include <sys/resource.h>

#include <optional>

namespace mds::agent {

/// No core of this process is written from here on, nor piped to a program that collects them: the kernel asks for
/// nothing below a limit of one page, and a limit of exactly one byte stops the pipe, too (fs/coredump.c). Call once,
/// before the process has threads.
void forbid_core_dumps();

/// What the limit was before, for ranks and agents to have; nullopt where it was not changed.
std::optional<rlimit> core_limit_before();

/// While it lives, what this process starts has that limit (and so has this process).
class CoreLimitLifted {
 public:
  CoreLimitLifted();
  CoreLimitLifted(const CoreLimitLifted&) = delete;
  CoreLimitLifted& operator=(const CoreLimitLifted&) = delete;
  ~CoreLimitLifted();
};

}  // namespace mds::agent
