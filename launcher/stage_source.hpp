// Stage source: the launcher's end of staging. It knows each file by its digest and answers agents with parts of it,
// read from where the file lies.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "agent/rank_spec.hpp"
#include "agent/stage_list.hpp"
#include "launcher/backend.hpp"
#include "launcher/job.hpp"

namespace mds::launcher {

/// Threads: the head's, once made.
class StageSource {
 public:
  /// Of list_files() and list_folders(). `programs`: folder on the nodes of what belongs to mdsagent.
  StageSource(const StageConfig& config, const std::string& run, const std::string& programs,
              const std::vector<agent::StageEntry>& entries);

  const agent::StageSpec& spec() const { return spec_; }
  uint64_t files() const { return paths_.size(); }  ///< those with equal bytes count once
  uint64_t bytes() const { return bytes_; }

  /// The stage_part that answers a stage_ask. A file that cannot be read any more is an error in the answer.
  nlohmann::json part(const nlohmann::json& ask) const;

 private:
  std::string list_;
  agent::StageSpec spec_;
  std::map<std::string, std::string> paths_;  ///< by digest
  uint64_t bytes_ = 0;
};

/// Where mdsagent's program goes on the nodes: a name beside the job's folder there that nobody can guess. Errors:
/// bad_input (the program cannot be read).
Result<AgentCopy> agent_copy(const Job& job, const std::string& agent_program);

}  // namespace mds::launcher
