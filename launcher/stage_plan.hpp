// Stage plan: which files a job needs on nodes that share none with this machine, and what their names become there.
//
// On a node each file lies below one root at the path that it has here, so that what lies together stays together: a
// script and its modules, a data set and its index. Ranks start in the copy of the working folder, so relative paths
// in a command keep their meaning; absolute ones that name something staged are rewritten. A container sees that root
// as kRootInside, below the only folder in which every runtime can make a place for it; its image goes to the nodes'
// store of images. In it an absolute path means the image's file, unless it is listed or lies in the working folder.
#pragma once

#include <string>
#include <vector>

#include "agent/stage_list.hpp"
#include "launcher/plan.hpp"

namespace mds::launcher {

struct StagePlan {
  static constexpr const char* kRootInside = "/tmp/mds-staged";

  std::string folder;                    ///< stage.folder
  std::string node_root;                 ///< on the node: agent/stage_store.hpp
  std::string root;                      ///< the same as ranks see it
  std::string image;                     ///< file of the ranks' container, absolute; empty: they are in none
  std::vector<std::string> sources;      ///< files and folders, absolute and normal
  std::vector<std::string> libraries;    ///< folders, among the sources, for LD_LIBRARY_PATH
  std::string working_dir;               ///< made on the node, empty but for what is staged in it
  std::string run_folder;
  bool shares_run_folder = true;         ///< all nodes see it: ranks write there, not to a folder of the node's

  /// A path as ranks know it: below the root if it is staged.
  std::string on_node(const std::string& path) const;
  /// The same outside of a container.
  std::string outside(const std::string& path) const;
  /// A word of a command or a variable's value: "PATH" and "--name=PATH" with the path on the node.
  std::string word_on_node(const std::string& word) const;
  /// Where the node has an image with this digest; "" stands for one that is not known yet.
  std::string image_on_node(const std::string& sha256) const;

 private:
  std::string below(const std::string& top, const std::string& path) const;
};

/// What `job` names: programs and files in payload.command (not those of the system's folders), or data and models of
/// mdstrain, and itself with its libraries where there is no image to have them; the image; what belongs to mdsagent;
/// stage.files. Errors: unavailable (libraries cannot be found out).
Result<StagePlan> plan_stage(const Job& job, const PlanInputs& inputs, const std::string& agent_program);

/// Every rank's command, working folder, variables and log as they are on the nodes. make_plan() calls it.
void move_to_nodes(const StagePlan& stage, LaunchPlan& plan);
trainer::TrainerConfig on_nodes(const StagePlan& stage, trainer::TrainerConfig config);

/// Every file of and below these, by path, each read once for its digest. Links that stay inside their source remain
/// links; of others the file that they lead to is taken. Errors: bad_input (a file that cannot be read, a link to a
/// folder elsewhere). The folder `left_out`, which has the output of other runs, is none of theirs.
Result<std::vector<agent::StageEntry>> list_files(const std::vector<std::string>& sources,
                                                  const std::string& left_out = "");
/// The container's image, if there is one. Blocks while it is hashed. Errors: bad_input (no image, or not one for this
/// runtime), corrupt (container.sha256 demands another digest: both are named).
Result<std::vector<agent::StageEntry>> list_image(const container::Container& container);
/// Those that ranks need, with files in them or not.
std::vector<agent::StageEntry> list_folders(const StagePlan& stage);

}  // namespace mds::launcher
