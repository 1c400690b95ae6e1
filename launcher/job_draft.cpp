#include "launcher/job_draft.hpp"

#include <algorithm>

#include "launcher/job_nearest.hpp"

namespace mds::launcher {

bool JobDraft::any_bad(const std::vector<std::string>& paths) const {
  return std::any_of(paths.begin(), paths.end(), [&](const std::string& path) { return is_bad(path); });
}

bool JobDraft::from_set(const std::string& path) const {
  const auto found = given.find(path);
  return found != given.end() && found->second->place.from_set;
}

std::filesystem::path JobDraft::located(const std::string& path, const std::string& written) const {
  namespace fs = std::filesystem;
  const fs::path folder = from_set(path) ? fs::path() : fs::path(file).parent_path();
  return fs::absolute(fs::path(written).is_relative() ? folder / written : fs::path(written)).lexically_normal();
}

void JobDraft::report_missing(const std::string& section, const std::vector<std::string>& names,
                              const std::string& remedy) {
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    const std::string path = section + "." + name;
    if (!has(path) && !is_bad(path)) missing.push_back(name);
  }
  if (missing.empty()) return;
  report(section + "." + missing.front(), "[" + section + "] lacks " + join_names(missing) + remedy);
  for (const std::string& name : missing) bad.insert(section + "." + name);
}

void JobDraft::report(Place place, const std::string& message) {
  if (place.from_set) {
    problems.push_back({"--set", 0, 0, message});
  } else {
    problems.push_back({file, place.line, place.column, message});
  }
}

void JobDraft::report(const std::string& path, const std::string& message) {
  bad.insert(path);
  const auto key = given.find(path);
  const auto section = sections.find(path.substr(0, path.find('.')));
  if (key != given.end()) {
    report(key->second->place, message);
  } else {
    report(section != sections.end() ? section->second : Place{false, 1, 1}, message);
  }
}

void resolve(JobDraft& draft) {
  resolve_ranks(draft);
  resolve_container(draft);
  resolve_stage(draft);
  resolve_payload(draft);
  resolve_model(draft);
  resolve_training(draft);
}

}  // namespace mds::launcher
