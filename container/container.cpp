#include "container/container.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

namespace mds::container {
namespace {

using nlohmann::json;

struct RuntimeName {
  Runtime runtime;
  const char* name;
};
constexpr std::array<RuntimeName, 7> kRuntimes{{{Runtime::none, "none"},
                                                {Runtime::automatic, "auto"},
                                                {Runtime::apptainer, "apptainer"},
                                                {Runtime::enroot, "enroot"},
                                                {Runtime::charliecloud, "charliecloud"},
                                                {Runtime::podman, "podman"},
                                                {Runtime::bubblewrap, "bubblewrap"}}};

// Parts of the image that a bind may not replace: programs, their libraries, accounts, and what the kernel shows.
constexpr std::array<const char*, 16> kSystemFolders{
    "/bin", "/boot", "/dev", "/etc", "/lib",     "/lib32",   "/lib64",     "/proc",
    "/run", "/sbin", "/sys", "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/sbin"};

bool has_control_character(const std::string& text) {
  return std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

/// Shown in messages: control characters as '?', so that a hostile name cannot write onto a terminal.
std::string printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return "'" + text + "'";
}

/// No "//", no "." or ".." and no '/' at the end: then comparing texts compares places.
bool is_plain_absolute(const std::string& path) {
  if (path.empty() || path[0] != '/') return false;
  if (path == "/") return true;
  for (size_t begin = 1; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

/// Is `inner` the folder `outer` or below it?
bool contains(const std::string& outer, const std::string& inner) {
  if (outer == "/" || outer == inner) return true;
  return inner.size() > outer.size() && inner.compare(0, outer.size(), outer) == 0 && inner[outer.size()] == '/';
}

/// Characters with which the runtime separates the parts of a bind, and for which it knows no escape.
std::string unspeakable(Runtime runtime) {
  switch (runtime) {
    case Runtime::charliecloud: return ":";
    case Runtime::enroot: return ":,";   // spaces are written as \040
    default: return "";                  // apptainer and podman read CSV with quotes, bubblewrap takes arguments
  }
}

Status check_path(const std::string& what, const std::string& path, Runtime runtime) {
  if (has_control_character(path)) {
    return bad_input(what + " " + printable(path) + " has a control character: rename it");
  }
  if (!is_plain_absolute(path)) {
    return bad_input(what + " " + printable(path) + " must be absolute, without '.', '..', '//' or '/' at its end");
  }
  const size_t bad = path.find_first_of(unspeakable(runtime));
  if (bad == std::string::npos) return {};
  return bad_input(what + " " + printable(path) + " has a '" + path[bad] + "', which " + to_string(runtime) +
                   " cannot be told: use a path without, for example a symbolic link");
}

Status check_bind(const Bind& bind, Runtime runtime, const std::vector<std::string>& kept) {
  for (const auto& [what, path] : {std::pair("bind source", bind.source), std::pair("bind target", bind.target)}) {
    if (Status fine = check_path(what, path, runtime); !fine) return fine;
  }
  const std::string text = "bind " + printable(bind.source + ":" + bind.target);
  for (const char* folder : kSystemFolders) {
    if (!contains(bind.target, folder)) continue;
    return bad_input(text + " would hide " + folder + " of the image: bind a file or folder below it instead");
  }
  for (const std::string& path : kept) {
    // The folder itself, as it is, is what gets bound anyway.
    if (!contains(bind.target, path) || (bind.source == bind.target && contains(bind.source, path))) continue;
    return bad_input(text + " would hide " + path + ", which the ranks need: choose another target");
  }
  return {};
}

bool is_digest(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool is_variable_name(const std::string& name) {
  return !name.empty() && name.find_first_of("=") == std::string::npos && !has_control_character(name);
}

}  // namespace

const char* to_string(Runtime runtime) {
  for (const RuntimeName& entry : kRuntimes) {
    if (entry.runtime == runtime) return entry.name;
  }
  return "unknown";
}

Result<Runtime> runtime_from_name(const std::string& name) {
  std::string names;
  for (const RuntimeName& entry : kRuntimes) {
    if (entry.name == name) return entry.runtime;
    names += (names.empty() ? "" : ", ") + std::string(entry.name);
  }
  return bad_input("no container runtime is called " + printable(name) + "; there are " + names);
}

Result<Bind> bind_from_text(const std::string& text) {
  std::vector<std::string> parts(1);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == ':' || text[i + 1] == '\\')) {
      parts.back() += text[++i];
    } else if (text[i] == ':') {
      parts.emplace_back();
    } else {
      parts.back() += text[i];
    }
  }
  const std::string form = "bind " + printable(text) + ": expected SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro";
  if (parts.size() > 3 || parts[0].empty()) return bad_input(form + " (a colon in a path is written \\:)");
  Bind bind{parts[0], parts.size() > 1 ? parts[1] : parts[0], false};
  if (bind.target.empty()) return bad_input(form);
  if (parts.size() == 3) {
    if (parts[2] != "ro" && parts[2] != "rw") return bad_input(form + ", not " + printable(parts[2]));
    bind.read_only = parts[2] == "ro";
  }
  return bind;
}

Status check(const Container& container, const std::vector<std::string>& kept) {
  if (container.runtime == Runtime::none) return {};
  if (container.image.empty()) return bad_input("container.image is missing: the path of an image file or folder");
  if (Status fine = check_path("image", container.image, Runtime::none); !fine) return fine;
  if (!container.sha256.empty() && !is_digest(container.sha256)) {
    return bad_input("container.sha256 must be 64 hexadecimal digits in lower case (sha256sum IMAGE)");
  }
  if (!container.working_dir.empty()) {
    if (Status fine = check_path("working folder", container.working_dir, Runtime::none); !fine) return fine;
  }
  std::set<std::string> targets;
  for (const Bind& bind : container.binds) {
    if (Status fine = check_bind(bind, container.runtime, kept); !fine) return fine;
    if (!targets.insert(bind.target).second) {
      return bad_input("two binds have the target " + printable(bind.target) + ": remove one");
    }
  }
  for (const auto& [name, value] : container.env) {
    if (!is_variable_name(name)) return bad_input("container.env has no valid name " + printable(name));
    if (value.find('\0') != std::string::npos) return bad_input("container.env." + name + " has a zero byte");
  }
  return {};
}

json to_json(const Container& container) {
  json binds = json::array();
  for (const Bind& bind : container.binds) {
    binds.push_back({{"source", bind.source}, {"target", bind.target}, {"read_only", bind.read_only}});
  }
  return {{"runtime", to_string(container.runtime)},
          {"image", container.image},
          {"sha256", container.sha256},
          {"binds", std::move(binds)},
          {"env", container.env},
          {"inherit", container.inherit},
          {"runtime_options", container.runtime_options},
          {"working_dir", container.working_dir},
          {"gpus", container.gpus},
          {"read_only", container.read_only}};
}

Result<Container> container_from_json(const json& value) {
  try {
    Container container;
    const auto runtime = runtime_from_name(value.at("runtime").get<std::string>());
    if (!runtime) return runtime.error();
    container.runtime = *runtime;
    container.image = value.at("image").get<std::string>();
    container.sha256 = value.at("sha256").get<std::string>();
    for (const json& bind : value.at("binds")) {
      container.binds.push_back({bind.at("source").get<std::string>(), bind.at("target").get<std::string>(),
                                 bind.at("read_only").get<bool>()});
    }
    container.env = value.at("env").get<std::map<std::string, std::string>>();
    container.inherit = value.at("inherit").get<std::vector<std::string>>();
    container.runtime_options = value.at("runtime_options").get<std::vector<std::string>>();
    container.working_dir = value.at("working_dir").get<std::string>();
    container.gpus = value.at("gpus").get<bool>();
    container.read_only = value.at("read_only").get<bool>();
    return container;
  } catch (const json::exception& problem) {
    return bad_input(std::string("container: ") + problem.what());
  }
}

}  // namespace mds::container
