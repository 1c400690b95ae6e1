// Subreaper: makes sure that nothing that this process started outlives it.
#pragma once

#include <sys/types.h>

#include <vector>

namespace mds::launcher {

/// Orphans of the run's process trees become children of this process, so that none is out of reach. Children that it
/// already had when this object was made (a shell that exec'ed us) are not the run's and are left alone.
class Subreaper {
 public:
  Subreaper();

  /// Kills and reaps every descendant of this process that is not older than this object; returns when none is left.
  void end_all();

 private:
  std::vector<pid_t> foreign_;
};

}  // namespace mds::launcher
