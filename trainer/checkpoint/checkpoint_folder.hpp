// The folder that holds checkpoints: names, atomic commit, removal. Of all ranks only rank 0 changes it.
#pragma once

#include <string>

#include "topology/result.hpp"

namespace mds::trainer {

class CheckpointFolder {
 public:
  explicit CheckpointFolder(std::string path) : path_(std::move(path)) {}

  std::string committed_path(int64_t step) const;  ///< <folder>/step-00000100
  std::string partial_path(int64_t step) const;    ///< where it is written before the commit

  /// Creates the folder and an empty partial one, and removes what interrupted saves and removals have left.
  Status prepare(int64_t step) const;
  /// Writes the manifest, flushes the partial folder and renames it into place, replacing a checkpoint of the same
  /// step.
  Status commit(int64_t step, const std::string& manifest) const;
  /// Removes the partial folder; errors are of no consequence.
  void discard(int64_t step) const;
  /// Keeps the `keep` newest committed checkpoints, and that of `step` in any case.
  void remove_older(int keep, int64_t step) const;

 private:
  std::string path_;
};

}  // namespace mds::trainer
