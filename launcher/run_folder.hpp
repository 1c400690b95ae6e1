// The run folder, <output_dir>/<name>-<time>-<id>/: all that a run leaves behind. Made new for each run, mode 0700.
//
//   job.toml plan.json trainer.json placement.svg       what was asked for and decided
//   events.jsonl metrics.jsonl                          appended while it runs
//   metrics.csv loss.svg tensorboard/ logs/ stacks/ checkpoints/
//   report.json                                         written at the end
#pragma once

#include <ctime>
#include <string>

#include "topology/result.hpp"

namespace mds::launcher {

class RunFolder {
 public:
  /// Names the folder; touches nothing. `now` is wall-clock time, `id` a few random characters.
  static RunFolder named(const std::string& output_dir, const std::string& name, std::time_t now,
                         const std::string& id);

  /// The folder of a run that is there already: `path` is absolute.
  static RunFolder existing(const std::string& path);

  /// What people mean by RUN: a run folder, the name of one in `output_dir` or the id at the end of its name; empty:
  /// the newest in `output_dir`. Errors: bad_input.
  static Result<RunFolder> find(const std::string& run, const std::string& output_dir);

  /// Makes <output_dir> where it is missing, the folder and its subfolders. Errors: unavailable (path and reason; also
  /// when the folder exists).
  Status make() const;

  const std::string& path() const { return path_; }          ///< absolute
  const std::string& id() const { return id_; }              ///< the folder's name
  std::string file(const std::string& name) const { return path_ + "/" + name; }

  /// Writes a whole file (mode 0600) under a temporary name and renames it, so that a reader never sees half of it.
  Status write(const std::string& name, const std::string& content) const;

  /// Points <output_dir>/latest here; readers see the old or the new folder, never none.
  Status link_latest() const;

 private:
  RunFolder(std::string output_dir, std::string id);
  std::string output_dir_;
  std::string id_;
  std::string path_;
};

}  // namespace mds::launcher
