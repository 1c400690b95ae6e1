// The container that the ranks of one node run in, as one value. There is one container a node, never one a rank: the
// agent starts it, and each rank enters its namespaces between fork and exec (container/session.hpp).
#pragma once

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "topology/result.hpp"

namespace mds::container {

enum class Runtime { none, automatic, apptainer, enroot, charliecloud, podman, bubblewrap };

/// "none", "auto", "apptainer", ... as in job.toml's container.runtime.
const char* to_string(Runtime runtime);
/// Errors: bad_input with the names that there are.
Result<Runtime> runtime_from_name(const std::string& name);

/// A folder or file of the host that is seen inside. Both paths are absolute.
struct Bind {
  std::string source;
  std::string target;
  bool read_only = false;
  bool operator==(const Bind&) const = default;
};

/// "SOURCE", "SOURCE:TARGET" or "SOURCE:TARGET:ro|rw"; a colon in a path is written "\:". Errors: bad_input.
Result<Bind> bind_from_text(const std::string& text);

struct Container {
  Runtime runtime = Runtime::none;
  std::string image;                         ///< absolute path of an image file or of an unpacked root folder
  std::string sha256;                        ///< of the image file, 64 hex digits; empty: not verified
  std::vector<Bind> binds;
  std::map<std::string, std::string> env;    ///< set inside, over what the image sets
  std::vector<std::string> inherit;          ///< names of the host's variables that are let in; "*" at the end matches
  std::vector<std::string> runtime_options;  ///< given to the runtime as they are, before its command
  std::string working_dir;                   ///< inside; empty: "/"
  bool gpus = false;                         ///< the host's GPU driver and devices are there
  bool read_only = true;                     ///< nothing but binds, /tmp and /dev/shm can be written
  bool operator==(const Container&) const = default;
};

/// Everything that can be wrong with the value itself: relative paths, digests that are none, control characters, paths
/// that the runtime has no way to say (Charliecloud and enroot: colons), binds onto a part of the system (/etc, /usr,
/// /proc, /dev, ...) or over `kept` (the run folder, our programs), two binds with one target. Errors: bad_input naming
/// the bind and what would do.
Status check(const Container& container, const std::vector<std::string>& kept);

nlohmann::json to_json(const Container& container);
/// Errors: bad_input naming the field.
Result<Container> container_from_json(const nlohmann::json& json);

}  // namespace mds::container
