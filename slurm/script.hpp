// Batch scripts: what `mdslaunch sbatch` prints and `mdslaunch submit` hands to sbatch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "topology/result.hpp"

namespace mds::slurm {

/// Empty texts and zeros leave a matter to the cluster's defaults.
struct BatchScript {
  std::string job_name;
  std::string nodes;  ///< "4", or "2-4" for what can be had
  std::string partition{}, account{};
  std::string time{};        ///< as Slurm writes it: "2-00:00:00", "90" (minutes)
  int64_t memory_bytes = 0;  ///< on each node; 0: all of it
  int gpus_per_node = 0;
  bool exclusive = true;
  bool requeue = true;
  bool no_kill = false;  ///< the job goes on when a node is lost
  int64_t signal_before_end_s = 0;
  std::string array{};                          ///< "1-8%2"
  std::string output_dir;                       ///< absolute; it must exist when the job starts
  std::string working_dir;                      ///< absolute
  std::vector<std::string> notes{};             ///< sentences for the reader, in the head's comment
  std::vector<std::string> setup{};             ///< lines of shell, as they are
  std::vector<std::string> extra{};             ///< more options, "--qos=high"
  std::vector<std::string> command;             ///< words; argv[0] is absolute
  std::vector<std::string> seeds_from_array{};  ///< keys that take the array's number with --set
};

/// The script: readable, commented, depending on nothing but what it names. Errors: bad_input (a value that would not
/// stay in its line, an option that does not begin with "--", a time that is none).
Result<std::string> batch_script(const BatchScript& script);

/// The word as a shell reads it back; in single quotes where needed.
std::string quoted(const std::string& word);

}  // namespace mds::slurm
