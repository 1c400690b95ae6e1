// Private folders: where a user's own programs keep files that they will trust later, below folders that others may
// write to, such as /var/tmp.
#pragma once

#include <cstddef>
#include <string>

#include "topology/result.hpp"

namespace mds::container {

/// The folder, made (0700) if it is not there, and certainly ours: a folder, no link, of this user, that nobody else
/// may enter. `what` names it ("the image store") and `remedy` ends the message if it is not. Errors: denied,
/// unavailable.
Status make_private_folder(const std::string& path, const std::string& what, const std::string& remedy);

/// All of it, whatever write() takes at a time. False: errno says why.
bool write_all(int fd, const char* data, size_t size);

}  // namespace mds::container
