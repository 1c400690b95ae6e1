// Where this program finds what belongs to it: mdsstack, libmds_pmix.so.
#pragma once

#include <string>

namespace mds::agent {

/// Of this program's file, or what set_program_folder() has said.
std::string program_folder();

/// A copy that was sent to this node is alone where it lies; `folder` has what belongs to it. Empty: as it was.
/// Threads: before any other thread asks.
void set_program_folder(const std::string& folder);

}  // namespace mds::agent
