// Stage plan: which files a job needs on nodes that share none with this machine, and what their names become there.
//
// On a node each file lies below one root at the path that it has here, so that what lies together stays together: a
// script and its modules, a data set and its index. Ranks start in the copy of the working folder, so relative paths
// in a command keep their meaning; absolute ones that name something staged are rewritten.
#pragma once

#include <string>
#include <vector>

#include "agent/stage_list.hpp"
#include "launcher/plan.hpp"

namespace mds::launcher {

struct StagePlan {
  std::string root;                      ///< on the node: agent/stage_store.hpp
  std::vector<std::string> sources;      ///< files and folders, absolute and normal
  std::vector<std::string> libraries;    ///< folders, among the sources, for LD_LIBRARY_PATH
  std::string working_dir;               ///< made on the node, empty but for what is staged in it
  std::string run_folder;
  bool shares_run_folder = true;         ///< all nodes see it: ranks write there, not to a folder of the node's

  /// A path as ranks know it: below the root if it is staged.
  std::string on_node(const std::string& path) const;
  /// A word of a command or a variable's value: "PATH" and "--name=PATH" with the path on the node.
  std::string word_on_node(const std::string& word) const;
};

/// What `job` names: programs and files in payload.command (not those of the system's folders), or mdstrain with its
/// libraries, data and models; what belongs to mdsagent; stage.files. Errors: unavailable (libraries cannot be found
/// out).
Result<StagePlan> plan_stage(const Job& job, const PlanInputs& inputs, const std::string& agent_program);

/// Every rank's command, working folder, variables and log as they are on the nodes.
void move_to_nodes(const StagePlan& stage, LaunchPlan& plan);
trainer::TrainerConfig on_nodes(const StagePlan& stage, trainer::TrainerConfig config);

/// Every file of and below these, by path, each read once for its digest. Links that stay inside their source remain
/// links; of others the file that they lead to is taken. Errors: bad_input (a file that cannot be read, a link to a
/// folder elsewhere). The folder `left_out`, which has the output of other runs, is none of theirs.
Result<std::vector<agent::StageEntry>> list_files(const std::vector<std::string>& sources,
                                                  const std::string& left_out = "");
/// Those that ranks need, with files in them or not.
std::vector<agent::StageEntry> list_folders(const StagePlan& stage);

}  // namespace mds::launcher
